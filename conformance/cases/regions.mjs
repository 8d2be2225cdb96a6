/** Regions as files: reading, writing and mapping BARs. */
import { CONFIG, enable, owned, REGION } from '../fixtures.mjs';
import { suite } from '../suite.mjs';

const EDU_ID = Uint8Array.of(0xed, 0, 0, 1);
const NVME = { bar: 0x4000, table: 0x2000 };

/** A read: its bytes, or the errno's number. */
function read(t, device, offset, length) {
  const bytes = new Uint8Array(length);
  const result = t.kernel.pread(device, bytes, offset);
  return result < 0 ? result : bytes.subarray(0, result);
}
const refused = (t, what, got, expected) => t.result(what, typeof got === 'number' ? got : 0, expected);
const write = (t, device, offset, ...bytes) => t.kernel.pwrite(device, Uint8Array.from(bytes), offset);
const map = (t, device, offset, length, access = 'rw') => {
  const mapped = t.kernel.mmap(device, offset, length, access);
  if (typeof mapped === 'number') return mapped;
  mapped.unmap();
  return 0;
};

const on = (model) => (t) => {
  const host = owned(model)(t);
  enable(t, host.device);
  return host;
};

suite('BAR', { needs: ['type1'], source: 'drivers/vfio/pci/vfio_pci_rdwr.c', fixture: on('edu') }, (add) => {
  const branch = 'vfio_pci_bar_rw';
  add('a word is read as the device has it', branch, (t, { device }) => {
    t.same('identification', read(t, device, 0, 4), EDU_ID);
  });
  add('a write reaches the device', branch, (t, { device }) => {
    t.result('write', write(t, device, 4, 0x0f, 0, 0, 0), 4);
    t.same('edu keeps the inverse', read(t, device, 4, 4), Uint8Array.of(0xf0, 0xff, 0xff, 0xff));
  });
  add('nothing asked for is nothing read', branch, (t, { device }) => {
    t.same('0 bytes', read(t, device, 0, 0), new Uint8Array(0));
    t.same('also beyond', read(t, device, 0x20_0000, 0), new Uint8Array(0));
  });
  add('a read over the end is cut', branch, (t, { device }) => {
    t.same('last word', read(t, device, 0x10_0000 - 4, 8).length, 4);
  });
  add('EINVAL: at the end and beyond', branch, (t, { device }) => {
    refused(t, 'at the end', read(t, device, 0x10_0000, 4), 'EINVAL');
    refused(t, 'beyond', read(t, device, 0x10_1000, 4), 'EINVAL');
  });
  add('EINVAL: a BAR that is not there', branch, (t, { device }) => {
    refused(t, 'BAR 1', read(t, device, REGION, 4), 'EINVAL');
    refused(t, 'BAR 5', read(t, device, 5 * REGION, 4), 'EINVAL');
  });
  add('EINVAL: a region that is not there', 'vfio_pci_core.c vfio_pci_rw', (t, { device }) => {
    refused(t, 'region 9', read(t, device, 9 * REGION, 4), 'EINVAL');
    refused(t, 'region 200', read(t, device, 200 * REGION, 4), 'EINVAL');
  });
  add('EINVAL: a ROM is never written', 'vfio_pci_core.c vfio_pci_rw', (t, { device }) => {
    t.result('write', write(t, device, 6 * REGION, 0, 0, 0, 0), 'EINVAL');
  });
  add('EIO: memory decoding is off', branch, (t, { device }) => {
    enable(t, device, 0);
    refused(t, 'read', read(t, device, 0, 4), 'EIO');
    t.result('write', write(t, device, 4, 1, 2, 3, 4), 'EIO');
    enable(t, device, 2);
    t.same('on again', read(t, device, 0, 4), EDU_ID);
  });
  add('I/O ports', branch, (t) => {
    const host = on('igb')(t);
    t.same('word', read(t, host.device, 2 * REGION, 4).length, 4);
    refused(t, 'beyond', read(t, host.device, 2 * REGION + 0x20, 4), 'EINVAL');
  });
});

suite('the MSI-X table', {
  needs: ['type1'],
  source: 'drivers/vfio/pci/vfio_pci_rdwr.c',
  fixture: on('nvme'),
}, (add) => {
  const branch = 'vfio_pci_core_do_io_rw';
  add('reads as ones through the file', branch, (t, { device }) => {
    t.same('first entry', read(t, device, NVME.table, 16), new Uint8Array(16).fill(0xff));
    t.same('last entry', read(t, device, NVME.table + 64 * 16, 16), new Uint8Array(16).fill(0xff));
  });
  add('a write through the file is dropped', branch, (t, { device }) => {
    t.result('write', write(t, device, NVME.table, 1, 2, 3, 4), 4);
    const table = t.mmap(device, 0, NVME.bar);
    t.same('the entry itself', table.read32(NVME.table), 0);
  });
  add('a read into it: what lies before, then ones', branch, (t, { device }) => {
    const bytes = read(t, device, NVME.table - 4, 8);
    t.same('length', bytes.length, 8);
    t.same('the table’s half', bytes.subarray(4), new Uint8Array(4).fill(0xff));
  });
  add('it is there in a mapping', 'vfio_pci_core.c vfio_pci_core_mmap', (t, { device }) => {
    const table = t.mmap(device, 0, NVME.bar);
    t.same('vector 0 is masked', table.read32(NVME.table + 12) & 1, 1);
    table.write32(NVME.table, 0x1234_5670);
    t.same('and can be written', table.read32(NVME.table), 0x1234_5670);
    table.write32(NVME.table, 0);
  });
});

suite('mmap', { needs: ['type1'], source: 'drivers/vfio/pci/vfio_pci_core.c', fixture: on('edu') }, (add) => {
  const branch = 'vfio_pci_core_mmap';
  add('a BAR of memory, whole, by pages, and for reading only', branch, (t, { device }) => {
    t.result('whole', map(t, device, 0, 0x10_0000), 0);
    t.result('second page', map(t, device, 0x1000, 0x1000), 0);
    t.result('half a page', map(t, device, 0, 0x800), 0);
    t.result('read only', map(t, device, 0, 0x1000, 'r'), 0);
  });
  add('the device answers in it', branch, (t, { device }) => {
    const registers = t.mmap(device, 0, 0x1000);
    t.same('identification', registers.read32(0), 0x0100_00ed);
    registers.write32(4, 0x55);
    t.same('liveness', registers.read32(4) >>> 0, 0xffff_ffaa);
  });
  add('EINVAL: over the end', branch, (t, { device }) => {
    t.result('beyond', map(t, device, 0x10_0000, 0x1000), 'EINVAL');
    t.result('over it', map(t, device, 0xf_f000, 0x2000), 'EINVAL');
  });
  add('EINVAL: a BAR that is not there', branch, (t, { device }) => {
    t.result('BAR 1', map(t, device, REGION, 0x1000), 'EINVAL');
  });
  add('EINVAL: what is no BAR', branch, (t, { device }) => {
    t.result('ROM', map(t, device, 6 * REGION, 0x1000), 'EINVAL');
    t.result('config space', map(t, device, CONFIG, 0x1000), 'EINVAL');
    t.result('VGA', map(t, device, 8 * REGION, 0x1000), 'EINVAL');
    t.result('region 9', map(t, device, 9 * REGION, 0x1000), 'EINVAL');
  });
  add('EINVAL: I/O ports', branch, (t) => {
    t.result('BAR 2 of igb', map(t, on('igb')(t).device, 2 * REGION, 0x1000), 'EINVAL');
  });
});
