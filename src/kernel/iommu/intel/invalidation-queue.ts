/** The driver's side of the invalidation queue: writes descriptors into memory, moves the tail, waits (intel/dmar.c qi_submit_sync). */

import { QI_DESCRIPTOR_SIZE, QiType } from '../../../arch/vtd/queue.ts';
import { Fsts, Granularity, VtdReg } from '../../../arch/vtd/registers.ts';
import { highHalf } from '../../../ports/address.ts';
import type { KernelContext } from '../../context.ts';
import type { DomainInvalidation, PagingDomain } from '../paging-domain.ts';
import type { TagAllocator } from '../tag-allocator.ts';

/** One page: 256 descriptors. */
const BYTES = 4096;
/** Read and write draining. */
const DRAIN = (1 << 6) | (1 << 7);

export class VtdInvalidation implements DomainInvalidation {
  /** What IQA takes: the base, with a size of 256 descriptors (QS 0). */
  readonly base: number;
  private readonly context: KernelContext;
  private readonly registers: number;
  private readonly domains: TagAllocator;
  /** Largest address mask of a page-selective invalidation (CAP.MAMV). */
  private readonly maximumMask: number;
  private readonly words: Int32Array;
  private readonly at: number;
  private tail = 0;

  /** @throws RangeError when memory is exhausted. */
  constructor(context: KernelContext, registers: number, maximumMask: number, domains: TagAllocator) {
    this.context = context;
    this.registers = registers;
    this.maximumMask = maximumMask;
    this.domains = domains;
    const base = context.memory.allocate(BYTES);
    if (base === null) throw new RangeError('no memory for the invalidation queue');
    this.base = base;
    context.memory.locate(highHalf(base), base | 0);
    this.words = context.memory.words;
    this.at = context.memory.at;
  }

  /** The smallest aligned power of two that covers the range, or the whole domain (domain_flush: iommu_flush_iotlb_psi). */
  range(domain: PagingDomain, start: number, end: number): void {
    const first = start / 4096;
    const last = Math.floor(end / 4096);
    let mask = 0;
    while (Math.floor(first / 2 ** mask) !== Math.floor(last / 2 ** mask)) mask++;
    if (mask > this.maximumMask) {
      this.all(domain);
      return;
    }
    const at = first * 4096 - ((first * 4096) % (4096 * 2 ** mask));
    this.push(QiType.IOTLB | (Granularity.PAGE << 4) | DRAIN | (domain.tag << 16), 0, at | 0 | mask, highHalf(at));
    this.wait();
  }

  all(domain: PagingDomain): void {
    this.domain(domain.tag);
  }

  release(domain: PagingDomain): void {
    this.domains.give(domain.tag);
  }

  domain(id: number): void {
    this.push(QiType.IOTLB | (Granularity.DOMAIN << 4) | DRAIN | (id << 16), 0, 0, 0);
    this.wait();
  }

  everything(): void {
    this.push(QiType.CONTEXT | (Granularity.GLOBAL << 4), 0, 0, 0);
    this.push(QiType.IOTLB | (Granularity.GLOBAL << 4) | DRAIN, 0, 0, 0);
    this.wait();
  }

  source(domain: number, source: number): void {
    this.push(QiType.CONTEXT | (Granularity.DEVICE << 4) | (domain << 16), source & 0xffff, 0, 0);
    this.wait();
  }

  /** Any other descriptor, and its completion. */
  submit(w0lo: number, w0hi: number): void {
    this.push(w0lo, w0hi, 0, 0);
    this.wait();
  }

  private push(w0lo: number, w0hi: number, w1lo: number, w1hi: number): void {
    const at = this.at + this.tail / 4;
    const { words } = this;
    words[at] = w0lo;
    words[at + 1] = w0hi;
    words[at + 2] = w1lo;
    words[at + 3] = w1hi;
    this.tail = (this.tail + QI_DESCRIPTOR_SIZE) % BYTES;
  }

  private wait(): void {
    const { bus, log } = this.context;
    // FN: what came before is done before this is.
    this.push(QiType.WAIT | (1 << 6), 0, 0, 0);
    bus.write32(this.registers + VtdReg.IQT, this.tail);
    while ((bus.read32(this.registers + VtdReg.FSTS) & Fsts.IQE) !== 0) {
      const head = bus.read32(this.registers + VtdReg.IQH);
      log(`DMAR: VT-d detected Invalidation Queue Error: type ${this.words[this.at + head / 4] & 0xf}`);
      // A wait in the place of what the unit does not know, as qi_check_fault does.
      this.words.fill(0, this.at + head / 4, this.at + head / 4 + 4);
      this.words[this.at + head / 4] = QiType.WAIT | (1 << 6);
      bus.write32(this.registers + VtdReg.FSTS, Fsts.IQE);
      bus.write32(this.registers + VtdReg.IQT, this.tail);
    }
  }
}
