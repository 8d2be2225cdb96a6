/**
 * Which header each table mirrors: what `scripts/uapi-facts.mjs` asks the C compiler, and what `uapi.test.ts` compares.
 */
import * as dmaBuf from './dma-buf.ts';
import { ERRNO } from './errno.ts';
import * as fcntl from './fcntl.ts';
import * as ioctl from './ioctl.ts';
import * as iommufd from './iommufd.ts';
import * as kvm from './kvm.ts';
import * as kvmArm64 from './kvm-arm64.ts';
import * as memfd from './memfd.ts';
import * as vfio from './vfio.ts';

export interface Table {
  /** As a C program includes it. */
  readonly header: string;
  /** Whose `asm/` headers it is compiled against. */
  readonly architecture: 'x86_64' | 'aarch64';
  /** Structs, numbers, and functions (which have no facts). */
  readonly exports: Readonly<Record<string, unknown>>;
  /** True where the table has all of the header, but for what {@link LEFT_OUT} names. */
  readonly whole: boolean;
}

export const TABLES: readonly Table[] = [
  { header: 'linux/vfio.h', architecture: 'x86_64', exports: vfio, whole: true },
  { header: 'linux/iommufd.h', architecture: 'x86_64', exports: iommufd, whole: true },
  { header: 'linux/kvm.h', architecture: 'x86_64', exports: kvm, whole: false },
  { header: 'asm/kvm.h', architecture: 'aarch64', exports: kvmArm64, whole: false },
  { header: 'linux/dma-buf.h', architecture: 'x86_64', exports: dmaBuf, whole: false },
  { header: 'linux/memfd.h', architecture: 'x86_64', exports: memfd, whole: false },
  { header: 'linux/fcntl.h', architecture: 'x86_64', exports: fcntl, whole: false },
  { header: 'linux/ioctl.h', architecture: 'x86_64', exports: ioctl, whole: false },
  { header: 'linux/errno.h', architecture: 'x86_64', exports: ERRNO, whole: false },
];

/** Numbers and structs of this room that no header of Linux 7.2 has. */
export const NOT_IN_LINUX: ReadonlySet<string> = new Set([
  'VFIO_DEVICE_FEATURE_BELFRY_DOORBELL',
  'vfio_device_feature_belfry_doorbell',
  'VFIO_DEVICE_FEATURE_BELFRY_DOORBELL_ACTIVE',
  'VFIO_DEVICE_FEATURE_BELFRY_DOORBELL_BYPASS',
  'VFIO_IRQ_SET_DATA_MSI_IOVA',
  'VFIO_IRQ_SET_ACTION_PREPARE',
  'IOMMU_OPTION_SW_MSI_START',
  'IOMMU_OPTION_SW_MSI_SIZE',
  // In the kernel's own linux/errno.h, which user space does not get.
  'ENOTSUPP',
]);

/** What the whole headers have and this room leaves out: other buses, other architectures, graphics, the old migration. */
export const LEFT_OUT: readonly RegExp[] = [
  /^(VFIO|vfio)_(iommu_)?(IOMMU_)?(SPAPR|spapr)_/,
  /^(VFIO_EEH|vfio_eeh)_/,
  /^VFIO_(CCW|AP)_|^VFIO_REGION_SUBTYPE_CCW_/,
  /^VFIO_DEVICE_INFO_CAP_ZPCI_/,
  /^VFIO_DEVICE_API_\w+_STRING$/,
  /NVLINK2|nvlink2/,
  /GFX|gfx/,
  /^VFIO_REGION_SUBTYPE_MIGRATION_DEPRECATED$|^vfio_device_migration_info$|^VFIO_DEVICE_STATE_(V1_\w+|MASK)$/,
];
