/** /sys/kernel/iommu_groups (drivers/iommu/iommu.c). */
import type { IommuGroup } from '../iommu/iommu-group.ts';
import type { Process } from '../process.ts';
import type { RefusalLog } from '../refusal.ts';
import { control, type DirectoryNode, directory, link } from './node.ts';
import { linkToDevice } from './paths.ts';

/** What `type` shows for the default domain, and what may be written to it. */
const TYPES = {
  dma: 'DMA',
  identity: 'identity',
  blocked: 'blocked',
  unmanaged: 'unmanaged',
  nested: 'unknown',
} as const;
const WRITABLE: ReadonlySet<string> = new Set(['identity', 'DMA', 'DMA-FQ', 'auto']);

export function iommuGroupsDirectory(groups: () => readonly IommuGroup[], refusals: RefusalLog): DirectoryNode {
  return directory(() => new Map(groups().map((group) => [String(group.id), groupDirectory(group, refusals)])));
}

function groupDirectory(group: IommuGroup, refusals: RefusalLog): DirectoryNode {
  const devices = directory(() => new Map(group.devices.map((dev) => [dev.name, link(linkToDevice(4, dev))])));
  const type = control(
    () => TYPES[group.defaultDomain.type],
    (process, text) => setType(group, refusals, process, text),
  );
  return directory(() => ({
    devices,
    reserved_regions: { kind: 'file', mode: 0o444, read: () => reservedRegions(group) },
    type,
  }));
}

/** iommu_group_show_resv_regions: start, inclusive end, type; SW_MSI shows as msi. */
function reservedRegions(group: IommuGroup): string {
  const number = (value: number): string => `0x${value.toString(16).padStart(16, '0')}`;
  return group
    .reservedRegions()
    .map(({ start, end, type }) => `${number(start)} ${number(end)} ${type === 'sw-msi' ? 'msi' : type}\n`)
    .join('');
}

/** iommu_group_store_type. */
function setType(group: IommuGroup, refusals: RefusalLog, process: Process, text: string): number {
  const { capabilities } = process.credentials;
  if (!capabilities.has('CAP_SYS_ADMIN') || !capabilities.has('CAP_SYS_RAWIO')) {
    return refusals.refuse('EACCES', 'changing the default domain takes CAP_SYS_ADMIN and CAP_SYS_RAWIO');
  }
  const wanted = text.trim();
  if (!WRITABLE.has(wanted))
    return refusals.refuse('EINVAL', `${JSON.stringify(wanted)} is none of ${[...WRITABLE].join(', ')}`);
  if (group.dmaOwner !== null || group.devices.some((dev) => dev.driver !== null)) {
    return refusals.refuse(
      'EPERM',
      `group ${group.id} is owned, or one of its devices has a driver`,
      undefined,
      'unbind its devices first',
    );
  }
  if (wanted === 'DMA-FQ' || group.changeDefault === undefined) {
    return refusals.refuse('EOPNOTSUPP', `this kernel has no ${wanted} for group ${group.id}: it invalidates at once`);
  }
  return group.changeDefault(wanted === 'identity' ? 'identity' : 'dma');
}
