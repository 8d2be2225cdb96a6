/** An IOAS: an address space of iommufd, which devices are attached to and memory is mapped into. */
import { fromU64, hex, type Iova, iova as toIova } from '../ports/address.ts';
import type { Kernel } from '../ports/kernel.ts';
import * as uapi from '../uapi/iommufd.ts';
import { type AddressSpace, DMA_ACCESSES, type DmaAccess, type MapDmaOptions } from './address-space.ts';
import { oneOf, refuseArgument, whole, wholeIova } from './argument.ts';
import type { CdevDevice } from './cdev-device.ts';
import { explainMapFile, type MappableFile } from './dma-buf.ts';
import type { DmaBuffer } from './dma-buffer.ts';
import { mapMemory, userMemory } from './dma-memory.ts';
import { refused, VfioError } from './error.ts';
import { explainIoasMap, explainIoasUnmap } from './explain-iommufd.ts';
import type { IovaRange } from './iommu-info.ts';
import { Iommufd } from './iommufd.ts';
import { Resource } from './resource.ts';

export interface IoasOptions {
  /** False: every page is mapped by itself, and is dirty by itself (IOMMU_OPTION_HUGE_PAGES). Default true. */
  readonly hugePages?: boolean;
}

/** Where a copy goes and what it allows. */
export interface CopyOptions {
  /** Left out: the kernel's choice. */
  readonly iova?: number | bigint;
  readonly access?: DmaAccess;
}

/** What of a file goes where. */
export interface MapFileOptions {
  /** Bytes into the file; 0 when left out. */
  readonly offset?: number;
  /** Left out: to the end of the file. */
  readonly length?: number;
  /** Left out: the kernel's choice. */
  readonly iova?: number | bigint;
  readonly access?: DmaAccess;
}

const WHOLE = 2n ** 64n - 1n;
/** The list of ranges may grow between two asks, but not for ever. */
const MOST_ASKS = 4;
const RANGE = uapi.iommu_iova_range.size;

/**
 * @example
 * using iommufd = Iommufd.open(kernel);
 * using ioas = Ioas.create(iommufd);
 * const { iova } = ioas.mapDma({ length: 4096 }); // 0x1000: the kernel takes the lowest that fits
 */
export class Ioas extends Resource implements AddressSpace {
  readonly iommufd: Iommufd;
  readonly id: number;
  readonly #devices = new Set<CdevDevice>();
  readonly #mappings = new Map<number, number>();

  private constructor(iommufd: Iommufd, id: number) {
    super();
    this.iommufd = iommufd;
    this.id = id;
  }

  /** @throws VfioError */
  static create(iommufd: Iommufd, { hugePages = true }: IoasOptions = {}): Ioas {
    const name = 'IOMMU_IOAS_ALLOC';
    if (!(iommufd instanceof Iommufd)) refuseArgument(name, 'iommufd', 'an Iommufd', iommufd);
    const answer = iommufd.request(name, uapi.IOMMU_IOAS_ALLOC, uapi.iommu_ioas_alloc, {});
    const ioas = iommufd.own(new Ioas(iommufd, answer.out_ioas_id));
    if (!hugePages) {
      const option = { option_id: uapi.IOMMU_OPTION_HUGE_PAGES, op: uapi.IOMMU_OPTION_OP_SET, val64: 0 };
      iommufd.request('IOMMU_OPTION', uapi.IOMMU_OPTION, uapi.iommu_option, { ...option, object_id: ioas.id });
    }
    return ioas;
  }

  get kernel(): Kernel {
    return this.iommufd.kernel;
  }

  get label(): string {
    return `IOAS ${this.id}`;
  }

  /** The devices that are attached to it, or to a page table of it. */
  get devices(): readonly CdevDevice[] {
    return [...this.#devices];
  }

  /** What this object mapped and did not unmap; `end` is inclusive. */
  get mappings(): readonly IovaRange[] {
    return [...this.#mappings].map(([start, length]) => ({ start, end: start + length - 1 }));
  }

  mapDma(options: MapDmaOptions): DmaBuffer {
    this.assertOpen('IOMMU_IOAS_MAP');
    const page = options.iova === undefined ? this.#alignment() : this.kernel.pageSize;
    const undo = (iova: number, length: number): void => this.#unmapQuietly(iova, length);
    return this.adopt(mapMemory(this, options, page, 'IOMMU_IOAS_MAP', undo));
  }

  /** With null the kernel chooses: first fit, aligned to the length up to 2 MiB (io_pagetable.c `iopt_alloc_iova`). */
  map(iova: number | bigint | null, address: number, length: number, access: DmaAccess = 'rw'): Iova {
    const name = 'IOMMU_IOAS_MAP';
    this.assertOpen(name);
    const at = iova === null ? null : wholeIova(iova, name);
    const user_va = whole(address, name, 'user_va');
    const bytes = whole(length, name, 'length');
    const fields = { ioas_id: this.id, flags: flagsOf(at, access, name), user_va, length: bytes, iova: at ?? 0 };
    const explain = (code: string) => explainIoasMap(code, this, { iova: at, address, length });
    const answer = this.iommufd.request(name, uapi.IOMMU_IOAS_MAP, uapi.iommu_ioas_map, fields, explain);
    return this.#mapped(answer.iova, length, name);
  }

  /**
   * Maps a file: memory (a memfd, any shared memory), or what another device lends (a dma-buf; without `length` all of it). `unmap` undoes it.
   * A dma-buf that is taken back leaves the page tables at once; the mapping stays, empty, until it is unmapped.
   * @throws VfioError: EBADF, EINVAL beyond the file's end (of memory: once a device is attached), ENODEV a dma-buf that is taken back, EOPNOTSUPP one of several ranges; then as `map`
   */
  mapFile(file: MappableFile, options: MapFileOptions = {}): Iova {
    const name = 'IOMMU_IOAS_MAP_FILE';
    this.assertOpen(name);
    const { offset = 0, access = 'rw' } = options;
    if (!Number.isInteger(file?.fd)) refuseArgument(name, 'fd', 'a file with its descriptor and length', file);
    const start = whole(offset, name, 'start');
    const length = whole(options.length ?? Math.max(0, file.length - start), name, 'length');
    const iova = options.iova === undefined ? null : wholeIova(options.iova, name);
    const fields = {
      ioas_id: this.id,
      flags: flagsOf(iova, access, name),
      fd: file.fd,
      start,
      length,
      iova: iova ?? 0,
    };
    const explain = (code: string) =>
      explainMapFile(code, file, offset, length) ?? explainIoasMap(code, this, { iova, address: null, length });
    const answer = this.iommufd.request(name, uapi.IOMMU_IOAS_MAP_FILE, uapi.iommu_ioas_map_file, fields, explain);
    return this.#mapped(answer.iova, length, name);
  }

  /** Maps here the memory that `source`, of the same iommufd, has at [from, from + length): pages are pinned once. @throws VfioError ENOENT where it has none */
  copy(source: Ioas, from: number | bigint, length: number, options: CopyOptions = {}): Iova {
    const name = 'IOMMU_IOAS_COPY';
    this.assertOpen(name);
    if (!(source instanceof Ioas)) refuseArgument(name, 'src_ioas_id', 'an Ioas', source);
    if (source.iommufd !== this.iommufd) {
      const why = `${source.label} belongs to another iommufd`;
      throw new VfioError({ code: 'ENOENT', request: name, why, field: 'src_ioas_id' });
    }
    const to = options.iova === undefined ? null : wholeIova(options.iova, name, 'dst_iova');
    const fields = {
      flags: flagsOf(to, options.access ?? 'rw', name),
      dst_ioas_id: this.id,
      src_ioas_id: source.id,
      length: whole(length, name, 'length'),
      dst_iova: to ?? 0,
      src_iova: wholeIova(from, name, 'src_iova'),
    };
    const answer = this.iommufd.request(name, uapi.IOMMU_IOAS_COPY, uapi.iommu_ioas_copy, fields, (code) =>
      code === 'ENOENT'
        ? { why: `${source.label} does not map all of ${hex(from)} + ${hex(length, 1)}`, field: 'src_iova' }
        : explainIoasMap(code, this, { iova: to, address: null, length }),
    );
    return this.#mapped(answer.dst_iova, length, name);
  }

  /**
   * All or nothing, and 0 where nothing is mapped, as with a container. The kernel itself answers ENOENT to both, and has by then
   * unmapped what comes before a mapping that would be cut (io_pagetable.c `iopt_unmap_iova_range`), so a cut is not asked for.
   */
  unmap(from: number | bigint, length: number): number {
    const name = 'IOMMU_IOAS_UNMAP';
    this.assertOpen(name);
    const iova: number = wholeIova(from, name);
    whole(length, name, 'length');
    const touched = this.#touched(iova, length);
    const cut = touched.find(({ start, end }) => start < iova || end >= iova + length);
    if (cut !== undefined) {
      const why = `${hex(iova)} + ${hex(length, 1)} cuts the mapping ${hex(cut.start)}-${hex(cut.end)}`;
      throw new VfioError({ code: 'ENOENT', request: name, why, field: 'iova', hint: 'unmap all of it' });
    }
    const fields = { ioas_id: this.id, iova, length };
    const { result, answer } = this.iommufd.tryRequest(name, uapi.IOMMU_IOAS_UNMAP, uapi.iommu_ioas_unmap, fields);
    if (result < 0) {
      const error = refused(this.kernel, result, name, (code) => explainIoasUnmap(code, iova, length));
      if (error.code === 'ENOENT' && touched.length === 0) return 0;
      throw error;
    }
    for (const { start } of touched) this.#mappings.delete(start);
    return Number(answer.length);
  }

  unmapAll(): number {
    const fields = { ioas_id: this.id, iova: 0n, length: WHOLE };
    const answer = this.iommufd.request('IOMMU_IOAS_UNMAP', uapi.IOMMU_IOAS_UNMAP, uapi.iommu_ioas_unmap, fields);
    this.#mappings.clear();
    return Number(answer.length);
  }

  /** All 64 bits before the first device; then what its domain expresses, without what it reserves. */
  ranges(): readonly IovaRange[] {
    return this.#askRanges().ranges;
  }

  pageSizes(): readonly number[] {
    return [this.#alignment()];
  }

  /**
   * Says where the kernel may put what has no IOVA of its own; nothing: anywhere. Reserved ranges of later devices must not meet it.
   * @throws VfioError: EADDRINUSE over a reserved range, EINVAL for ranges that overlap
   */
  allow(ranges: readonly IovaRange[]): void {
    const name = 'IOMMU_IOAS_ALLOW_IOVAS';
    this.assertOpen(name);
    if (!Array.isArray(ranges)) refuseArgument(name, 'allowed_iovas', 'a list of ranges', ranges);
    const list = userMemory(this.kernel, Math.max(1, ranges.length) * RANGE);
    const fields = { ioas_id: this.id, num_iovas: ranges.length, allowed_iovas: list.address };
    try {
      for (const [i, range] of ranges.entries()) {
        const start = whole(range?.start, name, `allowed_iovas[${i}].start`);
        const last = whole(range?.end, name, `allowed_iovas[${i}].last`);
        uapi.iommu_iova_range.write(list.bytes, { start, last }, i * RANGE);
      }
      this.iommufd.request(name, uapi.IOMMU_IOAS_ALLOW_IOVAS, uapi.iommu_ioas_allow_iovas, fields, (code) =>
        code === 'EADDRINUSE' ? { why: 'a range meets what a device reserves', field: 'allowed_iovas' } : null,
      );
    } finally {
      list.free();
    }
  }

  /** Called by a device that was attached, and when it left. */
  deviceAttached(device: CdevDevice): void {
    this.#devices.add(device);
  }

  deviceLeft(device: CdevDevice): void {
    // It may stay in a page table of this space: PASIDs have their own.
    if (!device.uses(this)) this.#devices.delete(device);
  }

  /** Makes `child`, a page table of this space, close with it. */
  own<T extends Resource>(child: T): T {
    return this.adopt(child);
  }

  /** Devices leave first, so that none of them does DMA into what is unmapped next. They stay open, and blocked. */
  protected override closeChildren(): void {
    for (const device of [...this.#devices].reverse()) device.detachFrom(this);
    super.closeChildren();
  }

  protected override release(): void {
    this.iommufd.destroy(this.id);
  }

  #mapped(iova: bigint, length: number, request: string): Iova {
    const at = fromU64(iova);
    if (at === null) {
      this.iommufd.tryRequest('IOMMU_IOAS_UNMAP', uapi.IOMMU_IOAS_UNMAP, uapi.iommu_ioas_unmap, {
        ioas_id: this.id,
        iova,
        length,
      });
      const why = `the kernel chose ${hex(iova)}, which is beyond 2^53`;
      throw new VfioError({ code: 'EOVERFLOW', request, why, field: 'iova' });
    }
    this.#mappings.set(at, length);
    return toIova(at);
  }

  /** The usual unmap of one whole mapping costs the same however many there are. */
  #touched(iova: number, length: number): readonly IovaRange[] {
    if (this.#mappings.get(iova) === length) return [{ start: iova, end: iova + length - 1 }];
    return this.mappings.filter(({ start, end }) => start < iova + length && iova <= end);
  }

  /** For closing: the mapping may be gone already. */
  #unmapQuietly(iova: number, length: number): void {
    if (!this.#mappings.delete(iova)) return;
    const fields = { ioas_id: this.id, iova, length };
    const bytes = uapi.iommu_ioas_unmap.bytes({ size: uapi.iommu_ioas_unmap.size, ...fields });
    this.kernel.ioctl(this.iommufd.fd, uapi.IOMMU_IOAS_UNMAP, bytes);
  }

  #alignment(): number {
    return this.#askRanges().alignment;
  }

  /** With too little room the kernel answers EMSGSIZE and how many there are; then it is asked again. */
  #askRanges(): { readonly ranges: readonly IovaRange[]; readonly alignment: number } {
    const name = 'IOMMU_IOAS_IOVA_RANGES';
    this.assertOpen(name);
    let room = Math.floor(this.kernel.pageSize / RANGE);
    for (let asks = 0; asks < MOST_ASKS; asks++) {
      const list = userMemory(this.kernel, room * RANGE);
      try {
        const fields = { ioas_id: this.id, num_iovas: room, allowed_iovas: list.address };
        const struct = uapi.iommu_ioas_iova_ranges;
        const { result, answer } = this.iommufd.tryRequest(name, uapi.IOMMU_IOAS_IOVA_RANGES, struct, fields);
        const error = result < 0 ? refused(this.kernel, result, name) : null;
        if (error !== null && error.code !== 'EMSGSIZE') throw error;
        if (error === null) {
          return { ranges: readRanges(list.bytes, answer.num_iovas), alignment: Number(answer.out_iova_alignment) };
        }
        room = answer.num_iovas;
      } finally {
        list.free();
      }
    }
    const why = `the list grew with each of ${MOST_ASKS} asks`;
    throw new VfioError({ code: 'EMSGSIZE', request: name, why, field: 'num_iovas' });
  }
}

function flagsOf(iova: number | null, access: DmaAccess, request: string): number {
  oneOf(access, DMA_ACCESSES, request, 'access');
  const fixed = iova === null ? 0 : uapi.IOMMU_IOAS_MAP_FIXED_IOVA;
  const read = access === 'w' ? 0 : uapi.IOMMU_IOAS_MAP_READABLE;
  return fixed | read | (access === 'r' ? 0 : uapi.IOMMU_IOAS_MAP_WRITEABLE);
}

/** A range that ends beyond 2^53 ends at 2^53 - 1 here; one that begins there is left out. */
function readRanges(bytes: Uint8Array, count: number): IovaRange[] {
  return Array.from({ length: count }, (_, i) => uapi.iommu_iova_range.read(bytes, i * RANGE)).flatMap((range) => {
    const start = fromU64(range.start);
    return start === null ? [] : [{ start, end: fromU64(range.last) ?? Number.MAX_SAFE_INTEGER }];
  });
}
