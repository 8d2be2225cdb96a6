/**
 * IOMMU_OPTION_SW_MSI_START and _SIZE, as posted for Linux in October 2025 and not merged (iommufd_option_sw_msi): a device's window for
 * doorbells moves before the device is attached. docs/doorbell.md says what was chosen where the posts are unclear.
 */
import { hex } from '../../ports/address.ts';
import { IOMMU_OPTION_SW_MSI_START } from '../../uapi/belfry.ts';
import { IOMMU_OPTION_OP_GET, IOMMU_OPTION_OP_SET, type iommu_option } from '../../uapi/iommufd.ts';
import { IommufdDevice } from './device.ts';
import type { Request } from './dispatch.ts';
import { deviceRegions } from './reserved.ts';
import { overlaps, showSpan, U64_MAX } from './span.ts';

type OptionRequest = Request<typeof iommu_option>;

const MIB = 2n ** 20n;
/** SIZE_MAX in MiB. */
const MOST_MIB = U64_MAX / MIB;

/** val64 as it is now, or -errno: ENOENT, EBUSY, EOPNOTSUPP, EINVAL, EOVERFLOW, EADDRINUSE in this order, with nothing changed. */
export function swMsiOption({ cmd, ctx, refusals }: OptionRequest): bigint | number {
  const device = ctx.objects.get(cmd.object_id, IommufdDevice, 'object_id');
  if (typeof device === 'number') return device;
  if (device.igroup.attached.includes(device)) {
    const why = `${device.dev.name} is attached, and its window stands in IOAS ${device.igroup.hwpt?.paging.ioas.id}`;
    return refusals.refuse('EBUSY', why, 'object_id', 'detach it first');
  }
  const { windowOption: window } = device;
  const isStart = cmd.option_id === IOMMU_OPTION_SW_MSI_START;
  if (cmd.op === IOMMU_OPTION_OP_GET) return isStart ? window.start : window.size / MIB;
  if (cmd.op !== IOMMU_OPTION_OP_SET) return refusals.refuse('EOPNOTSUPP', `op ${cmd.op}`, 'op');
  const error = isStart ? setStart(device, cmd.val64) : setSize(device, cmd.val64);
  return error < 0 ? error : cmd.val64;
}

function setStart(device: IommufdDevice, start: bigint): number {
  const { windowOption: window } = device;
  const error = checkWindow(device, start, window.size);
  if (error === 0) window.start = start;
  return error;
}

function setSize(device: IommufdDevice, mib: bigint): number {
  const { windowOption: window } = device;
  if (mib > MOST_MIB) {
    const why = `${mib} MiB are more than ${MOST_MIB}`;
    return device.ctx.context.refusals.refuse('EINVAL', why, 'val64');
  }
  const error = mib === 0n ? 0 : checkWindow(device, window.start, mib * MIB);
  if (error === 0) window.size = mib * MIB;
  return error;
}

/** iommufd_option_sw_msi_test: 0 or -errno. A start without a size is looked at as 1 MiB. */
function checkWindow(device: IommufdDevice, start: bigint, size: bigint): number {
  const { refusals } = device.ctx.context;
  if (start % MIB !== 0n) {
    const why = `the window's start ${hex(start)} is no multiple of 1 MiB`;
    return refusals.refuse('EINVAL', why, 'val64', 'set SW_MSI_START first, to a multiple of 0x100000');
  }
  const last = start + (size > MIB ? size : MIB) - 1n;
  if (last > U64_MAX) return refusals.refuse('EOVERFLOW', `a window from ${hex(start)} of ${hex(size)} wraps`, 'val64');
  const obstacle = deviceRegions(device).find(
    (region) =>
      region.type !== 'sw-msi' &&
      region.type !== 'direct-relaxable' &&
      overlaps({ start: BigInt(region.start), last: BigInt(region.end) }, { start, last }),
  );
  if (obstacle === undefined) return 0;
  const taken = showSpan({ start: BigInt(obstacle.start), last: BigInt(obstacle.end) });
  const why = `the window ${showSpan({ start, last })} overlaps the reserved region ${obstacle.type} ${taken} of ${device.dev.name}`;
  return refusals.refuse('EADDRINUSE', why, 'val64');
}
