/** Memory that areas map (struct iopt_pages): shared by an area and its copies, pinned only while a page table needs it. */
import { fromU64, hex } from '../../ports/address.ts';
import type { IommuDomain } from '../../ports/iommu.ts';
import type { PinnedPages, UserMemory } from '../../ports/process.ts';
import type { KernelContext } from '../context.ts';
import { type File, fget, fput } from '../files.ts';
import type { Process } from '../process.ts';
import { type AccountMode, chargePages, type Payer, payer, unchargePages } from './account.ts';
import type { Area } from './area.ts';
import { PageCover, type PageSpan, touching } from './page-cover.ts';

/** Physically contiguous bytes. */
export interface Run {
  readonly pa: number;
  readonly length: number;
}

/** Pages [first, last] of the object, pinned together. */
interface Segment extends PageSpan {
  readonly pinned: PinnedPages;
  /** Filled areas that touch it. */
  users: number;
}

export interface PagesOptions {
  /** Who mapped it: whose memory it is, and who is charged. */
  readonly process: Process;
  /** A file whose pages they are; null: the process's own memory. */
  readonly file: File | null;
  /** First address, or offset in the file; a multiple of the page size. */
  readonly base: bigint;
  readonly writable: boolean;
  readonly account: AccountMode;
}

export class IoptPages {
  readonly file: File | null;
  readonly base: bigint;
  readonly writable: boolean;
  readonly account: AccountMode;
  /** Device memory: mapped as such, and not for the kernel's own accesses. */
  readonly mmio: boolean = false;
  protected readonly context: KernelContext;
  private readonly memory: UserMemory;
  private payer: Payer;
  private references = 1;
  /** Sorted, without overlap. */
  private readonly segments: Segment[] = [];
  /** What the filled areas need; they may overlap. */
  private readonly cover = new PageCover();
  private charged = 0;

  constructor(context: KernelContext, options: PagesOptions) {
    this.context = context;
    this.memory = options.process.memory;
    this.payer = payer(options.process);
    this.file = options.file;
    this.base = options.base;
    this.writable = options.writable;
    this.account = options.account;
    if (this.file !== null) fget(this.file);
  }

  get(): this {
    this.references += 1;
    return this;
  }

  put(): void {
    this.references -= 1;
    if (this.references === 0) this.released();
  }

  /** The last reference is gone (iopt_release_pages). */
  protected released(): void {
    if (this.file !== null) fput(this.file);
  }

  /** They were taken away, and no domain has them. */
  get revoked(): boolean {
    return false;
  }

  /** The area is in these domains from now on; pages that may be taken away remember it. */
  track(_area: Area, _domains: readonly IommuDomain[]): void {}

  /** The area is in no domain any more. */
  untrack(_area: Area): void {}

  /** Pages that are charged now. */
  get pinnedPages(): number {
    return this.charged;
  }

  /**
   * Pins what a new area needs and is not pinned yet, then charges it: 0, -EFAULT (nothing mapped there, read-only, or a device's BAR),
   * -EINVAL (a file that cannot be pinned), -ENOMEM (the limit). Pages that an area has keep their frames for its copies.
   */
  pin(startByte: bigint, length: bigint): number {
    const span = this.pageSpan(startByte, length);
    const made = this.pinGaps(span);
    if (typeof made === 'number') return made;
    const known = touching(this.segments, span);
    const all = [...this.segments.slice(known.at, known.at + known.count), ...made].sort((a, b) => a.first - b.first);
    for (const segment of all) segment.users += 1;
    this.segments.splice(known.at, known.count, ...all);
    this.cover.add(span);
    const error = this.settleCharge();
    if (error < 0) this.unpin(startByte, length);
    return error;
  }

  unpin(startByte: bigint, length: bigint): void {
    const span = this.pageSpan(startByte, length);
    this.cover.remove(span);
    const { at, count } = touching(this.segments, span);
    const left = this.segments.slice(at, at + count).filter((segment) => {
      segment.users -= 1;
      if (segment.users === 0) segment.pinned.release();
      return segment.users > 0;
    });
    this.segments.splice(at, count, ...left);
    this.settleCharge();
  }

  /** Where the bytes [startByte, startByte + length) are; they must be pinned. */
  runs(startByte: bigint, length: bigint): Run[] {
    const { pageSize } = this.context;
    const start = Number(startByte);
    const end = Number(startByte + length);
    const found: { pa: number; length: number }[] = [];
    for (const segment of this.touching(this.pageSpan(startByte, length))) {
      let at = segment.first * pageSize;
      for (const run of segment.pinned.runs) {
        const from = Math.max(at, start);
        const bytes = Math.min(at + run.length, end) - from;
        const pa = run.pa + (from - at);
        at += run.length;
        if (bytes <= 0) continue;
        const previous = found[found.length - 1];
        if (previous !== undefined && previous.pa + previous.length === pa) previous.length += bytes;
        else found.push({ pa, length: bytes });
      }
    }
    return found;
  }

  /** Who is charged. */
  get owner(): Process {
    return this.payer.process;
  }

  /** IOAS_CHANGE_PROCESS: the charge goes to `process`. 0 or -ENOMEM. */
  changeProcess(process: Process): number {
    if (process === this.payer.process) return 0;
    const next = payer(process);
    const error = chargePages(this.context, this.account, next, this.charged);
    if (error < 0) return error;
    unchargePages(this.context, this.account, this.payer, this.charged);
    this.payer = next;
    return 0;
  }

  private pageSpan(startByte: bigint, length: bigint): PageSpan {
    const page = BigInt(this.context.pageSize);
    return { first: Number(startByte / page), last: Number((startByte + length - 1n) / page) };
  }

  private touching(span: PageSpan): Segment[] {
    const { at, count } = touching(this.segments, span);
    return this.segments.slice(at, at + count);
  }

  /** Segments for every page of the span that has none, or -errno with nothing pinned. */
  private pinGaps(span: PageSpan): Segment[] | number {
    const made: Segment[] = [];
    let at = span.first;
    for (const known of [...this.touching(span), { first: span.last + 1, last: span.last + 1 }]) {
      if (known.first > at) {
        const pinned = this.pinRange(at, known.first - 1);
        if (typeof pinned === 'number') {
          for (const segment of made) segment.pinned.release();
          return pinned;
        }
        made.push({ first: at, last: known.first - 1, pinned, users: 0 });
      }
      at = known.last + 1;
    }
    return made;
  }

  private pinRange(first: number, last: number): PinnedPages | number {
    const { pageSize, refusals } = this.context;
    const address = fromU64(this.base + BigInt(first) * BigInt(pageSize)) ?? Number.MAX_SAFE_INTEGER;
    const length = (last - first + 1) * pageSize;
    if (this.file !== null) return this.pinFile(this.file, address, length);
    const pinned = this.memory.pin(address, length, this.writable);
    const where = `user_va ${hex(address)} + ${hex(length)}`;
    if (typeof pinned === 'number') {
      return refusals.refuse('EFAULT', `${where} is not all mapped${this.writable ? ' and writable' : ''}`, 'user_va');
    }
    if (!pinned.deviceMemory) return pinned;
    pinned.release();
    const why = `${where} holds a device's BAR, which has no struct pages: iommufd cannot map it`;
    return refusals.refuse('EFAULT', why, 'user_va', 'VFIO type1 maps BARs');
  }

  private pinFile(file: File, offset: number, length: number): PinnedPages | number {
    const { refusals } = this.context;
    const pinned = file.pin?.(offset, length, this.writable);
    if (pinned === undefined)
      return refusals.refuse('EINVAL', `${file.name} is no memfd: it has no pages to pin`, 'fd');
    if (typeof pinned === 'number') {
      return refusals.passOn(pinned, `${file.name} has no pages at ${hex(offset)} + ${hex(length)}`);
    }
    return pinned;
  }

  /** Charges or gives back the difference to what the filled areas cover together. */
  private settleCharge(): number {
    const wanted = this.cover.pages;
    if (wanted > this.charged) {
      const error = chargePages(this.context, this.account, this.payer, wanted - this.charged);
      if (error < 0) return error;
    } else {
      unchargePages(this.context, this.account, this.payer, this.charged - wanted);
    }
    this.charged = wanted;
    return 0;
  }
}
