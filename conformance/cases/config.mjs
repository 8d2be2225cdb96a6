/** Config space: what is virtual, what reaches the device, what is dropped. */
import * as u from 'belfry/uapi';
import { CONFIG, enable, owned, setIrqs, text, trigger } from '../fixtures.mjs';
import { suite } from '../suite.mjs';

const SOURCE = 'drivers/vfio/pci/vfio_pci_config.c';
const MSI = 0x40;

function config(t, device) {
  const read = (offset, length) => {
    const bytes = new Uint8Array(length);
    const result = t.kernel.pread(device, bytes, CONFIG + offset);
    return result < 0 ? result : bytes.subarray(0, result);
  };
  const write = (offset, ...bytes) => t.kernel.pwrite(device, Uint8Array.from(bytes), CONFIG + offset);
  /** Writes, and expects what is read then. */
  const after = (what, offset, written, expected) => {
    t.result(`write ${what}`, write(offset, ...written), written.length);
    t.same(what, read(offset, expected.length), Uint8Array.from(expected));
  };
  return { read, write, after };
}
const on = (model) => (t) => {
  const host = owned(model)(t);
  return { ...host, ...config(t, host.device) };
};

suite('config space', { needs: ['type1'], source: SOURCE, fixture: on('edu') }, (add) => {
  const rw = 'vfio_config_do_rw';
  add('EFAULT: beyond its size', 'vfio_pci_config_rw_single', (t, { read, write }) => {
    for (const [at, length] of [
      [256, 4],
      [254, 4],
      [4096, 1],
    ]) {
      const got = read(at, length);
      t.result(`read ${length} at ${at}`, typeof got === 'number' ? got : 0, 'EFAULT');
    }
    t.result('write at 256', write(256, 0), 'EFAULT');
    t.same('the last byte', read(255, 1).length, 1);
  });
  add('identification is read only', 'vfio_pci_init_perm_bits', (_t, { after }) => {
    after('vendor', 0, [0xff, 0xff], [0x34, 0x12]);
    after('device', 2, [0, 0], [0xe8, 0x11]);
    after('revision and class', 8, [1, 2, 3, 4], [0x10, 0, 0xff, 0]);
    after('header type', 0x0e, [0xff], [0]);
    after('capabilities pointer', 0x34, [0xff], [MSI]);
  });
  add('COMMAND: memory, bus master and INTx disable can be set', 'vfio_basic_config_write', (_t, { after }) => {
    after('all three', 4, [0x06, 0x04], [0x06, 0x04]);
    after('none', 4, [0, 0], [0, 0]);
  });
  add('STATUS: only the capability list bit, whatever is written', rw, (_t, { after }) => {
    after('STATUS', 6, [0xff, 0xff], [0x10, 0]);
  });
  add('a BAR answers its size, and takes its address back', 'vfio_bar_fixup', (_t, { after, read }) => {
    const address = read(0x10, 4);
    after('ones', 0x10, [0xff, 0xff, 0xff, 0xff], [0, 0, 0xf0, 0xff]);
    after('address', 0x10, [...address], [...address]);
  });
  add('a BAR that is not there is zero', 'vfio_bar_fixup', (_t, { after }) => {
    after('BAR 1', 0x14, [0xff, 0xff, 0xff, 0xff], [0, 0, 0, 0]);
    after('ROM', 0x30, [0xff, 0xff, 0xff, 0xff], [0, 0, 0, 0]);
  });
  add('an owner’s BAR does not move the device', 'vfio_basic_config_write', (t, { device, write }) => {
    enable(t, device, 2);
    t.result('another address', write(0x10, 0, 0, 0x30, 0x12), 4);
    const word = new Uint8Array(4);
    t.result('region 0', t.kernel.pread(device, word, 0), 4);
    t.same('identification', word, Uint8Array.of(0xed, 0, 0, 1));
  });
  add('INTERRUPT_LINE is the owner’s, INTERRUPT_PIN the device’s', 'vfio_pci_init_perm_bits', (_t, { after }) => {
    after('line', 0x3c, [0x5a], [0x5a]);
    after('pin', 0x3d, [4], [1]);
  });
  add('the MSI capability’s place in the list is read only', 'vfio_msi_config_write', (_t, { after }) => {
    after('id and next', MSI, [0xff, 0xff], [5, 0]);
  });
  add('MSI: enable does not stay without interrupts of VFIO', 'vfio_msi_config_write', (_t, { after }) => {
    after('enable', MSI + 2, [1, 0], [0, 0]);
    after('64 bit and the count asked for', MSI + 2, [0x8e, 0], [0x8e, 0]);
  });
  add('MSI: address and data are the owner’s own copy', 'init_pci_cap_msi_perm', (_t, { after }) => {
    after('address', MSI + 4, [0xef, 0xbe, 0xad, 0xde], [0xef, 0xbe, 0xad, 0xde]);
    after('upper half', MSI + 8, [0x78, 0x56, 0x34, 0x12], [0x78, 0x56, 0x34, 0x12]);
    after('data', MSI + 12, [0xa5, 0x5a], [0xa5, 0x5a]);
  });
  add('MSI: a vector that was given back has left no address', 'kernel/irq/msi.c msi_domain_deactivate', (t, host) => {
    trigger(t, host.device, 1, 1);
    const off = u.VFIO_IRQ_SET_DATA_NONE | u.VFIO_IRQ_SET_ACTION_TRIGGER;
    t.result('off', setIrqs(t, host.device, { index: 1, flags: off }), 0);
    t.result('close', t.close(host.device), 0);
    const again = t.kernel.ioctl(host.groupFd, u.VFIO_GROUP_GET_DEVICE_FD, text(host.name));
    const message = new Uint8Array(10);
    t.result('read', t.kernel.pread(t.descriptor('again', again), message, CONFIG + MSI + 4), 10);
    t.same('address and data', message, new Uint8Array(10));
  });
  add('a read may cross capabilities', 'vfio_pci_config_rw', (t, { read }) => {
    t.same('first half', read(0, 64).length, 64);
    t.same('all of it', read(0, 256).length, 256);
  });
});

suite('config space of an Express device', { needs: ['type1'], source: SOURCE, fixture: on('nvme') }, (add) => {
  add('4096 bytes', 'vfio_pci_config_rw_single', (t, { read }) => {
    t.same('the last word', read(4092, 4).length, 4);
    const got = read(4094, 4);
    t.result('over the end', typeof got === 'number' ? got : 0, 'EFAULT');
  });
  add(
    'MSI-X: enable and mask do not reach the device without interrupts of VFIO',
    'vfio_cap_init',
    (t, { read, after }) => {
      const at = find(read, 0x11);
      t.same('found', at > 0, true);
      after('message control', at + 2, [0, 0xc0], [...read(at + 2, 2)]);
    },
  );
});

/** Where a capability is. */
function find(read, id) {
  for (let at = read(0x34, 1)[0], left = 48; at !== 0 && left > 0; left -= 1) {
    const [found, next] = read(at, 2);
    if (found === id) return at;
    at = next;
  }
  return 0;
}
