/** From a device's name to the device, with all that belongs to it. */
import type { Kernel } from '../ports/kernel.ts';
import { Container } from './container.ts';
import type { Device } from './device.ts';
import { VfioError } from './error.ts';
import { Group } from './group.ts';

/** The number of the IOMMU group of a PCI device. @throws VfioError ENODEV: no such device, or none of an IOMMU */
export function groupOf(kernel: Kernel, name: string): number {
  const link = kernel.readLink(`/sys/bus/pci/devices/${name}/iommu_group`);
  const number = Number.parseInt(link?.split('/').at(-1) ?? '', 10);
  if (Number.isInteger(number)) return number;
  const present = kernel.list('/sys/bus/pci/devices')?.includes(name) === true;
  throw new VfioError({
    code: 'ENODEV',
    request: `readlink(/sys/bus/pci/devices/${name}/iommu_group)`,
    why: present ? `no IOMMU translates for ${name}` : `there is no PCI device ${name}`,
    hint: present ? 'enable the IOMMU in firmware and kernel' : undefined,
  });
}

/**
 * Finds the device's group, puts it into a new container, sets the IOMMU, and opens the device. Closing the device closes all
 * of it: device, then mappings (the newest first), group, container. With `into` the container is the caller's, and stays.
 *
 * @param name `0000:01:00.0`
 * @throws VfioError, with everything closed again that was opened here
 * @example
 * using device = openDevice(kernel, '0000:01:00.0');
 * const buffer = device.container.mapDma({ length: 4096 });
 * device.config.busMaster = true;
 */
export function openDevice(kernel: Kernel, name: string, into?: Container): Device {
  const number = groupOf(kernel, name.split(' ')[0]!);
  const container = into ?? Container.open(kernel);
  const known = container.groups.find((candidate) => candidate.number === number);
  let group: Group | null = null;
  try {
    group = known ?? Group.open(kernel, number);
    if (group.container === null) group.setContainer(container);
    if (container.iommu === null) container.setIommu();
    const device = group.openDevice(name);
    if (into === undefined) device.thenClose(container);
    return device;
  } catch (error) {
    if (known === undefined) group?.close();
    if (into === undefined) container.close();
    throw error;
  }
}
