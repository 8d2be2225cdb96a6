/** Interrupts that a device raises itself: edu's MSI, and its line. */
import * as u from 'belfry/uapi';
import { CONFIG, enable, interrupting, trigger, u32 } from '../fixtures.mjs';
import { suite } from '../suite.mjs';

const { VFIO_IRQ_SET_DATA_NONE: NONE, VFIO_IRQ_SET_DATA_BOOL: BOOL, VFIO_IRQ_SET_DATA_EVENTFD: EVENTFD } = u;
const { VFIO_IRQ_SET_ACTION_MASK: MASK, VFIO_IRQ_SET_ACTION_UNMASK: UNMASK, VFIO_IRQ_SET_ACTION_TRIGGER: TRIGGER } = u;
const INTX = 0;
const MSI = 1;
const INTRS = 'drivers/vfio/pci/vfio_pci_intrs.c';
const RAISE = 0x60;
const ACKNOWLEDGE = 0x64;

suite('edu’s own MSI', { needs: ['type1'], source: INTRS, fixture: interrupting('edu') }, (add) => {
  add('arrives', 'vfio_msihandler', async (t, { device, register }) => {
    const [eventfd] = trigger(t, device, MSI, 1);
    register(RAISE, 1);
    await t.events('one', eventfd, 1);
    register(ACKNOWLEDGE, 1);
  });
  add(
    'does not leave a device that is no bus master',
    'drivers/vfio/pci/vfio_pci_config.c vfio_basic_config_write',
    async (t, host) => {
      const [eventfd] = trigger(t, host.device, MSI, 1);
      enable(t, host.device, 2);
      host.register(RAISE, 1);
      await t.events('none', eventfd, 0);
      host.register(ACKNOWLEDGE, 1);
    },
  );
  add(
    'is not disturbed by what the owner writes as its address',
    'drivers/vfio/pci/vfio_pci_config.c init_pci_cap_msi_perm',
    async (t, host) => {
      const [eventfd] = trigger(t, host.device, MSI, 1);
      t.must('address', t.kernel.pwrite(host.device, u32(0xdead_b000), CONFIG + 0x44));
      host.register(RAISE, 1);
      await t.events('one', eventfd, 1);
      host.register(ACKNOWLEDGE, 1);
    },
  );
  add(
    'stops and goes on with the owner’s enable bit',
    'drivers/vfio/pci/vfio_pci_config.c vfio_msi_config_write',
    async (t, host) => {
      const [eventfd] = trigger(t, host.device, MSI, 1);
      t.must('disable', t.kernel.pwrite(host.device, Uint8Array.of(0x80, 0), CONFIG + 0x42));
      host.register(RAISE, 1);
      await t.events('none', eventfd, 0);
      host.register(ACKNOWLEDGE, 1);
      t.must('enable', t.kernel.pwrite(host.device, Uint8Array.of(0x81, 0), CONFIG + 0x42));
      host.register(RAISE, 1);
      await t.events('one', eventfd, 1);
      host.register(ACKNOWLEDGE, 1);
    },
  );
  add('is gone after disabling', 'vfio_msi_disable', async (t, { device, register, off }) => {
    const [eventfd] = trigger(t, device, MSI, 1);
    t.result('off', off(MSI), 0);
    register(RAISE, 1);
    await t.events('none', eventfd, 0);
    register(ACKNOWLEDGE, 1);
  });
});

suite('edu’s line', { needs: ['type1'], source: INTRS, fixture: interrupting('edu') }, (add) => {
  const fires = async (t, { register }, what, eventfd, count) => {
    register(RAISE, 1);
    await t.events(what, eventfd, count);
  };
  add('EINVAL: MASK and UNMASK while it is off', 'vfio_pci_set_intx_mask', (t, { set }) => {
    t.result('MASK', set(INTX, NONE | MASK), 'EINVAL');
    t.result('UNMASK', set(INTX, NONE | UNMASK), 'EINVAL');
    t.result('disable', set(INTX, NONE | TRIGGER, 0, 0), 'EINVAL');
  });
  add('EINVAL: not start 0 and count 1', 'vfio_pci_set_intx_trigger', (t, { set }) => {
    t.result('count 0', set(INTX, EVENTFD | TRIGGER, 0, 0), 'EINVAL');
    t.result('start 1', set(INTX, EVENTFD | TRIGGER, 1, 1, [t.eventfd().fd]), 'EINVAL');
  });
  add('EINVAL: MSI while it is on', 'vfio_pci_set_msi_trigger', (t, { set, device }) => {
    trigger(t, device, INTX, 1);
    t.result('MSI', set(MSI, EVENTFD | TRIGGER, 0, 1, [t.eventfd().fd]), 'EINVAL');
  });
  add('fires once and is masked, and fires again at UNMASK while it is up', 'vfio_intx_handler', async (t, host) => {
    const [eventfd] = trigger(t, host.device, INTX, 1);
    await fires(t, host, 'first', eventfd, 1);
    t.result('UNMASK', host.set(INTX, NONE | UNMASK), 0);
    await t.events('again', eventfd, 1);
    host.register(ACKNOWLEDGE, 1);
    t.result('UNMASK, line down', host.set(INTX, NONE | UNMASK), 0);
    await t.events('quiet', eventfd, 0);
  });
  add('MASK holds it, UNMASK by BOOL lets it go', '__vfio_pci_intx_mask', async (t, host) => {
    const [eventfd] = trigger(t, host.device, INTX, 1);
    t.result('MASK', host.set(INTX, NONE | MASK), 0);
    await fires(t, host, 'masked', eventfd, 0);
    t.result('BOOL 0', host.set(INTX, BOOL | UNMASK, 0, 1, [0]), 0);
    await t.events('BOOL 0', eventfd, 0);
    t.result('BOOL 1', host.set(INTX, BOOL | UNMASK, 0, 1, [1]), 0);
    await t.events('BOOL 1', eventfd, 1);
    host.register(ACKNOWLEDGE, 1);
  });
  add('an eventfd unmasks: EBUSY twice, -1 takes it away', 'vfio_pci_set_intx_unmask', async (t, host) => {
    const [eventfd] = trigger(t, host.device, INTX, 1);
    const resample = t.eventfd();
    t.result('set', host.set(INTX, EVENTFD | UNMASK, 0, 1, [resample.fd]), 0);
    t.result('twice', host.set(INTX, EVENTFD | UNMASK, 0, 1, [resample.fd]), 'EBUSY');
    await fires(t, host, 'first', eventfd, 1);
    resample.signal();
    await t.events('after it was signalled', eventfd, 1);
    host.register(ACKNOWLEDGE, 1);
    t.result('-1', host.set(INTX, EVENTFD | UNMASK, 0, 1, [-1]), 0);
    t.result('set again', host.set(INTX, EVENTFD | UNMASK, 0, 1, [resample.fd]), 0);
  });
  add('ENOTTY: no eventfd masks', 'vfio_pci_set_intx_mask', (t, { set, device }) => {
    trigger(t, device, INTX, 1);
    t.result('it', set(INTX, EVENTFD | MASK, 0, 1, [t.eventfd().fd]), 'ENOTTY');
  });
  add('loopback signals', 'vfio_pci_set_intx_trigger', async (t, { set, device }) => {
    const [eventfd] = trigger(t, device, INTX, 1);
    t.result('NONE', set(INTX, NONE | TRIGGER), 0);
    await t.events('one', eventfd, 1);
  });
  add('the owner’s COMMAND masks', 'drivers/vfio/pci/vfio_pci_config.c vfio_basic_config_write', async (t, host) => {
    const [eventfd] = trigger(t, host.device, INTX, 1);
    enable(t, host.device, 0x406);
    await fires(t, host, 'disabled', eventfd, 0);
    enable(t, host.device, 6);
    await t.events('enabled', eventfd, 1);
    host.register(ACKNOWLEDGE, 1);
  });
});
