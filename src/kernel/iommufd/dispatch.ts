/** From a request's number to what answers it (iommufd/main.c iommufd_fops_ioctl). */
import type { Fields, Struct } from '../../uapi/struct.ts';
import { copyStructFromUser } from '../copy-struct.ts';
import type { Process } from '../process.ts';
import { copyFromUser } from '../user-copy.ts';
import type { IommufdContext } from './context.ts';
import { Ucmd } from './ucmd.ts';

/** A request whose struct is `S`: `Request<typeof iommu_ioas_map>`. */
export type Request<S> = S extends Struct<infer F> ? Ucmd<F> : never;

export interface Op {
  readonly request: number;
  /** Bytes that the user's struct has at least. */
  readonly minimum: number;
  execute(ctx: IommufdContext, process: Process, argument: bigint, userSize: number): number;
}

/** `last` is the last field of the struct's first version. */
export function op<F extends Fields>(
  request: number,
  layout: Struct<F>,
  last: keyof F & string,
  handler: (ucmd: Ucmd<F>) => number,
): Op {
  return {
    request,
    minimum: layout.endOf(last),
    execute(ctx, process, argument, userSize) {
      const bytes = copyStructFromUser(process, argument, userSize, layout.size);
      const { refusals } = ctx.context;
      if (bytes === 'EFAULT') return refusals.refuse('EFAULT', `not all of ${userSize} bytes are readable`, 'argument');
      if (bytes === 'E2BIG') {
        const why = `size ${userSize}: something behind the ${layout.size} bytes that this kernel knows is not 0`;
        return refusals.refuse('E2BIG', why, 'size');
      }
      return handler(new Ucmd(ctx, process, layout, argument, bytes, userSize));
    },
  };
}

/** The size, the number as a whole, the minimum; then the struct. */
export function dispatch(
  ctx: IommufdContext,
  known: Op | undefined,
  process: Process,
  request: number,
  argument: bigint,
): number {
  const { refusals } = ctx.context;
  const head = copyFromUser(process, argument, 4);
  if (head === null) return refusals.refuse('EFAULT', 'the size in the first 4 bytes is not readable', 'argument');
  if (known === undefined || known.request !== request) {
    return refusals.refuse('ENOTTY', `iommufd does not know the request 0x${request.toString(16)}`, 'request');
  }
  const userSize = new DataView(head.buffer).getUint32(0, true);
  if (userSize < known.minimum) {
    return refusals.refuse('EINVAL', `size ${userSize} is less than ${known.minimum}`, 'size');
  }
  return known.execute(ctx, process, argument, userSize);
}
