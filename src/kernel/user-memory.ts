/** The memory of a process that runs in the same program: mappings over frames of the machine's RAM. */
import type { PhysicalMemory } from '../ports/memory.ts';
import type { PinnedPages, UserMemory } from '../ports/process.ts';
import { ERRNO } from '../uapi/errno.ts';
import type { FileMapping, Located } from './files.ts';
import { FrameBlock } from './frame-block.ts';
import type { OwnedMemory } from './process.ts';
import { SharedMapping } from './shared-mapping.ts';
import { type Vma, VmaList } from './vma.ts';

/** Mappings are placed upwards from here, never on an address that was used before: a stale pointer is a fault. */
const FIRST_ADDRESS = 0x10_0000_0000;
/** End of user space with 47 bits. */
const TASK_SIZE = 0x7fff_ffff_f000;
/**
 * Memory is aligned to its own size, up to this: so it lies within one array of the machine's RAM and is one view, and the IOMMU can use blocks,
 * as with transparent huge pages.
 */
const LARGEST_ALIGNMENT = 0x400_0000;

const EFAULT = -ERRNO.EFAULT;

export class SimUserMemory implements UserMemory, OwnedMemory {
  private readonly memory: PhysicalMemory;
  private readonly pageSize: number;
  private readonly vmas = new VmaList();
  private next = FIRST_ADDRESS;

  constructor(memory: PhysicalMemory, pageSize: number) {
    this.memory = memory;
    this.pageSize = pageSize;
  }

  /** Zeroed anonymous memory: its address, or -ENOMEM. `length` is rounded up to pages. */
  allocate(length: number, alignment = this.pageSize, write = true): number {
    const size = Math.ceil(length / this.pageSize) * this.pageSize;
    const natural = Math.max(alignment, this.pageSize, Math.min(2 ** Math.ceil(Math.log2(size)), LARGEST_ALIGNMENT));
    const start = this.place(size, natural);
    if (start === null) return -ERRNO.ENOMEM;
    const block =
      FrameBlock.allocate(this.memory, size, natural) ?? FrameBlock.allocate(this.memory, size, this.pageSize);
    if (block === null) return -ERRNO.ENOMEM;
    // Longer memory becomes one array now, before anything touches a part of it.
    if (size > LARGEST_ALIGNMENT) this.memory.view(block.pa, size);
    this.vmas.insert({ start, end: start + size, pa: block.pa, write, block, mapping: null });
    this.next = start + size + this.pageSize;
    return start;
  }

  /** Places what a file maps: its address, or -ENOMEM. The mapping is closed by `unmap`. */
  mapFile(mapping: FileMapping, write: boolean): number {
    const size = Math.ceil(mapping.length / this.pageSize) * this.pageSize;
    const start = this.place(size, this.pageSize);
    if (start === null) return -ERRNO.ENOMEM;
    this.vmas.insert({
      start,
      end: start + size,
      pa: mapping.pa,
      write,
      block: null,
      mapping: new SharedMapping(mapping),
    });
    this.next = start + size + this.pageSize;
    return start;
  }

  /** Takes away the mapping that starts at `address`; -EINVAL when none does. */
  unmap(address: number): number {
    const vma = this.vmas.remove(address);
    if (vma === null) return -ERRNO.EINVAL;
    vma.block?.put();
    vma.mapping?.put();
    return 0;
  }

  unmapAll(): void {
    for (const vma of [...this.vmas]) this.unmap(vma.start);
  }

  /** fork: the child has the same addresses, copies of anonymous memory, and shares what files map. False without memory for it. */
  copyTo(child: SimUserMemory): boolean {
    for (const vma of this.vmas) {
      vma.mapping?.get();
      const block = vma.block === null ? null : FrameBlock.allocate(child.memory, vma.block.length, this.pageSize);
      if (vma.block !== null) {
        if (block === null) return false;
        copyFrames(this.memory, vma.block, block);
      }
      child.vmas.insert({ ...vma, pa: block?.pa ?? vma.pa, block });
    }
    child.next = this.next;
    return true;
  }

  /** The bytes of [address, address + length) when they are one mapping's and one array's; they stay valid while mapped. */
  view(address: number, length: number): Uint8Array | null {
    const vma = this.vmas.find(address);
    if (vma === null || address + length > vma.end) return null;
    const file = vma.mapping?.file;
    if (file?.locate !== undefined) {
      const found = file.locate(address - vma.start);
      return found === null || found.length < length ? null : this.memory.view(found.pa, length);
    }
    return this.memory.view(vma.pa + (address - vma.start), length);
  }

  copyIn(address: number, into: Uint8Array): boolean {
    return this.each(address, into.length, false, (pa, at, length) =>
      this.memory.read(pa, into.subarray(at, at + length)),
    );
  }

  copyOut(address: number, from: Uint8Array): boolean {
    return this.each(address, from.length, true, (pa, at, length) =>
      this.memory.write(pa, from.subarray(at, at + length)),
    );
  }

  pin(address: number, length: number, write: boolean): PinnedPages | number {
    const runs: { pa: number; length: number }[] = [];
    const blocks: FrameBlock[] = [];
    const holds: (() => void)[] = [];
    let accounted = 0;
    let deviceMemory = false;
    const complete = this.each(address, length, write, (pa, _at, bytes, vma, located) => {
      const last = runs[runs.length - 1];
      if (last !== undefined && last.pa + last.length === pa) last.length += bytes;
      else runs.push({ pa, length: bytes });
      if (vma.block !== null) blocks.push(vma.block);
      if (located !== null) holds.push(located.hold(bytes));
      if (vma.mapping?.file.deviceMemory === true) deviceMemory = true;
      else accounted += bytes / this.pageSize;
      return true;
    });
    if (!complete) {
      for (const letGo of holds) letGo();
      return EFAULT;
    }
    for (const block of blocks) block.get();
    return new SimPinnedPages(runs, accounted, deviceMemory, blocks, holds);
  }

  /** Visits the physical pieces of a range; false at the first byte that is not mapped, or not writable where `write` asks. */
  private each(
    address: number,
    length: number,
    write: boolean,
    piece: (pa: number, at: number, length: number, vma: Vma, located: Located | null) => boolean,
  ): boolean {
    const end = address + length;
    let at = address;
    while (at < end) {
      const vma = this.vmas.find(at);
      if (vma === null || (write && !vma.write)) return false;
      const file = vma.mapping?.file;
      const located = file?.locate === undefined ? null : file.locate(at - vma.start);
      if (located === null && file?.locate !== undefined) return false;
      const stop = Math.min(end, vma.end, located === null ? end : at + located.length);
      const pa = located === null ? vma.pa + (at - vma.start) : located.pa;
      if (!piece(pa, at - address, stop - at, vma, located)) return false;
      at = stop;
    }
    return true;
  }

  private place(size: number, alignment: number): number | null {
    const start = Math.ceil(this.next / alignment) * alignment;
    return start + size <= TASK_SIZE ? start : null;
  }
}

class SimPinnedPages implements PinnedPages {
  readonly runs: readonly { readonly pa: number; readonly length: number }[];
  readonly accountedPages: number;
  readonly deviceMemory: boolean;
  private blocks: readonly FrameBlock[];
  private holds: readonly (() => void)[];

  constructor(
    runs: readonly { readonly pa: number; readonly length: number }[],
    accountedPages: number,
    deviceMemory: boolean,
    blocks: readonly FrameBlock[],
    holds: readonly (() => void)[],
  ) {
    this.runs = runs;
    this.accountedPages = accountedPages;
    this.deviceMemory = deviceMemory;
    this.blocks = blocks;
    this.holds = holds;
  }

  release(): void {
    for (const block of this.blocks) block.put();
    for (const letGo of this.holds) letGo();
    this.blocks = [];
    this.holds = [];
  }
}

function copyFrames(memory: PhysicalMemory, from: FrameBlock, to: FrameBlock): void {
  const piece = new Uint8Array(Math.min(from.length, 0x10_0000));
  for (let at = 0; at < from.length; at += piece.length) {
    const part = piece.subarray(0, Math.min(piece.length, from.length - at));
    memory.read(from.pa + at, part);
    memory.write(to.pa + at, part);
  }
}
