/** What sysfs says of a PCI device: its group, and its own VFIO file. */
import type { Kernel } from '../ports/kernel.ts';
import { VfioError } from './error.ts';

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

/** `/dev/vfio/devices/vfio0`, or null: the device is not bound to vfio-pci, or the kernel has no such files (Linux before 6.6). */
export function cdevOf(kernel: Kernel, name: string): string | null {
  const [file] = kernel.list(`/sys/bus/pci/devices/${name}/vfio-dev`) ?? [];
  return file === undefined ? null : `/dev/vfio/devices/${file}`;
}
