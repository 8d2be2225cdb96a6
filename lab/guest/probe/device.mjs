/** A device's description, its regions and its other requests. */
import * as u from 'belfry/uapi';
import { hexBytes } from './probe.mjs';

const REGION = 2 ** 40;

export function probeDescription(p, device) {
  const raw = (name, request, argsz, shown, fill = () => {}) => {
    const bytes = new Uint8Array(128);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, argsz, true);
    fill(view);
    p.ask(name, device, request, bytes, (answer) => hexBytes(answer.subarray(0, shown)));
  };
  for (const argsz of [0, 15, 16, 20, 24, 64]) raw(`GET_INFO argsz ${argsz}`, u.VFIO_DEVICE_GET_INFO, argsz, 24);
  for (let index = 0; index <= 10; index++) {
    for (const argsz of [32, 48])
      raw(`GET_REGION_INFO ${index} argsz ${argsz}`, u.VFIO_DEVICE_GET_REGION_INFO, argsz, 48, (view) =>
        view.setUint32(8, index, true),
      );
  }
  raw('GET_REGION_INFO argsz 31', u.VFIO_DEVICE_GET_REGION_INFO, 31, 32);
  for (let index = 0; index <= 5; index++)
    raw(`GET_IRQ_INFO ${index}`, u.VFIO_DEVICE_GET_IRQ_INFO, 16, 16, (view) => view.setUint32(8, index, true));
  raw('GET_IRQ_INFO argsz 15', u.VFIO_DEVICE_GET_IRQ_INFO, 15, 16);
  for (const [name, request] of [
    ['GET_INFO', u.VFIO_DEVICE_GET_INFO],
    ['GET_REGION_INFO', u.VFIO_DEVICE_GET_REGION_INFO],
    ['GET_IRQ_INFO', u.VFIO_DEVICE_GET_IRQ_INFO],
    ['SET_IRQS', u.VFIO_DEVICE_SET_IRQS],
    ['FEATURE', u.VFIO_DEVICE_FEATURE],
  ]) {
    p.ioctl(`${name} null`, device, request, 0n);
  }
  p.ioctl('a container’s request', device, u.VFIO_SET_IOMMU, 3);
  p.ioctl('unknown request', device, u.VFIO_GET_API_VERSION + 0x60, 0n);
}

export function probeOther(p, device) {
  const feature = (name, flags, size = 8) => p.ioctl(name, device, u.VFIO_DEVICE_FEATURE, withArgsz(size, flags));
  for (const id of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0xbe11]) {
    feature(`FEATURE ${id} PROBE`, id | u.VFIO_DEVICE_FEATURE_PROBE);
    feature(`FEATURE ${id} PROBE GET`, id | u.VFIO_DEVICE_FEATURE_PROBE | u.VFIO_DEVICE_FEATURE_GET);
    feature(`FEATURE ${id} PROBE SET`, id | u.VFIO_DEVICE_FEATURE_PROBE | u.VFIO_DEVICE_FEATURE_SET);
    feature(`FEATURE ${id} GET`, id | u.VFIO_DEVICE_FEATURE_GET);
  }
  feature('FEATURE GET and SET', 3 | u.VFIO_DEVICE_FEATURE_GET | u.VFIO_DEVICE_FEATURE_SET);
  feature('FEATURE unknown flag', 3 | (1 << 20));
  feature('FEATURE without an operation', 3);
  feature('FEATURE argsz 7', 3 | u.VFIO_DEVICE_FEATURE_PROBE, 7);
  p.ioctl('RESET', device, u.VFIO_DEVICE_RESET, 0);
  hotReset(p, device);
  ioEventfd(p, device);
}

function withArgsz(argsz, flags, length = 64) {
  const bytes = new Uint8Array(length);
  new DataView(bytes.buffer).setUint32(0, argsz, true);
  new DataView(bytes.buffer).setUint32(4, flags, true);
  return bytes;
}

function hotReset(p, device) {
  for (const argsz of [11, 12, 32, 128]) {
    const bytes = withArgsz(argsz, 0, 256);
    const result = p.ioctl(
      `GET_PCI_HOT_RESET_INFO argsz ${argsz}`,
      device,
      u.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
      bytes,
    );
    if (result === 0) p.note('hot reset flags', new DataView(bytes.buffer).getUint32(4, true));
  }
  p.ioctl('PCI_HOT_RESET flags', device, u.VFIO_DEVICE_PCI_HOT_RESET, withArgsz(12, 1));
  p.ioctl('PCI_HOT_RESET argsz 11', device, u.VFIO_DEVICE_PCI_HOT_RESET, withArgsz(11, 0));
  p.ioctl('PCI_HOT_RESET without groups', device, u.VFIO_DEVICE_PCI_HOT_RESET, withArgsz(12, 0));
}

function ioEventfd(p, device) {
  const eventfd = p.eventfd();
  const call = (name, { argsz = 32, flags = 4, offset = 0, data = 0, fd = eventfd.fd } = {}) =>
    p.ioctl(
      `IOEVENTFD ${name}`,
      device,
      u.VFIO_DEVICE_IOEVENTFD,
      u.vfio_device_ioeventfd.bytes({ argsz, flags, offset, data, fd }),
    );
  call('4 bytes of BAR 0');
  call('the same again');
  call('other data', { data: 1 });
  call('off again', { fd: -1 });
  call('off twice', { fd: -1 });
  call('off, other data', { fd: -1, data: 1 });
  call('fd -2', { fd: -2 });
  call('no size', { flags: 0 });
  call('two sizes', { flags: 3 });
  call('8 bytes', { flags: 8 });
  call('unknown flag', { flags: 16 });
  call('config space', { offset: 7 * REGION });
  call('BAR 5', { offset: 5 * REGION });
  call('beyond BAR 0', { offset: 0x100_0000 });
  call('argsz 27', { argsz: 27 });
  call('argsz 28', { argsz: 28 });
  call('off the last', { fd: -1 });
  call('bad fd', { fd: 9999 });
  call('the MSI-X table of nvme', { offset: 0x2000 });
  p.kernel.close(eventfd.fd);
}

export function probeRegions(p, device, { bar0, tableOffset = null }) {
  const config = 7 * REGION;
  const command = (value) => p.pwrite(`COMMAND = ${value}`, device, config + 4, [value & 0xff, value >> 8]);
  p.pread('ids', device, config, 4);
  p.pread('COMMAND after open', device, config + 4, 2);
  p.pread('BAR 0, memory off', device, 0, 4);
  p.pwrite('BAR 0 write, memory off', device, 4, [1, 2, 3, 4]);
  command(2);
  p.pread('BAR 0', device, 0, 4);
  p.pread('BAR 0, nothing', device, 0, 0);
  p.pread('BAR 0, last word', device, bar0 - 4, 4);
  p.pread('BAR 0, over the end', device, bar0 - 4, 8, (bytes) => bytes.length);
  p.pread('BAR 0, at the end', device, bar0, 4);
  p.pread('BAR 0, beyond', device, bar0 + 4096, 4);
  p.pread('BAR 1', device, REGION, 4);
  p.pread('BAR 5', device, 5 * REGION, 4);
  p.pread('ROM', device, 6 * REGION, 4);
  p.pwrite('ROM write', device, 6 * REGION, [0, 0, 0, 0]);
  p.pread('VGA', device, 8 * REGION + 0xa0000, 4);
  p.pread('region 9', device, 9 * REGION, 4);
  p.pread('region 200', device, 200 * REGION, 4);
  p.pread('config, byte 255', device, config + 255, 1);
  p.pread('config, over 256', device, config + 254, 4);
  p.pread('config, at 256', device, config + 256, 4);
  p.pread('config, last of 4096', device, config + 4092, 4);
  p.pread('config, over 4096', device, config + 4094, 4);
  p.pread('config, at 4096', device, config + 4096, 4);
  p.pwrite('config write at 4096', device, config + 4096, [0]);
  if (tableOffset !== null) {
    p.pread('MSI-X table', device, tableOffset, 16);
    p.pwrite('MSI-X table write', device, tableOffset, [1, 2, 3, 4]);
    p.pread('into the MSI-X table', device, tableOffset - 4, 8);
  }
  const maps = [
    ['BAR 0', 0, 4096],
    ['BAR 0, second page', 4096, 4096],
    ['BAR 0, beyond', bar0, 4096],
    ['BAR 0, over the end', 0, bar0 + 4096],
    ['BAR 1', REGION, 4096],
    ['ROM', 6 * REGION, 4096],
    ['config', config, 4096],
    ['VGA', 8 * REGION, 4096],
    ['region 9', 9 * REGION, 4096],
    ['BAR 0, half a page', 0, 2048],
    ['BAR 0, read only', 0, 4096, 'r'],
  ];
  for (const [name, offset, length, access = 'rw'] of maps) {
    const mapped = p.kernel.mmap(device, offset, length, access);
    p.note(`mmap ${name}`, typeof mapped === 'number' ? u.errnoName(mapped) : 'mapped');
    if (typeof mapped !== 'number') mapped.unmap();
  }
  command(0);
}
