/** VFIO_DEVICE_SET_IRQS: its checks in their order, and what arrives. */
import * as u from 'belfry/uapi';
import { interrupting, trigger } from '../fixtures.mjs';
import { suite } from '../suite.mjs';

const { VFIO_IRQ_SET_DATA_NONE: NONE, VFIO_IRQ_SET_DATA_BOOL: BOOL, VFIO_IRQ_SET_DATA_EVENTFD: EVENTFD } = u;
const { VFIO_IRQ_SET_ACTION_MASK: MASK, VFIO_IRQ_SET_ACTION_UNMASK: UNMASK, VFIO_IRQ_SET_ACTION_TRIGGER: TRIGGER } = u;
const INTX = 0;
const MSI = 1;
const MSIX = 2;
const _REQ = 4;
const MAIN = 'drivers/vfio/vfio_main.c vfio_set_irqs_validate_and_prepare';
const INTRS = 'drivers/vfio/pci/vfio_pci_intrs.c';

suite('SET_IRQS', { needs: ['type1'], source: MAIN, fixture: interrupting('nvme') }, (add) => {
  add('EFAULT: no struct', MAIN, (t, { device }) => {
    t.result('null', t.kernel.ioctl(device, u.VFIO_DEVICE_SET_IRQS, 0n), 'EFAULT');
  });
  add('EINVAL: argsz below 20, an index beyond REQ', MAIN, (t, { set }) => {
    t.result('19', set(MSIX, NONE | TRIGGER, 0, 0, [], 19), 'EINVAL');
    t.result('index 5', set(5, NONE | TRIGGER, 0, 0), 'EINVAL');
  });
  add('EINVAL: an unknown flag', MAIN, (t, { set }) => {
    t.result('bit 6', set(MSIX, NONE | TRIGGER | 0x40), 'EINVAL');
  });
  add('EINVAL: start and count overflow', MAIN, (t, { set }) => {
    t.result('start 1', set(MSIX, NONE | TRIGGER, 1, 0xffff_ffff), 'EINVAL');
    t.result('start 0', set(MSIX, NONE | TRIGGER, 0, 0xffff_ffff), 'EINVAL');
  });
  add('EINVAL: beyond the vectors that there are', MAIN, (t, { set }) => {
    t.result('start 65', set(MSIX, NONE | TRIGGER, 65, 0), 'EINVAL');
    t.result('66 of 65', set(MSIX, NONE | TRIGGER, 0, 66), 'EINVAL');
  });
  add('EINVAL: of a kind that the device has not, even to disable it', MAIN, (t, { off }) => {
    t.result('MSI', off(MSI), 'EINVAL');
  });
  add('EINVAL: no kind of data, or two, before ENOTTY', MAIN, (t, { set }) => {
    t.result('none', set(MSIX, TRIGGER | MASK), 'EINVAL');
    t.result('two', set(MSIX, NONE | BOOL | TRIGGER, 0, 1, [1]), 'EINVAL');
  });
  add('EINVAL: argsz without room for the payload', MAIN, (t, { set }) => {
    t.result('EVENTFD', set(MSIX, EVENTFD | TRIGGER, 0, 2, [], 24), 'EINVAL');
    t.result('BOOL', set(MSIX, BOOL | TRIGGER, 0, 2, [1], 21), 'EINVAL');
  });
  add('ENOTTY: no action, or two', 'drivers/vfio/pci/vfio_pci_intrs.c vfio_pci_set_irqs_ioctl', (t, { set }) => {
    t.result('none', set(MSIX, NONE), 'ENOTTY');
    t.result('two', set(MSIX, NONE | MASK | UNMASK), 'ENOTTY');
  });
  add(
    'ENOTTY: MSI-X is not masked by VFIO',
    'drivers/vfio/pci/vfio_pci_intrs.c vfio_pci_set_irqs_ioctl',
    (t, { set }) => {
      t.result('MASK', set(MSIX, NONE | MASK), 'ENOTTY');
      t.result('UNMASK', set(MSIX, NONE | UNMASK), 'ENOTTY');
    },
  );
});

for (const [name, index, model, count] of [
  ['MSI', MSI, 'edu', 1],
  ['MSI-X', MSIX, 'nvme', 65],
]) {
  suite(`${name} by VFIO`, { needs: ['type1'], source: INTRS, fixture: interrupting(model) }, (add) => {
    const branch = 'vfio_pci_set_msi_trigger';
    add('EINVAL: to disable what is not enabled', branch, (t, { off }) => {
      t.result('it', off(index), 'EINVAL');
    });
    add('EINVAL: loopback of what is not enabled', branch, (t, { set }) => {
      t.result('NONE', set(index, NONE | TRIGGER), 'EINVAL');
      t.result('BOOL', set(index, BOOL | TRIGGER, 0, 1, [1]), 'EINVAL');
    });
    add('ERANGE: to enable no vector', 'vfio_msi_enable', (t, { set }) => {
      t.result('start 0 count 0', set(index, EVENTFD | TRIGGER, 0, 0), 'ERANGE');
    });
    add('enable, disable, and disable again: EINVAL', branch, (t, { off, device }) => {
      trigger(t, device, index, 1);
      t.result('off', off(index), 0);
      t.result('again', off(index), 'EINVAL');
    });
    add('EINVAL: another kind while it is enabled', branch, (t, { set, device }) => {
      trigger(t, device, index, 1);
      t.result('INTx', set(INTX, EVENTFD | TRIGGER, 0, 1, [t.eventfd().fd]), 'EINVAL');
    });
    add('EBADF: enabling with no descriptor leaves it off', 'vfio_msi_set_block', (t, { set, off }) => {
      t.result('it', set(index, EVENTFD | TRIGGER, 0, 1, [9999]), 'EBADF');
      t.result('off', off(index), 'EINVAL');
    });
    add('EINVAL: a descriptor that is no eventfd', 'vfio_msi_set_vector_signal', (t, { set, device, off }) => {
      t.result('the device itself', set(index, EVENTFD | TRIGGER, 0, 1, [device]), 'EINVAL');
      t.result('off', off(index), 'EINVAL');
    });
    add('-1 enables without a handler', 'vfio_msi_set_vector_signal', async (t, { set, off }) => {
      t.result('on', set(index, EVENTFD | TRIGGER, 0, 1, [-1]), 0);
      t.result('loopback finds nobody', set(index, NONE | TRIGGER), 0);
      t.result('off', off(index), 0);
    });
    add('loopback signals by NONE, and by BOOL where the byte is not 0', branch, async (t, { set, device }) => {
      const [eventfd] = trigger(t, device, index, 1);
      t.result('NONE', set(index, NONE | TRIGGER), 0);
      await t.events('NONE', eventfd, 1);
      t.result('BOOL 0', set(index, BOOL | TRIGGER, 0, 1, [0]), 0);
      await t.events('BOOL 0', eventfd, 0);
      t.result('BOOL 2', set(index, BOOL | TRIGGER, 0, 1, [2]), 0);
      await t.events('BOOL 2', eventfd, 1);
    });
    add('another eventfd takes its place', 'vfio_msi_set_vector_signal', async (t, { set, device }) => {
      const [first] = trigger(t, device, index, 1);
      const second = t.eventfd();
      t.result('swap', set(index, EVENTFD | TRIGGER, 0, 1, [second.fd]), 0);
      t.result('loopback', set(index, NONE | TRIGGER), 0);
      await t.events('second', second, 1);
      await t.events('first', first, 0);
    });
    add('a bad descriptor tears down the vector that worked', 'vfio_msi_set_block', async (t, { set, device }) => {
      const [eventfd] = trigger(t, device, index, 1);
      t.result('bad', set(index, EVENTFD | TRIGGER, 0, 1, [9999]), 'EBADF');
      t.result('loopback', set(index, NONE | TRIGGER), 0);
      await t.events('nothing', eventfd, 0);
    });
    if (count === 1) return;
    add(
      'a block with a bad descriptor in it is torn down up to there',
      'vfio_msi_set_block',
      async (t, { set, device }) => {
        const eventfds = trigger(t, device, index, 3);
        const [a, , c] = eventfds;
        t.result('bad', set(index, EVENTFD | TRIGGER, 0, 3, [a.fd, 9999, c.fd]), 'EBADF');
        t.result('loopback', set(index, NONE | TRIGGER, 0, 3), 0);
        await t.events('first', a, 0);
        await t.events('third', c, 1);
      },
    );
    add('loopback of some by BOOL', branch, async (t, { set, device }) => {
      const [a, b] = trigger(t, device, index, 3);
      t.result('the middle', set(index, BOOL | TRIGGER, 0, 3, [0, 1, 0]), 0);
      await t.events('middle', b, 1);
      await t.events('first', a, 0);
    });
    add('start 3, count 0 enables three vectors without handlers', 'vfio_msi_enable', (t, { set, off }) => {
      t.result('on', set(index, EVENTFD | TRIGGER, 3, 0), 0);
      t.result('one of them', set(index, EVENTFD | TRIGGER, 1, 1, [t.eventfd().fd]), 0);
      t.result('off', off(index), 0);
    });
    add(
      'a vector beyond those enabled: EINVAL on Arm, allocated on x86',
      'vfio_msi_set_vector_signal',
      (t, { set, device }) => {
        trigger(t, device, index, 1);
        t.result('vector 1', set(index, EVENTFD | TRIGGER, 1, 1, [t.eventfd().fd]), t.has('x86') ? 0 : 'EINVAL');
      },
    );
    add('one eventfd for two vectors is signalled twice', branch, async (t, { set }) => {
      const eventfd = t.eventfd();
      t.result('on', set(index, EVENTFD | TRIGGER, 0, 2, [eventfd.fd, eventfd.fd]), 0);
      t.result('loopback', set(index, NONE | TRIGGER, 0, 2), 0);
      await t.events('both', eventfd, 2);
    });
    add(
      'all vectors at once',
      branch,
      async (t, { set, device }) => {
        const eventfds = trigger(t, device, index, count);
        t.result('loopback', set(index, NONE | TRIGGER, 0, count), 0);
        await t.events('first', eventfds[0], 1);
        await t.events('last', eventfds[count - 1], 1);
      },
      { needs: ['isolated'] },
    );
    add(
      'more than the v2m frame has: the number that it has, and nothing is enabled',
      'vfio_msi_enable',
      (t, { set, off }) => {
        const { fd } = t.eventfd();
        const fds = Array.from({ length: count }, () => fd);
        t.result('65 of 64', set(index, EVENTFD | TRIGGER, 0, count, fds), 64);
        t.result('off', off(index), 'EINVAL');
      },
      { needs: ['v2m'] },
    );
  });
}
