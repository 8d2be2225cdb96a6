/** linux/vfio.h: the numbers that all of VFIO shares, and what a container (`/dev/vfio/vfio`) answers before it has an IOMMU. */
import { u16, u32 } from './field.ts';
import { _IO } from './ioctl.ts';
import { struct } from './struct.ts';

export const VFIO_API_VERSION = 0;

/** `;` */
export const VFIO_TYPE = 0x3b;
export const VFIO_BASE = 100;

/** One link of a capability chain behind an info struct; `next` counts from the start of the info struct, 0 is the last. */
export const vfio_info_cap_header = struct('vfio_info_cap_header', {
  id: u16,
  version: u16,
  next: u32,
});

/** Extensions: ids of IOMMU drivers (SET_IOMMU) and of abilities (CHECK_EXTENSION). */
export const VFIO_TYPE1_IOMMU = 1;
export const VFIO_SPAPR_TCE_IOMMU = 2;
export const VFIO_TYPE1v2_IOMMU = 3;
export const VFIO_DMA_CC_IOMMU = 4;
export const VFIO_EEH = 5;
export const __VFIO_RESERVED_TYPE1_NESTING_IOMMU = 6;
export const VFIO_SPAPR_TCE_v2_IOMMU = 7;
export const VFIO_NOIOMMU_IOMMU = 8;
export const VFIO_UNMAP_ALL = 9;
export const VFIO_UPDATE_VADDR = 10;

export const VFIO_GET_API_VERSION = _IO(VFIO_TYPE, VFIO_BASE + 0);
/** By value: the extension's id. */
export const VFIO_CHECK_EXTENSION = _IO(VFIO_TYPE, VFIO_BASE + 1);
/** By value: the extension's id. */
export const VFIO_SET_IOMMU = _IO(VFIO_TYPE, VFIO_BASE + 2);
