/** VFIO_DEVICE_FEATURE: the checks that all features share (vfio_main.c vfio_ioctl_device_feature, vfio_check_feature). */
import { hex } from '../../ports/address.ts';
import * as uapi from '../../uapi/vfio.ts';
import type { Process } from '../process.ts';
import type { RefusalLog } from '../refusal.ts';
import { copyFromUser, userPointer } from '../user-copy.ts';
import type { VfioDevice } from './device.ts';

const MASK = uapi.VFIO_DEVICE_FEATURE_MASK;
const GET = uapi.VFIO_DEVICE_FEATURE_GET;
const SET = uapi.VFIO_DEVICE_FEATURE_SET;
const PROBE = uapi.VFIO_DEVICE_FEATURE_PROBE;

/** Features of migration and of DMA logging, which the core answers for drivers that have them; vfio-pci has none. */
const OF_MIGRATION: ReadonlySet<number> = new Set([1, 2, 6, 7, 8, 9]);

export function deviceFeature(device: VfioDevice, process: Process, argument: bigint): number {
  const { refusals } = device.group.context;
  const layout = uapi.vfio_device_feature;
  const bytes = copyFromUser(process, argument, layout.size);
  if (bytes === null)
    return refusals.refuse('EFAULT', `the first ${layout.size} bytes of the argument are not readable`, 'argument');
  const { argsz, flags } = layout.read(bytes);
  if (argsz < layout.size) return refusals.refuse('EINVAL', `argsz ${argsz} is less than ${layout.size}`, 'argsz');
  if ((flags & ~(MASK | GET | SET | PROBE)) !== 0)
    return refusals.refuse('EINVAL', `flags ${hex(flags)} has unknown bits`, 'flags');
  if ((flags & (GET | SET | PROBE)) === (GET | SET)) {
    return refusals.refuse('EINVAL', 'GET and SET exclude each other, except with PROBE', 'flags');
  }
  if (OF_MIGRATION.has(flags & MASK)) {
    return refusals.refuse('ENOTTY', `${device.ops.name} cannot migrate: feature ${flags & MASK} is absent`, 'flags');
  }
  // The one feature of migration that Linux denies otherwise: it asks for pre-copy, before it looks at the operation.
  if ((flags & MASK) === uapi.VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2) {
    return refusals.refuse('EINVAL', `${device.ops.name} has no migration with pre-copy`, 'flags');
  }
  const payload = userPointer(argument + BigInt(layout.size));
  return device.ops.feature(process, flags, payload, argsz - layout.size);
}

/**
 * vfio_check_feature, for whoever implements one: 1 to go on, 0 when it was only a probe, or -EINVAL. `supported` are the operations (GET, SET)
 * that the feature has, `minimum` the bytes of its payload.
 */
export function vfioCheckFeature(
  refusals: RefusalLog,
  flags: number,
  size: number,
  supported: number,
  minimum: number,
): number {
  const asked = flags & (GET | SET);
  if ((asked & ~supported) !== 0)
    return refusals.refuse('EINVAL', `feature ${flags & MASK} has no such operation`, 'flags');
  if ((flags & PROBE) !== 0) return 0;
  if (asked === 0) return refusals.refuse('EINVAL', 'flags has none of GET, SET, PROBE', 'flags');
  if (size < minimum)
    return refusals.refuse(
      'EINVAL',
      `the payload has ${size} bytes, feature ${flags & MASK} needs ${minimum}`,
      'argsz',
    );
  return 1;
}
