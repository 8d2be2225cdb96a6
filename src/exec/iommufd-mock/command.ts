/** One IOMMU_TEST_CMD: its struct, and the way back. */
import type { IommufdFile } from '../../kernel/iommufd/index.ts';
import { copyToUser } from '../../kernel/user-copy.ts';
import type { ForeignProcess } from '../foreign-process.ts';

/** sizeof(struct iommu_test_cmd). */
export const COMMAND_SIZE = 72;

/** struct iommu_test_cmd: size@0, op@4, id@8, and a union at 16. */
export class Command {
  readonly file: IommufdFile;
  readonly process: ForeignProcess;
  readonly view: DataView;
  private readonly bytes: Uint8Array;
  private readonly argument: bigint;
  private readonly userSize: number;

  constructor(file: IommufdFile, process: ForeignProcess, argument: bigint, bytes: Uint8Array, userSize: number) {
    this.file = file;
    this.process = process;
    this.argument = argument;
    this.bytes = bytes;
    this.userSize = userSize;
    this.view = new DataView(bytes.buffer);
  }

  get id(): number {
    return this.u32(8);
  }

  u32(at: number): number {
    return this.view.getUint32(at, true);
  }

  u64(at: number): bigint {
    return this.view.getBigUint64(at, true);
  }

  address(at: number): number {
    return Number(this.u64(at));
  }

  /** Writes 32-bit fields into the struct and hands it back: 0 or -EFAULT. */
  respond(fields: Readonly<Record<number, number>>): number {
    for (const [at, value] of Object.entries(fields)) this.view.setUint32(Number(at), value, true);
    const answer = this.bytes.subarray(0, Math.min(this.userSize, COMMAND_SIZE));
    if (copyToUser(this.process, this.argument, answer)) return 0;
    return this.refuse('EFAULT', 'the struct is not writable');
  }

  refuse(...reason: Parameters<IommufdFile['ctx']['context']['refusals']['refuse']>): number {
    return this.file.ctx.context.refusals.refuse(...reason);
  }
}
