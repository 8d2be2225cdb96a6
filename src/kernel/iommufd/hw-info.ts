/** What an IOMMU says about itself to user space, and which page tables it can make (the drivers' hw_info and domain_alloc_paging_flags). */
import { PasidBits } from '../../arch/pci/index.ts';
import {
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
  IOMMU_HW_CAP_PCI_PASID_EXEC,
  IOMMU_HW_CAP_PCI_PASID_PRIV,
  IOMMU_HW_INFO_FLAG_INPUT_TYPE,
  IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
  IOMMU_HW_INFO_TYPE_DEFAULT,
  IOMMU_HW_INFO_TYPE_INTEL_VTD,
  IOMMU_HW_INFO_TYPE_NONE,
  IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17,
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  type iommu_hw_info,
  iommu_hw_info_arm_smmuv3,
  iommu_hw_info_vtd,
} from '../../uapi/iommufd.ts';
import type { KernelContext } from '../context.ts';
import { ArmSmmuV3Driver } from '../iommu/arm-smmu-v3/driver.ts';
import { IntelVtdDriver } from '../iommu/intel/driver.ts';
import type { IommuGroup } from '../iommu/iommu-group.ts';
import { pasidStatus } from '../pci/pasid.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { Process } from '../process.ts';
import { copyToUser } from '../user-copy.ts';
import { IommufdDevice } from './device.ts';
import type { Request } from './dispatch.ts';
import type { HwInfo } from './iommu-ops.ts';

/** PCI_EXT_CAP_ID_ATS. */
const ATS = 0x0f;

/** Excess room of the user is zeroed; data_len becomes what the kernel has. */
export function getHwInfo(ucmd: Request<typeof iommu_hw_info>): number {
  const { cmd, ctx, process, refusals } = ucmd;
  if ((cmd.flags & ~IOMMU_HW_INFO_FLAG_INPUT_TYPE) !== 0) {
    return refusals.refuse('EOPNOTSUPP', `flags ${cmd.flags} has unknown bits`, 'flags');
  }
  if (cmd.__reserved.some((byte) => byte !== 0)) {
    return refusals.refuse('EOPNOTSUPP', '__reserved is not 0', '__reserved');
  }
  const wanted = (cmd.flags & IOMMU_HW_INFO_FLAG_INPUT_TYPE) !== 0 ? cmd.in_data_type : IOMMU_HW_INFO_TYPE_DEFAULT;
  const device = ctx.objects.get(cmd.dev_id, IommufdDevice, 'dev_id');
  if (typeof device === 'number') return device;
  const { dev } = device;
  const { ops } = device.igroup.group;
  const info = ops === undefined ? hwInfo(device.igroup.group) : ops.hwInfo(dev, wanted);
  if (typeof info === 'number') return info;
  if (wanted !== IOMMU_HW_INFO_TYPE_DEFAULT && wanted !== info.type) {
    const why = `in_data_type ${wanted}: the IOMMU of ${dev.name} has type ${info.type}`;
    return refusals.refuse('EOPNOTSUPP', why, 'in_data_type');
  }
  if (!writeData(process, cmd.data_uptr, cmd.data_len, info.data)) {
    return refusals.refuse('EFAULT', `${cmd.data_len} bytes at data_uptr are not writable`, 'data_uptr');
  }
  const dirty = isDirtyTracking(device.igroup.group, dev) ? IOMMU_HW_CAP_DIRTY_TRACKING : 0;
  const maxPasids = device.igroup.group.pasids?.maxPasids(dev) ?? 0;
  const noAts = dev.extendedCapability(ATS) === 0 ? IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED : 0;
  return ucmd.respond({
    data_len: info.data.length,
    out_data_type: info.type,
    in_data_type: info.type,
    out_max_pasid_log2: ops?.maxPasidLog2(dev) ?? Math.floor(Math.log2(Math.max(1, maxPasids))),
    out_capabilities: dirty | noAts | (maxPasids > 0 ? pasidCapabilities(dev) : 0),
  });
}

/** What the function's PASID control register turns on beside PASIDs themselves. */
function pasidCapabilities(dev: PciDev): number {
  const status = pasidStatus(dev);
  const execute = (status & PasidBits.EXECUTE) !== 0 ? IOMMU_HW_CAP_PCI_PASID_EXEC : 0;
  return execute | ((status & PasidBits.PRIVILEGED) !== 0 ? IOMMU_HW_CAP_PCI_PASID_PRIV : 0);
}

const ZEROES = new Uint8Array(4096);

/** As much as there is room for, then zeroes (clear_user); a piece at a time, for data_len may say 4 GiB. */
function writeData(process: Process, address: bigint, room: number, data: Uint8Array): boolean {
  const copied = Math.min(room, data.length);
  if (copied > 0 && !copyToUser(process, address, data.subarray(0, copied))) return false;
  for (let at = copied; at < room; at += ZEROES.length) {
    if (!copyToUser(process, address, ZEROES.subarray(0, room - at), at)) return false;
  }
  return true;
}

/**
 * The stage that a paging HWPT with these flags has, 0 where the driver may choose, or -EOPNOTSUPP. A nest parent is a stage 2 under a stage 1;
 * PASIDs and dirty tracking take a stage 1 of the SMMU. Whether an IOMMU tracks dirty pages has been asked before.
 */
export function pagingStage(context: KernelContext, dev: PciDev, group: IommuGroup, flags: number): number {
  if (flags === 0) return 0;
  const { driver } = group;
  const smmu = driver instanceof ArmSmmuV3Driver ? driver.probe : null;
  const refuse = (what: string): number =>
    context.refusals.refuse('EOPNOTSUPP', `the IOMMU of ${dev.name} ${what}`, 'flags');
  if (flags === IOMMU_HWPT_ALLOC_NEST_PARENT) return smmu?.stage1 && smmu.stage2 ? 2 : refuse('cannot nest');
  const tracked = flags & ~IOMMU_HWPT_ALLOC_PASID;
  if (tracked !== 0 && tracked !== IOMMU_HWPT_ALLOC_DIRTY_TRACKING)
    return refuse('has no page table with these flags together');
  if (smmu !== null) return smmu.stage1 ? 1 : refuse('has no stage 1, which PASIDs and dirty tracking take');
  return driver instanceof IntelVtdDriver ? 0 : refuse('has no page tables for PASIDs');
}

/**
 * Can the IOMMU's tables say which pages devices have written (IOMMU_CAP_DIRTY_TRACKING)? An SMMU with HTTU can; VT-d takes SSADS of scalable mode, which
 * the one here, in legacy mode, has not.
 */
export const isDirtyTracking = ({ ops, driver }: IommuGroup, dev: PciDev): boolean =>
  ops?.dirtyTracking(dev) ?? driver?.dirtyTracking ?? false;

/** Does DMA see what CPUs have in their caches (IOMMU_CAP_CACHE_COHERENCY)? */
export const isCoherent = (group: IommuGroup): boolean => group.driver?.coherent ?? true;

function hwInfo({ driver }: IommuGroup): HwInfo {
  if (driver instanceof ArmSmmuV3Driver) {
    const { idr, iidr, aidr } = driver.probe;
    return { type: IOMMU_HW_INFO_TYPE_ARM_SMMUV3, data: iommu_hw_info_arm_smmuv3.bytes({ idr, iidr, aidr }) };
  }
  if (driver instanceof IntelVtdDriver) {
    const { cap, ecap } = driver;
    // Linux sets this flag for every VT-d unit: user space has to map read-only memory around the erratum.
    const flags = IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17;
    return {
      type: IOMMU_HW_INFO_TYPE_INTEL_VTD,
      data: iommu_hw_info_vtd.bytes({ flags, cap_reg: cap, ecap_reg: ecap }),
    };
  }
  return { type: IOMMU_HW_INFO_TYPE_NONE, data: new Uint8Array(0) };
}
