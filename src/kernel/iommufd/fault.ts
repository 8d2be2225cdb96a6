/** A queue of I/O page faults that user space answers (iommufd/eventq.c). No device here asks for pages (no PRI, no stalls), so it stays empty. */
import { hex } from '../../ports/address.ts';
import type { iommu_fault_alloc } from '../../uapi/iommufd.ts';
import { IOMMUFD_PAGE_RESP_INVALID, iommu_hwpt_page_response, iommu_hwpt_pgfault } from '../../uapi/iommufd-hwpt.ts';
import { type File, fget, fput } from '../files.ts';
import type { Process } from '../process.ts';
import type { IommufdContext } from './context.ts';
import type { Request } from './dispatch.ts';
import { lowestFd } from './lowest-fd.ts';
import { IommufdObject } from './object.ts';

const EPOLLOUT = 4;

export class FaultQueue extends IommufdObject {
  readonly type = 'fault';

  destroy(): void {}
}

/** The queue's own descriptor. It keeps the iommufd open, and the queue from being destroyed. */
export class FaultFile implements File {
  readonly name = 'anon_inode:[iommufd-pgfault]';
  private readonly ctx: IommufdContext;
  private readonly queue: FaultQueue;

  constructor(ctx: IommufdContext, queue: FaultQueue) {
    this.ctx = ctx;
    this.queue = queue;
    queue.users += 1;
    fget(ctx.file);
  }

  /** 0: nothing waits. */
  read(_process: Process, _address: number, count: number, offset: number): number {
    return this.checkAccess(count, offset, iommu_hwpt_pgfault.size);
  }

  /** Answers to faults; every cookie is unknown here. */
  write(process: Process, address: number, count: number, offset: number): number {
    const { refusals } = this.ctx.context;
    const error = this.checkAccess(count, offset, iommu_hwpt_page_response.size);
    if (error < 0 || count === 0) return error;
    const bytes = new Uint8Array(iommu_hwpt_page_response.size);
    if (!process.memory.copyIn(address, bytes))
      return refusals.refuse('EFAULT', `no response at ${hex(address)}`, 'data');
    const { cookie, code } = iommu_hwpt_page_response.read(bytes);
    if (code > IOMMUFD_PAGE_RESP_INVALID) {
      return refusals.refuse('EINVAL', `code ${code} is neither SUCCESS 0 nor INVALID 1`, 'code');
    }
    return refusals.refuse('EINVAL', `no fault waits for an answer to cookie ${cookie}`, 'cookie');
  }

  poll(): number {
    return EPOLLOUT;
  }

  release(): void {
    this.queue.users -= 1;
    fput(this.ctx.file);
  }

  private checkAccess(count: number, offset: number, size: number): number {
    if (offset === 0 && count % size === 0) return 0;
    return this.ctx.context.refusals.refuse(
      'ESPIPE',
      `${count} bytes at ${offset}: whole records of ${size} at 0`,
      'count',
    );
  }
}

export function faultQueueAlloc(ucmd: Request<typeof iommu_fault_alloc>): number {
  const { cmd, ctx, process, refusals } = ucmd;
  if (cmd.flags !== 0) return refusals.refuse('EOPNOTSUPP', `flags ${hex(cmd.flags)}: there are none`, 'flags');
  const queue = new FaultQueue();
  ctx.objects.add(queue);
  // The descriptor is installed last: what has failed before leaves none.
  const fd = lowestFd(process);
  const error = fd < process.limits.nofile ? ucmd.respond({ out_fault_id: queue.id, out_fault_fd: fd }) : 0;
  const installed = error < 0 ? error : process.install(new FaultFile(ctx, queue));
  if (installed < 0) {
    ctx.objects.abort(queue);
    return installed;
  }
  ctx.objects.finalize(queue);
  return 0;
}
