/** One request to /dev/iommu: its struct as the kernel knows it, and the way back (struct iommufd_ucmd). */
import type { Fields, Struct, StructInit, StructValue } from '../../uapi/struct.ts';
import type { Process } from '../process.ts';
import type { RefusalLog } from '../refusal.ts';
import { copyToUser } from '../user-copy.ts';
import type { IommufdContext } from './context.ts';

export class Ucmd<F extends Fields> {
  readonly ctx: IommufdContext;
  readonly process: Process;
  readonly cmd: StructValue<F>;
  /** The struct's user address. */
  readonly argument: bigint;
  private readonly layout: Struct<F>;
  private readonly bytes: Uint8Array;
  private readonly userSize: number;

  constructor(
    ctx: IommufdContext,
    process: Process,
    layout: Struct<F>,
    argument: bigint,
    bytes: Uint8Array,
    userSize: number,
  ) {
    this.ctx = ctx;
    this.process = process;
    this.layout = layout;
    this.argument = argument;
    this.bytes = bytes;
    this.userSize = userSize;
    this.cmd = layout.read(bytes);
  }

  get refusals(): RefusalLog {
    return this.ctx.context.refusals;
  }

  /** iommufd_ucmd_respond: the struct with these fields changed, as much of it as the user has room for. 0 or -EFAULT. */
  respond(changes: StructInit<F>): number {
    this.layout.patch(this.bytes, changes);
    const answer = this.bytes.subarray(0, Math.min(this.userSize, this.bytes.length));
    if (copyToUser(this.process, this.argument, answer)) return 0;
    return this.refusals.refuse('EFAULT', 'the argument is not writable', 'argument');
  }
}
