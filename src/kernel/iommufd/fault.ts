/** A queue of I/O page faults that user space answers (iommufd/eventq.c). */
import { hex } from '../../ports/address.ts';
import type { iommu_fault_alloc } from '../../uapi/iommufd.ts';
import { IOMMUFD_PAGE_RESP_INVALID, iommu_hwpt_page_response, iommu_hwpt_pgfault } from '../../uapi/iommufd-hwpt.ts';
import { type File, fget, fput } from '../files.ts';
import type { Process } from '../process.ts';
import type { IommufdContext } from './context.ts';
import type { IommufdDevice } from './device.ts';
import type { Request } from './dispatch.ts';
import type { Hwpt } from './group.ts';
import type { IopfGroup } from './iopf.ts';
import { lowestFd } from './lowest-fd.ts';
import { IommufdObject } from './object.ts';

const EPOLLIN = 1;
const EPOLLOUT = 4;
const EPOLLRDNORM = 0x40;

export class FaultQueue extends IommufdObject {
  readonly type = 'fault';
  /** Not read yet, oldest first. */
  private waiting: IopfGroup[] = [];
  /** Read and not answered, by cookie. */
  private readonly unanswered = new Map<number, IopfGroup>();

  get next(): IopfGroup | null {
    return this.waiting[0] ?? null;
  }

  /** iommufd_fault_iopf_handler. */
  deliver(group: IopfGroup): void {
    this.waiting.push(group);
  }

  /** The oldest group gets the lowest free cookie from 1 up, under which it will be answered. */
  takeCookie(): number {
    let cookie = 1;
    while (this.unanswered.has(cookie)) cookie += 1;
    return cookie;
  }

  /** The oldest group was read. */
  read(cookie: number): void {
    const group = this.waiting.shift();
    if (group !== undefined) this.unanswered.set(cookie, group);
  }

  /** False: nothing waits for an answer to this cookie. */
  answer(cookie: number, code: number): boolean {
    const group = this.unanswered.get(cookie);
    this.unanswered.delete(cookie);
    group?.answer(code);
    return group !== undefined;
  }

  /** iommufd_auto_response_faults: the device left the table; what it still asks for is answered with INVALID. */
  drop(device: IommufdDevice, hwpt: Hwpt): void {
    this.refuseAll((group) => group.device === device && group.hwpt === hwpt);
  }

  destroy(): void {
    this.refuseAll(() => true);
  }

  private refuseAll(which: (group: IopfGroup) => boolean): void {
    const gone = this.waiting.filter(which);
    this.waiting = this.waiting.filter((group) => !which(group));
    for (const [cookie, group] of this.unanswered) {
      if (!which(group)) continue;
      this.unanswered.delete(cookie);
      gone.push(group);
    }
    for (const group of gone) group.answer(IOMMUFD_PAGE_RESP_INVALID);
  }
}

/** The queue's own descriptor. It keeps the iommufd open, and the queue from being destroyed. */
export class FaultFile implements File {
  readonly name = 'anon_inode:[iommufd-pgfault]';
  readonly nonseekable = true;
  private readonly ctx: IommufdContext;
  private readonly queue: FaultQueue;

  constructor(ctx: IommufdContext, queue: FaultQueue) {
    this.ctx = ctx;
    this.queue = queue;
    queue.users += 1;
    fget(ctx.file);
  }

  /** Whole groups, as many as fit; 0 when none waits. */
  read(process: Process, address: number, count: number, offset: number): number {
    const { refusals } = this.ctx.context;
    const error = this.checkAccess(count, offset, iommu_hwpt_pgfault.size);
    if (error < 0) return error;
    let done = 0;
    for (let group = this.queue.next; group !== null; group = this.queue.next) {
      const cookie = this.queue.takeCookie();
      const bytes = bytesOf(group, cookie);
      if (done >= count || bytes.length > count - done) {
        if (done > 0) break;
        return refusals.refuse('EINVAL', `${count} bytes do not hold the next group of ${bytes.length}`, 'count');
      }
      if (!process.memory.copyOut(address + done, bytes)) {
        return done > 0 ? done : refusals.refuse('EFAULT', 'the buffer is not writable', 'buffer');
      }
      this.queue.read(cookie);
      done += bytes.length;
    }
    return done;
  }

  /** Answers to groups, each done before the next is looked at. */
  write(process: Process, address: number, count: number, offset: number): number {
    const { size } = iommu_hwpt_page_response;
    const error = this.checkAccess(count, offset, size);
    if (error < 0) return error;
    for (let done = 0; done < count; done += size) {
      const refused = this.answer(process, address + done);
      if (refused < 0) return done > 0 ? done : refused;
    }
    return count;
  }

  poll(): number {
    return this.queue.next === null ? EPOLLOUT : EPOLLOUT | EPOLLIN | EPOLLRDNORM;
  }

  release(): void {
    this.queue.users -= 1;
    fput(this.ctx.file);
  }

  private answer(process: Process, address: number): number {
    const { refusals } = this.ctx.context;
    const bytes = new Uint8Array(iommu_hwpt_page_response.size);
    if (!process.memory.copyIn(address, bytes))
      return refusals.refuse('EFAULT', `no response at ${hex(address)}`, 'data');
    const { cookie, code } = iommu_hwpt_page_response.read(bytes);
    if (code > IOMMUFD_PAGE_RESP_INVALID) {
      return refusals.refuse('EINVAL', `code ${code} is neither SUCCESS 0 nor INVALID 1`, 'code');
    }
    if (this.queue.answer(cookie, code)) return 0;
    return refusals.refuse('EINVAL', `no fault waits for an answer to cookie ${cookie}`, 'cookie');
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

/** iommufd_compose_fault_message. */
function bytesOf({ device, requests }: IopfGroup, cookie: number): Uint8Array {
  const bytes = new Uint8Array(requests.length * iommu_hwpt_pgfault.size);
  for (const [i, request] of requests.entries()) {
    iommu_hwpt_pgfault.write(bytes, { ...request, dev_id: device.id, cookie }, i * iommu_hwpt_pgfault.size);
  }
  return bytes;
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
