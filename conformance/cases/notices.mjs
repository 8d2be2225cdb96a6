/** ERR and REQ, and VFIO_DEVICE_IOEVENTFD. */
import * as u from 'belfry/uapi';
import { interrupting, K, REGION, trigger } from '../fixtures.mjs';
import { suite } from '../suite.mjs';

const { VFIO_IRQ_SET_DATA_NONE: NONE, VFIO_IRQ_SET_DATA_BOOL: BOOL, VFIO_IRQ_SET_DATA_EVENTFD: EVENTFD } = u;
const { VFIO_IRQ_SET_ACTION_MASK: MASK, VFIO_IRQ_SET_ACTION_TRIGGER: TRIGGER } = u;
const _MSI = 1;
const ERR = 3;
const REQ = 4;
const INTRS = 'drivers/vfio/pci/vfio_pci_intrs.c';

for (const [name, index] of [
  ['ERR', ERR],
  ['REQ', REQ],
]) {
  suite(`${name} by VFIO`, { needs: ['type1'], source: INTRS, fixture: interrupting('nvme') }, (add) => {
    const branch = 'vfio_pci_set_ctx_trigger_single';
    add('loopback signals the eventfd', branch, async (t, { set, device }) => {
      const [eventfd] = trigger(t, device, index, 1);
      t.result('NONE', set(index, NONE | TRIGGER), 0);
      await t.events('NONE', eventfd, 1);
      t.result('BOOL 0', set(index, BOOL | TRIGGER, 0, 1, [0]), 0);
      t.result('BOOL 1', set(index, BOOL | TRIGGER, 0, 1, [1]), 0);
      await t.events('BOOL', eventfd, 1);
    });
    add('EINVAL: while none is set', branch, (t, { set }) => {
      t.result('NONE', set(index, NONE | TRIGGER), 'EINVAL');
      t.result('NONE, count 0', set(index, NONE | TRIGGER, 0, 0), 'EINVAL');
    });
    add('NONE with count 0 takes it away', branch, (t, { set, device }) => {
      trigger(t, device, index, 1);
      t.result('away', set(index, NONE | TRIGGER, 0, 0), 0);
      t.result('again', set(index, NONE | TRIGGER, 0, 0), 'EINVAL');
    });
    add('-1 takes it away, -2 is EINVAL, no descriptor EBADF', branch, (t, { set, device }) => {
      trigger(t, device, index, 1);
      t.result('-2', set(index, EVENTFD | TRIGGER, 0, 1, [-2]), 'EINVAL');
      t.result('9999', set(index, EVENTFD | TRIGGER, 0, 1, [9999]), 'EBADF');
      t.result('-1', set(index, EVENTFD | TRIGGER, 0, 1, [-1]), 0);
      t.result('NONE', set(index, NONE | TRIGGER), 'EINVAL');
    });
    add('EINVAL: BOOL and EVENTFD of nothing', branch, (t, { set }) => {
      t.result('BOOL', set(index, BOOL | TRIGGER, 0, 0), 'EINVAL');
      t.result('EVENTFD', set(index, EVENTFD | TRIGGER, 0, 0), 'EINVAL');
    });
    add('ENOTTY: it cannot be masked', 'vfio_pci_set_irqs_ioctl', (t, { set }) => {
      t.result('MASK', set(index, NONE | MASK), 'ENOTTY');
    });
  });
}

suite('IOEVENTFD', {
  needs: ['type1'],
  source: 'drivers/vfio/pci/vfio_pci_rdwr.c',
  fixture: interrupting('nvme'),
}, (add) => {
  const branch = 'vfio_pci_ioeventfd';
  const call = (t, device, { argsz = 32, flags = 4, offset = 0, data = 0, fd }) =>
    t.kernel.ioctl(device, u.VFIO_DEVICE_IOEVENTFD, u.vfio_device_ioeventfd.bytes({ argsz, flags, offset, data, fd }));
  add(
    'EINVAL: argsz, not exactly one width, fd below -1',
    'vfio_pci_core.c vfio_pci_ioctl_ioeventfd',
    (t, { device }) => {
      const { fd } = t.eventfd();
      t.result('argsz 27', call(t, device, { fd, argsz: 27 }), 'EINVAL');
      t.result('no width', call(t, device, { fd, flags: 0 }), 'EINVAL');
      t.result('two', call(t, device, { fd, flags: 3 }), 'EINVAL');
      t.result('unknown', call(t, device, { fd, flags: 16 }), 'EINVAL');
      t.result('fd -2', call(t, device, { fd: -2 }), 'EINVAL');
    },
  );
  add('EINVAL: eight bytes at once', branch, (t, { device }) => {
    t.result('it', call(t, device, { fd: t.eventfd().fd, flags: 8 }), 'EINVAL');
  });
  add('EINVAL: what is no BAR, and beyond one', branch, (t, { device }) => {
    const { fd } = t.eventfd();
    t.result('config space', call(t, device, { fd, offset: 7 * REGION }), 'EINVAL');
    t.result('beyond', call(t, device, { fd, offset: 0x4000 }), 'EINVAL');
  });
  add('EINVAL: the MSI-X table', branch, (t, { device }) => {
    t.result('it', call(t, device, { fd: t.eventfd().fd, offset: 2 * K }), 'EINVAL');
  });
  add('EEXIST: the same once more; -1 takes it away, then ENODEV', branch, (t, { device }) => {
    const { fd } = t.eventfd();
    t.result('set', call(t, device, { fd, offset: 0x1000 }), 0);
    t.result('again', call(t, device, { fd, offset: 0x1000 }), 'EEXIST');
    t.result('away', call(t, device, { fd: -1, offset: 0x1000 }), 0);
    t.result('again away', call(t, device, { fd: -1, offset: 0x1000 }), 'ENODEV');
  });
  add('EBADF, EINVAL: what is no eventfd', branch, (t, { device }) => {
    t.result('9999', call(t, device, { fd: 9999, offset: 0x1000 }), 'EBADF');
    t.result('the device', call(t, device, { fd: device, offset: 0x1000 }), 'EINVAL');
  });
});
