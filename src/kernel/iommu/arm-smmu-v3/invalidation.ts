/** TLB maintenance of a domain: by range where the SMMU can, else page by page, and by ASID or VMID (arm_smmu_tlb_inv_range_domain). */
import { Op, tlbiTg } from '../../../arch/smmuv3/commands.ts';
import { highHalf } from '../../../ports/address.ts';
import type { DomainInvalidation, PagingDomain } from '../paging-domain.ts';
import type { TagAllocator } from '../tag-allocator.ts';
import type { SmmuCommandQueue } from './command-queue.ts';

const LEAF = 1;
/** Without range commands, more pages than this are not worth naming one by one. */
const PAGES_LIMIT = 512;

export class SmmuInvalidation implements DomainInvalidation {
  private readonly queue: SmmuCommandQueue;
  private readonly byRange: boolean;
  private readonly asids: TagAllocator;
  private readonly vmids: TagAllocator;

  constructor(queue: SmmuCommandQueue, byRange: boolean, asids: TagAllocator, vmids: TagAllocator) {
    this.queue = queue;
    this.byRange = byRange;
    this.asids = asids;
    this.vmids = vmids;
  }

  range(domain: PagingDomain, start: number, end: number): void {
    const { granuleShift } = domain.format;
    const pages = Math.ceil((end + 1 - start) / 2 ** granuleShift);
    if (!this.byRange && pages > PAGES_LIMIT) {
      this.all(domain);
      return;
    }
    const op = domain.stage === 1 ? Op.TLBI_NH_VA : Op.TLBI_S2_IPA;
    const tag = domain.stage === 1 ? domain.tag << 16 : domain.tag;
    if (this.byRange) this.ranges(op, tag, start, pages, granuleShift);
    else {
      for (let i = 0; i < pages; i++) this.address(op, tag, 0, start + i * 2 ** granuleShift, LEAF);
    }
    // Nobody knows which addresses of a stage 1 led here.
    if (domain.nestParent) this.queue.push(Op.TLBI_NH_ALL, domain.tag, 0, 0);
    this.queue.sync();
  }

  all(domain: PagingDomain): void {
    if (domain.stage === 1) this.queue.push(Op.TLBI_NH_ASID, domain.tag << 16, 0, 0);
    else this.queue.push(Op.TLBI_S12_VMALL, domain.tag, 0, 0);
    this.queue.sync();
  }

  release(domain: PagingDomain): void {
    (domain.stage === 1 ? this.asids : this.vmids).give(domain.tag);
  }

  /** Each command covers (NUM + 1) << SCALE granules, NUM up to 31. */
  private ranges(op: number, tag: number, start: number, pages: number, granuleShift: number): void {
    let at = start;
    let left = pages;
    while (left > 0) {
      let scale = 0;
      let scaled = left;
      while (scaled % 2 === 0 && scale < 31) {
        scaled /= 2;
        scale++;
      }
      const num = scaled % 32;
      this.address(op, tag, ((num - 1) << 12) | (scale << 20), at, LEAF | (tlbiTg(granuleShift) << 10));
      const covered = num * 2 ** scale;
      at += covered * 2 ** granuleShift;
      left -= covered;
    }
  }

  private address(op: number, tag: number, size: number, at: number, flags: number): void {
    this.queue.push(op | size, tag, at | 0 | flags, highHalf(at));
  }
}
