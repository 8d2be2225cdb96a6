/** /sys as VFIO programs and lspci read it, live from what the kernel holds. */
import type { IommuGroup } from '../iommu/iommu-group.ts';
import type { SimKernel } from '../kernel.ts';
import type { DriverCore } from '../pci-drivers.ts';
import type { Vfio } from '../vfio/vfio-main.ts';
import { iommuGroupsDirectory } from './iommu-groups.ts';
import { modulesDirectory } from './modules.ts';
import { type DirectoryNode, directory, link } from './node.ts';
import { devicePath, linkToDevice } from './paths.ts';
import { devicesDirectory, pciBusDirectory } from './pci-bus.ts';

export interface SysfsSources {
  readonly core: DriverCore;
  readonly vfio: Vfio;
  readonly cpus: number;
  groups(): readonly IommuGroup[];
  /** The IOMMU's name, as `dmar0` or `smmu3.0x0000000009050000`; null: the machine has none. */
  readonly iommu?: string | null;
}

/** Mounts /sys/devices, /sys/bus/pci, /sys/kernel/iommu_groups, /sys/class/iommu, /sys/class/vfio-dev and /sys/module. */
export function mountSysfs(kernel: SimKernel, { core, vfio, cpus, groups, iommu = null }: SysfsSources): void {
  const { refusals, modules } = kernel.context;
  const pci = { core, refusals, cpus, vfioDevice: (dev: Parameters<Vfio['deviceOf']>[0]) => vfio.deviceOf(dev) };
  kernel.mount('/sys/devices', devicesDirectory(pci));
  kernel.mount('/sys/bus/pci', pciBusDirectory(pci));
  kernel.mount('/sys/kernel/iommu_groups', iommuGroupsDirectory(groups, refusals));
  kernel.mount('/sys/module', modulesDirectory(modules, refusals));
  kernel.mount('/sys/class/iommu', iommuClass(iommu, core));
  kernel.mount(
    '/sys/class/vfio-dev',
    directory(
      () =>
        new Map(
          vfio.devices.map((device) => {
            const path = devicePath(device.dev).join('/');
            return [`vfio${device.index}`, link(`../../devices/${path}/vfio-dev/vfio${device.index}`)];
          }),
        ),
    ),
  );
}

/** drivers/iommu/iommu-sysfs.c: an IOMMU with links to the devices behind it. Programs take the IOMMU to be on when there is one. */
function iommuClass(name: string | null, core: DriverCore): DirectoryNode {
  const devices = directory(
    () =>
      new Map(
        core.devices.filter((dev) => dev.iommuGroup !== null).map((dev) => [dev.name, link(linkToDevice(4, dev))]),
      ),
  );
  return directory(() => (name === null ? {} : { [name]: directory(() => ({ devices })) }));
}
