/** Configuration space as the owner sees it: what is a copy, what is the hardware, what is dropped. For edu. */
const CONFIG = 7 * 2 ** 40;

export function probeConfig(p, device, { msi, pcie = null }) {
  const read = (name, offset, length) => p.pread(name, device, CONFIG + offset, length);
  const write = (name, offset, value, size) => {
    const bytes = Array.from({ length: size }, (_, i) => Math.floor(value / 2 ** (8 * i)) & 0xff);
    p.pwrite(`${name} = 0x${value.toString(16)}`, device, CONFIG + offset, bytes);
    read(`${name} after`, offset, size);
  };
  read('first 64 bytes', 0, 64);
  write('VENDOR_ID', 0, 0xffff, 2);
  write('COMMAND', 4, 0x0547, 2);
  write('COMMAND', 4, 0x0000, 2);
  write('STATUS', 6, 0xffff, 2);
  write('CLASS', 8, 0xffffffff, 4);
  write('CACHE_LINE', 12, 0x10, 1);
  write('LATENCY', 13, 0x40, 1);
  write('HEADER_TYPE', 14, 0xff, 1);
  write('BIST', 15, 0xff, 1);
  for (let bar = 0; bar < 6; bar++) {
    const saved = p.pread(`BAR ${bar}`, device, CONFIG + 16 + bar * 4, 4, () => 'any');
    write(`BAR ${bar} sizing`, 16 + bar * 4, 0xffffffff, 4);
    p.pwrite(`BAR ${bar} restored`, device, CONFIG + 16 + bar * 4, saved);
  }
  write('ROM sizing', 0x30, 0xffffffff, 4);
  write('ROM', 0x30, 0, 4);
  write('CAPABILITIES', 0x34, 0xff, 1);
  write('INTERRUPT_LINE', 0x3c, 0x5a, 1);
  write('INTERRUPT_PIN', 0x3d, 0x04, 1);
  if (msi !== null) {
    write('MSI id and next', msi, 0xffff, 2);
    write('MSI flags, enable', msi + 2, 0x0001, 2);
    write('MSI flags, all', msi + 2, 0xffff, 2);
    write('MSI flags, none', msi + 2, 0x0000, 2);
    write('MSI address', msi + 4, 0xdeadbeef, 4);
    write('MSI address high', msi + 8, 0x12345678, 4);
    write('MSI data', msi + 12, 0x5aa5, 2);
  }
  if (pcie !== null) read('PCI Express', pcie, 16);
}
