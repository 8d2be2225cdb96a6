/** The directory of a PCI device (drivers/pci/pci-sysfs.c), and what the driver core and VFIO add to it. */
import type { PciDev, PciResource } from '../pci/pci-dev.ts';
import type { DriverCore } from '../pci-drivers.ts';
import type { RefusalLog } from '../refusal.ts';
import type { VfioDevice } from '../vfio/device.ts';
import { attribute, control, type DirectoryNode, directory, link, type TreeNode } from './node.ts';
import { devicePath } from './paths.ts';

export interface PciDirectoryContext {
  readonly core: DriverCore;
  readonly refusals: RefusalLog;
  readonly cpus: number;
  vfioDevice(dev: PciDev): VfioDevice | null;
}

/** Major number of /dev/vfio/devices: the highest of the dynamic range. */
const VFIO_MAJOR = 511;
const SUBSYSTEM_VENDOR = 0x2c;
const REVISION = 0x08;

const hex = (value: number, digits: number): string => `0x${(value >>> 0).toString(16).padStart(digits, '0')}`;
const upper = (value: number, digits: number): string => (value >>> 0).toString(16).toUpperCase().padStart(digits, '0');

/** `below` are the devices behind a bridge, which are its subdirectories. */
export function pciDirectory(
  dev: PciDev,
  context: PciDirectoryContext,
  below: () => ReadonlyMap<string, TreeNode>,
): DirectoryNode {
  const subsystem = (offset: number): number => (dev.isBridge ? 0 : dev.configRead(SUBSYSTEM_VENDOR + offset, 2));
  const depth = devicePath(dev).length + 1;
  const up = '../'.repeat(depth);
  const fixed: Record<string, TreeNode> = {
    vendor: attribute(() => hex(dev.vendorId, 4)),
    device: attribute(() => hex(dev.deviceId, 4)),
    subsystem_vendor: attribute(() => hex(subsystem(0), 4)),
    subsystem_device: attribute(() => hex(subsystem(2), 4)),
    class: attribute(() => hex(dev.classCode, 6)),
    revision: attribute(() => hex(dev.configRead(REVISION, 1), 2)),
    irq: attribute(() => String(dev.irq)),
    modalias: attribute(() => modalias(dev, subsystem)),
    uevent: attribute(() => uevent(dev, subsystem)),
    resource: { kind: 'file', mode: 0o444, read: () => resources(dev) },
    config: {
      kind: 'file',
      mode: 0o644,
      read: () => configBytes(dev),
      writeAt: (bytes, offset) => writeConfig(dev, bytes, offset),
    },
    numa_node: attribute(() => '-1'),
    local_cpus: attribute(() => ((1n << BigInt(context.cpus)) - 1n).toString(16)),
    local_cpulist: attribute(() => (context.cpus === 1 ? '0' : `0-${context.cpus - 1}`)),
    driver_override: control(
      () => dev.driverOverride ?? '(null)',
      (_process, text) => {
        const name = text.split('\n')[0];
        context.core.setOverride(dev, name === '' ? null : name);
        return 0;
      },
    ),
    subsystem: link(`${up}bus/pci`),
  };
  return directory(() => {
    const entries = new Map(Object.entries(fixed));
    for (const [name, node] of below()) entries.set(name, node);
    if (dev.canReset)
      entries.set(
        'reset',
        control(null, (_process, text) => reset(dev, context.refusals, text)),
      );
    for (const [name, node] of sriovEntries(dev, context)) entries.set(name, node);
    if (dev.driver !== null) entries.set('driver', link(`${up}bus/pci/drivers/${dev.driver}`));
    if (dev.iommuGroup !== null) entries.set('iommu_group', link(`${up}kernel/iommu_groups/${dev.iommuGroup.id}`));
    const vfio = context.vfioDevice(dev);
    if (vfio !== null)
      entries.set(
        'vfio-dev',
        directory(() => ({ [`vfio${vfio.index}`]: vfioDirectory(vfio) })),
      );
    return entries;
  });
}

/** What iov.c shows of a physical function, and the links between it and its virtual ones. They are all children of one bridge. */
function sriovEntries(dev: PciDev, context: PciDirectoryContext): [string, TreeNode][] {
  const { physfn = null, sriov = null } = dev;
  if (physfn !== null) return [['physfn', link(`../${physfn.name}`)]];
  if (sriov === null) return [];
  const autoprobe = control(
    () => (sriov.driversAutoprobe ? '1' : '0'),
    (_process, text) => {
      if (!/^[01yntf]/i.test(text)) return context.refusals.refuse('EINVAL', `${JSON.stringify(text)} is no boolean`);
      sriov.driversAutoprobe = /^[1yt]/i.test(text);
      return 0;
    },
  );
  return [
    ['sriov_totalvfs', attribute(() => String(sriov.totalVfs))],
    ['sriov_offset', attribute(() => String(sriov.offset))],
    ['sriov_stride', attribute(() => String(sriov.stride))],
    ['sriov_vf_device', attribute(() => sriov.vfDeviceId.toString(16))],
    ['sriov_drivers_autoprobe', autoprobe],
    [
      'sriov_numvfs',
      control(
        () => String(sriov.numVfs),
        (_process, text) => numVfs(dev, context, text),
      ),
    ],
    ...sriov.virtfns.map((virtfn, i): [string, TreeNode] => [`virtfn${i}`, link(`../${virtfn.name}`)]),
  ];
}

function numVfs(dev: PciDev, context: PciDirectoryContext, text: string): number {
  const count = /^(0x[0-9a-f]+|[0-9]+)\n?$/i.test(text) ? Number(text) : Number.NaN;
  if (!(count <= 0xffff)) return context.refusals.refuse('EINVAL', `${JSON.stringify(text)} is no number up to 65535`);
  return (
    context.core.sriovNumVfs?.(dev, count) ?? context.refusals.refuse('ENOENT', 'this kernel has no drivers for SR-IOV')
  );
}

/** `dev` stands there only where /dev/vfio/devices does. */
function vfioDirectory(vfio: VfioDevice): DirectoryNode {
  return directory((): Record<string, TreeNode> => {
    return vfio.cdev === null ? {} : { dev: attribute(() => `${VFIO_MAJOR}:${vfio.index}`) };
  });
}

function modalias(dev: PciDev, subsystem: (offset: number) => number): string {
  const ids = `v${upper(dev.vendorId, 8)}d${upper(dev.deviceId, 8)}sv${upper(subsystem(0), 8)}sd${upper(subsystem(2), 8)}`;
  const [base, sub, programming] = [dev.classCode >>> 16, (dev.classCode >>> 8) & 0xff, dev.classCode & 0xff];
  return `pci:${ids}bc${upper(base, 2)}sc${upper(sub, 2)}i${upper(programming, 2)}`;
}

function uevent(dev: PciDev, subsystem: (offset: number) => number): string {
  return [
    ...(dev.driver === null ? [] : [`DRIVER=${dev.driver}`]),
    `PCI_CLASS=${dev.classCode.toString(16).toUpperCase()}`,
    `PCI_ID=${upper(dev.vendorId, 4)}:${upper(dev.deviceId, 4)}`,
    `PCI_SUBSYS_ID=${upper(subsystem(0), 4)}:${upper(subsystem(2), 4)}`,
    `PCI_SLOT_NAME=${dev.name}`,
    `MODALIAS=${modalias(dev, subsystem)}`,
  ].join('\n');
}

/** Seven lines: start, end, flags; zeroes for what is not there. */
function resources(dev: PciDev): string {
  const line = (a: number, b: number, c: number): string =>
    [a, b, c].map((n) => `0x${n.toString(16).padStart(16, '0')}`).join(' ');
  const lines = Array.from({ length: 7 }, (_, index) => {
    const resource = dev.resources.find((candidate) => candidate.index === index);
    if (resource === undefined || resource.size === 0) return line(0, 0, 0);
    return line(resource.base, resource.base + resource.size - 1, resourceFlags(resource));
  });
  return `${lines.join('\n')}\n`;
}

/** IORESOURCE_* with the low bits that the BAR itself has (include/linux/ioport.h). */
function resourceFlags(resource: PciResource): number {
  if (resource.kind === 'io') return 0x4_0101;
  if (resource.kind === 'rom') return 0x4_6200;
  return 0x4_0200 | (resource.is64 ? 0x10_0004 : 0) | (resource.prefetchable ? 0x2008 : 0);
}

/**
 * pci_write_config: it goes to the hardware, past vfio-pci's own view, in naturally aligned pieces of one, two and four bytes; what lies behind the
 * end is left out.
 */
function writeConfig(dev: PciDev, bytes: Uint8Array, offset: number): number {
  const count = Math.max(0, Math.min(bytes.length, dev.configSize - offset));
  for (let done = 0; done < count; ) {
    const at = offset + done;
    const left = count - done;
    const size = at % 4 === 0 && left >= 4 ? 4 : at % 2 === 0 && left >= 2 ? 2 : 1;
    let value = 0;
    for (let i = size - 1; i >= 0; i -= 1) value = (value << 8) | bytes[done + i]!;
    dev.configWrite(at, size, value);
    done += size;
  }
  return count;
}

function configBytes(dev: PciDev): Uint8Array {
  const bytes = new Uint8Array(dev.configSize);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < bytes.length; at += 4) view.setUint32(at, dev.configRead(at, 4) >>> 0, true);
  return bytes;
}

function reset(dev: PciDev, refusals: RefusalLog, text: string): number {
  if (text.trim() !== '1') return refusals.refuse('EINVAL', `${JSON.stringify(text)} is not 1`);
  const error = dev.tryReset();
  return error < 0 ? refusals.passOn(error, `${dev.name} could not be reset`) : 0;
}
