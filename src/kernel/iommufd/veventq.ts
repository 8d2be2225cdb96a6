/** What a virtual IOMMU tells its guest: records with a header each, read from a file (iommufd/eventq.c). */
import { iommufd_vevent_header as header, IOMMU_VEVENTQ_FLAG_LOST_EVENTS } from '../../uapi/iommufd.ts';
import { type File, fget, fput } from '../files.ts';
import type { Process } from '../process.ts';
import { IommufdObject } from './object.ts';
import type { Viommu } from './viommu.ts';

const EPOLLIN = 1;
const EPOLLRDNORM = 0x40;
const INT_MAX = 0x7fff_ffff;

interface Vevent {
  readonly sequence: number;
  /** null: events were lost here. */
  readonly data: Uint8Array | null;
}

export class VeventQueue extends IommufdObject {
  readonly type = 'veventq';
  readonly viommu: Viommu;
  readonly eventType: number;
  private readonly depth: number;
  private events: Vevent[] = [];
  /** Events that were not lost and not read (num_events). */
  private stored = 0;
  private next = 0;

  constructor(viommu: Viommu, eventType: number, depth: number) {
    super();
    this.viommu = viommu;
    this.eventType = eventType;
    this.depth = depth;
    viommu.users += 1;
    viommu.queues.set(eventType, this);
    viommu.ctx.objects.add(this);
  }

  get pending(): readonly Vevent[] {
    return this.events;
  }

  /** A full queue remembers, once and at its end, that something is missing; the sequence counts what was lost. */
  add(data: Uint8Array): void {
    const full = this.stored >= this.depth;
    if (this.events.at(-1)?.data === null) this.events.pop();
    this.events.push({ sequence: this.next, data: full ? null : data });
    if (!full) this.stored += 1;
    this.next = (this.next + 1) & INT_MAX;
  }

  take(): void {
    const taken = this.events.shift();
    if (taken !== undefined && taken.data !== null) this.stored -= 1;
  }

  destroy(): void {
    this.viommu.queues.delete(this.eventType);
    this.viommu.users -= 1;
  }
}

/** The queue's own descriptor. It keeps the iommufd open, and the queue from being destroyed. */
export class VeventFile implements File {
  readonly name = 'anon_inode:[iommufd-viommu-event]';
  readonly nonseekable = true;
  private readonly queue: VeventQueue;

  constructor(queue: VeventQueue) {
    this.queue = queue;
    queue.users += 1;
    fget(queue.viommu.ctx.file);
  }

  /** Whole events, as many as fit; 0 when none waits. */
  read(process: Process, address: number, count: number, offset: number): number {
    const { refusals } = this.queue.viommu.ctx.context;
    if (offset !== 0) return refusals.refuse('ESPIPE', `the queue has no position ${offset}`, 'offset');
    if (count < header.size) {
      return refusals.refuse('EINVAL', `${count} bytes do not hold a header of ${header.size}`, 'count');
    }
    let done = 0;
    for (let event = this.queue.pending[0]; event !== undefined; event = this.queue.pending[0]) {
      const bytes = bytesOf(event);
      if (bytes.length > count - done) {
        if (done > 0) break;
        return refusals.refuse('EINVAL', `${count} bytes do not hold the next event of ${bytes.length}`, 'count');
      }
      if (!process.memory.copyOut(address + done, bytes)) {
        return done > 0 ? done : refusals.refuse('EFAULT', 'the buffer is not writable', 'buffer');
      }
      this.queue.take();
      done += bytes.length;
    }
    return done;
  }

  poll(): number {
    return this.queue.pending.length > 0 ? EPOLLIN | EPOLLRDNORM : 0;
  }

  release(): void {
    this.queue.users -= 1;
    fput(this.queue.viommu.ctx.file);
  }
}

function bytesOf({ sequence, data }: Vevent): Uint8Array {
  const flags = data === null ? IOMMU_VEVENTQ_FLAG_LOST_EVENTS : 0;
  const bytes = new Uint8Array(header.size + (data?.length ?? 0));
  header.write(bytes, { flags, sequence });
  if (data !== null) bytes.set(data, header.size);
  return bytes;
}
