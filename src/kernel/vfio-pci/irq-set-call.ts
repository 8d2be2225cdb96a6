/** One checked VFIO_DEVICE_SET_IRQS. */
import type { Process } from '../process.ts';

export interface IrqSetCall {
  readonly process: Process;
  readonly flags: number;
  readonly index: number;
  readonly start: number;
  readonly count: number;
  /** What stands behind the header: nothing, a byte or an s32 for each of `count`. Empty with EVENTFD and count 0. */
  readonly data: Uint8Array;
}
