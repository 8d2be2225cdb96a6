/**
 * What Linux 7.2 does not have: belfry's own request (docs/doorbell.md), and constants that were posted
 * for Linux and not merged. They exist only where a host's `abi` is `belfry`; elsewhere ENOTTY, EINVAL or EOPNOTSUPP answers.
 */
import { u32, u64 } from './field.ts';
import { struct } from './struct.ts';

/** Feature id of VFIO_DEVICE_FEATURE; PROBE, GET and SET. Far from Linux's own ids, which count up from 0. */
export const VFIO_DEVICE_FEATURE_BELFRY_DOORBELL = 0xbe11;

/**
 * SET gives vectors [start, start + count) of `index` the IOVA range [iova, iova + size); count 0 is the default of the
 * index, size 0 clears. GET(start) answers the message address, size G, and the flags.
 */
export const vfio_device_feature_belfry_doorbell = struct('vfio_device_feature_belfry_doorbell', {
  flags: u32,
  index: u32,
  start: u32,
  count: u32,
  iova: u64,
  size: u64,
});
/** Out: the vector is allocated and its doorbell is mapped. */
export const VFIO_DEVICE_FEATURE_BELFRY_DOORBELL_ACTIVE = 1 << 0;
/** Out: the platform does not translate the doorbell (x86, identity). */
export const VFIO_DEVICE_FEATURE_BELFRY_DOORBELL_BYPASS = 1 << 1;

/** Posted, not merged: the data of a PREPARE is a u64 IOVA for each vector. */
export const VFIO_IRQ_SET_DATA_MSI_IOVA = 1 << 6;
/** Posted, not merged: it names a vector's message address, a stage-1 IOVA, before it is enabled. */
export const VFIO_IRQ_SET_ACTION_PREPARE = 1 << 7;
/** Posted in 2025, not merged: where iommufd's software MSI window starts, and how long it is (in MiB). */
export const IOMMU_OPTION_SW_MSI_START = 2;
export const IOMMU_OPTION_SW_MSI_SIZE = 3;
