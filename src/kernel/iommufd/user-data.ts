/** What only an IOMMU's driver understands of a request, in user space's memory (struct iommu_user_data and its array, include/linux/iommu.h). */
import { hex } from '../../ports/address.ts';
import type { Fields, Struct, StructInit, StructValue } from '../../uapi/struct.ts';
import { copyStructFromUser } from '../copy-struct.ts';
import type { Process } from '../process.ts';
import type { RefusalLog } from '../refusal.ts';
import { copyToUser } from '../user-copy.ts';

interface Where {
  readonly process: Process;
  readonly refusals: RefusalLog;
  readonly type: number;
  readonly address: bigint;
}

/** One struct of the driver's. */
export class UserData {
  readonly type: number;
  readonly length: number;
  private readonly process: Process;
  private readonly refusals: RefusalLog;
  private readonly address: bigint;

  constructor({ process, refusals, type, address }: Where, length: number) {
    this.process = process;
    this.refusals = refusals;
    this.type = type;
    this.address = address;
    this.length = length;
  }

  /**
   * iommu_copy_struct_from_user: -EINVAL for another type, or a length that ends before `last` or behind the struct; -EFAULT. Unlike a request's own
   * struct, a driver's may not be longer than what the driver knows, whatever stands behind.
   */
  read<F extends Fields>(layout: Struct<F>, type: number, last: keyof F & string): StructValue<F> | number {
    const error = this.check(layout, type, last);
    if (error < 0) return error;
    const bytes = copyStructFromUser(this.process, this.address, this.length, layout.size);
    if (typeof bytes !== 'string') return layout.read(bytes);
    return this.refusals.refuse(bytes, `${this.length} bytes at ${hex(this.address)} are not readable`, 'data_uptr');
  }

  /** iommu_copy_struct_to_user: as much of the struct as the user has room for. 0 or -errno as `read`. */
  write<F extends Fields>(layout: Struct<F>, type: number, last: keyof F & string, value: StructInit<F>): number {
    const error = this.check(layout, type, last);
    if (error < 0) return error;
    if (copyToUser(this.process, this.address, layout.bytes(value).subarray(0, this.length))) return 0;
    return this.refusals.refuse('EFAULT', `${this.length} bytes at ${hex(this.address)} are not writable`, 'data_uptr');
  }

  private check<F extends Fields>(layout: Struct<F>, type: number, last: keyof F & string): number {
    if (this.type !== type) {
      return this.refusals.refuse('EINVAL', `data type ${hex(this.type)} is not ${hex(type)}`, 'data_type');
    }
    const least = layout.endOf(last);
    if (this.length >= least && this.length <= layout.size) return 0;
    const why = `data of ${this.length} bytes is not between ${least} and ${layout.size} bytes, as ${layout.name} is`;
    return this.refusals.refuse('EINVAL', why, 'data_len');
  }
}

/** What was done of an array, and why it ended. */
export interface Invalidated {
  readonly done: number;
  readonly error: number;
}

/** Several structs one behind the other, as HWPT_INVALIDATE has them. */
export class UserArray {
  readonly type: number;
  readonly count: number;
  readonly refusals: RefusalLog;
  private readonly where: Where;
  private readonly stride: number;

  constructor(where: Where, stride: number, count: number) {
    this.where = where;
    this.refusals = where.refusals;
    this.type = where.type;
    this.stride = stride;
    this.count = count;
  }

  /** iommu_copy_struct_from_user_array: one of them, or -errno as UserData.read. */
  entry<F extends Fields>(
    layout: Struct<F>,
    type: number,
    index: number,
    last: keyof F & string,
  ): StructValue<F> | number {
    const address = this.where.address + BigInt(index * this.stride);
    return new UserData({ ...this.where, address }, this.stride).read(layout, type, last);
  }

  /** iommu_copy_struct_from_full_user_array: all of them, each as short or long as user space has it; -EINVAL, -EFAULT, -E2BIG. */
  all<F extends Fields>(layout: Struct<F>, type: number): StructValue<F>[] | number {
    const { process, refusals, address } = this.where;
    if (this.type !== type) {
      return refusals.refuse('EINVAL', `data_type ${hex(this.type)} is not ${hex(type)}`, 'data_type');
    }
    if (this.count === 0) return refusals.refuse('EINVAL', 'entry_num is 0', 'entry_num');
    const values: StructValue<F>[] = [];
    for (let i = 0; i < this.count; i += 1) {
      const at = address + BigInt(i * this.stride);
      const bytes = copyStructFromUser(process, at, this.stride, layout.size);
      if (typeof bytes === 'string') return refusals.refuse(bytes, `entry ${i} at ${hex(at)}`, 'data_uptr');
      values.push(layout.read(bytes));
    }
    return values;
  }
}
