/** The reserved regions of a device leave the IOAS that it is attached to (iopt_table_enforce_dev_resv_regions). */
import type { ReservedRegion } from '../../ports/iommu.ts';
import { doorbellRanges } from '../vfio/doorbell-ranges.ts';
import type { IommufdDevice } from './device.ts';
import type { Ioas } from './ioas.ts';
import { lower, showSpan, U64_MAX } from './span.ts';

/**
 * 0, or with nothing reserved -EADDRINUSE (something is mapped or promised there, or a user-given doorbell stands there) or -EINVAL (a window for
 * software MSIs and a hardware one). The device learns where its window begins.
 */
export function enforceReserved(device: IommufdDevice, ioas: Ioas): number {
  const { ctx } = device;
  const regions = deviceRegions(device)
    .filter((region) => region.type !== 'direct-relaxable')
    .map((region) => (region.type === 'sw-msi' ? device.windowOption.instead(region) : region));
  const error = doorbellConflict(device, ioas, regions) || reserveEach(device, ioas, regions);
  if (error < 0) {
    ioas.iopt.unreserve(device);
    return error;
  }
  const software = regions.filter((region) => region.type === 'sw-msi');
  const hardware = regions.filter((region) => region.type === 'msi');
  if (software.length > 1 || (software.length > 0 && hardware.length > 0)) {
    ioas.iopt.unreserve(device);
    const why = `${device.dev.name} has ${software.length} software and ${hardware.length} hardware MSI regions`;
    return ctx.context.refusals.refuse('EINVAL', why, 'pt_id');
  }
  if (software.length > 0) device.swMsiStart = BigInt(software[0].start);
  return 0;
}

/** iommu_get_resv_regions of the device. */
export function deviceRegions({ dev, igroup }: IommufdDevice): readonly ReservedRegion[] {
  return igroup.group.driver?.reservedRegions(dev.requester) ?? igroup.group.reservedRegions();
}

function reserveEach(device: IommufdDevice, ioas: Ioas, regions: readonly ReservedRegion[]): number {
  for (const region of regions) {
    const span = { start: BigInt(region.start), last: lower(BigInt(region.end), U64_MAX) };
    const error = ioas.iopt.reserve(span, device, region);
    if (error < 0) return error;
  }
  return 0;
}

function doorbellConflict({ ctx, dev }: IommufdDevice, ioas: Ioas, regions: readonly ReservedRegion[]): number {
  const taken = doorbellRanges(ctx.context, ioas).conflict(regions);
  if (taken === null) return 0;
  const span = showSpan({ start: BigInt(taken.start), last: BigInt(taken.end) });
  const why = `a reserved region of ${dev.name} overlaps the doorbell that is reserved at ${span}`;
  return ctx.context.refusals.refuse('EADDRINUSE', why, 'pt_id');
}
