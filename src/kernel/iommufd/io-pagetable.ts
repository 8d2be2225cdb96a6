/** What an IOAS maps, and what it may map (struct io_pagetable): areas, reserved and allowed ranges, and the domains that hold the areas. */
import { hex } from '../../ports/address.ts';
import type { IommuDomain, ReservedRegion } from '../../ports/iommu.ts';
import { Prot } from '../../ports/iommu.ts';
import type { KernelContext } from '../context.ts';
import { Area, AreaTree } from './area.ts';
import { mapArea, unmapArea } from './area-domain.ts';
import { chooseIova } from './iova-choice.ts';
import type { IoptPages } from './pages.ts';
import { higher, holes, type IovaSpan64, lower, overlaps, showSpan, spanOf, U64_MAX } from './span.ts';

/** A range that no mapping may touch, and on whose account: a device, a domain's aperture, a doorbell. */
export interface Reserved extends IovaSpan64 {
  readonly owner: object;
  /** Of a device; null: an aperture's end, or a doorbell. */
  readonly region: ReservedRegion | null;
}

/** A part of some pages that is to be mapped. */
export interface PagesSlice {
  readonly pages: IoptPages;
  readonly startByte: bigint;
  readonly length: bigint;
}

/** What an unmap did before it ended, and why it ended. */
export interface Unmapped {
  readonly error: number;
  readonly bytes: bigint;
}

export class IoPagetable {
  readonly areas = new AreaTree();
  readonly domains: IommuDomain[] = [];
  /** Sorted by start. */
  reserved: readonly Reserved[] = [];
  /** ALLOW_IOVAS, sorted by start. */
  allowed: readonly IovaSpan64[] = [];
  /** Bytes: the smallest page of all domains; 1 without any. */
  alignment = 1n;
  /** False: every page is mapped by itself, so that an area can be cut (VFIO type1 v1). */
  largePages = true;
  readonly context: KernelContext;

  constructor(context: KernelContext) {
    this.context = context;
  }

  /** What IOVA_RANGES shows. */
  usable(): IovaSpan64[] {
    return holes(this.reserved, { start: 0n, last: U64_MAX });
  }

  /** iopt_map_pages: the IOVA that the slices now lie at, one behind the other, or -errno with nothing mapped. `iova` null: the kernel chooses. */
  map(slices: readonly PagesSlice[], length: bigint, iova: bigint | null, prot: number): bigint | number {
    const at = this.place(slices, length, iova);
    if (typeof at === 'number') return at;
    const areas: Area[] = [];
    const inserted = this.insert(slices, at, prot, areas);
    const error = inserted < 0 ? inserted : this.fillAll(areas);
    if (error === 0) return at;
    for (const area of areas) this.areas.remove(area);
    return error;
  }

  /** iopt_get_pages: the pages under [iova, iova + length), referenced for the caller; or -errno. */
  slices(iova: bigint, length: bigint): PagesSlice[] | number {
    const { refusals } = this.context;
    if (length === 0n) return refusals.refuse('EINVAL', 'length is 0', 'length');
    const span = spanOf(iova, length);
    if (span === null) return refusals.refuse('EOVERFLOW', `${hex(iova)} + ${hex(length)} wraps`, 'src_iova');
    const found: PagesSlice[] = [];
    let at = iova;
    while (at <= span.last) {
      const area = this.areas.first(at, at);
      if (area === null) {
        return refusals.refuse('ENOENT', `nothing is mapped at iova ${hex(at)}`, 'src_iova');
      }
      const last = lower(area.last, span.last);
      found.push({ pages: area.pages, startByte: area.byteAt(at), length: last - at + 1n });
      at = last + 1n;
    }
    for (const { pages } of found) pages.get();
    return found;
  }

  /**
   * iopt_unmap_iova_range: whole areas only. -ENOENT when there is none, or one would be cut; what came before it stays unmapped, and `bytes`
   * says how much that was.
   */
  unmap(start: bigint, last: bigint): Unmapped {
    const done = this.unmapRange(start, last);
    if (done.error < 0 || done.bytes > 0n) return done;
    const why = `nothing is mapped in ${showSpan({ start, last })}`;
    return { error: this.context.refusals.refuse('ENOENT', why, 'iova'), bytes: 0n };
  }

  /** iopt_unmap_all: no error when that is nothing. */
  unmapAll(): Unmapped {
    return this.unmapRange(0n, U64_MAX);
  }

  /** iopt_set_allow_iova: replaces the set. 0 or -EADDRINUSE. */
  allow(spans: readonly IovaSpan64[]): number {
    for (const span of spans) {
      const taken = this.reserved.find((reserved) => overlaps(reserved, span));
      if (taken === undefined) continue;
      const why = `${showSpan(span)} meets the reserved range ${showSpan(taken)}`;
      return this.context.refusals.refuse('EADDRINUSE', why, 'allowed_iovas');
    }
    this.allowed = spans;
    return 0;
  }

  /** iopt_reserve_iova: 0, or -EADDRINUSE when something is mapped there, or promised by ALLOW_IOVAS. */
  reserve(span: IovaSpan64, owner: object, region: ReservedRegion | null = null): number {
    const { refusals } = this.context;
    const what =
      region === null ? `the range ${showSpan(span)}` : `the reserved region ${region.type} ${showSpan(span)}`;
    const area = this.areas.first(span.start, span.last);
    if (area !== null) {
      const why = `${what} overlaps the mapping ${showSpan(area)}`;
      return refusals.refuse('EADDRINUSE', why, 'pt_id', 'unmap it, or attach the device before memory is mapped');
    }
    const promised = this.allowed.find((allowed) => overlaps(allowed, span));
    if (promised !== undefined) {
      const why = `${what} overlaps ${showSpan(promised)} of ALLOW_IOVAS`;
      return refusals.refuse('EADDRINUSE', why, 'pt_id', 'allow ranges beside it');
    }
    this.addReserved({ ...span, owner, region });
    return 0;
  }

  /** A reservation whose conflicts the caller has looked for. */
  addReserved(reserved: Reserved): void {
    this.reserved = [...this.reserved, reserved].sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  }

  /** iopt_remove_reserved_iova: everything on this account. */
  unreserve(owner: object): void {
    this.reserved = this.reserved.filter((reserved) => reserved.owner !== owner);
  }

  /** iopt_table_add_domain: the domain gets every area. 0, or -errno with nothing changed. */
  addDomain(domain: IommuDomain): number {
    const { refusals, pageSize } = this.context;
    const alignment = higher(BigInt(domain.pageSizes[0] ?? pageSize), this.alignment);
    if (alignment > BigInt(pageSize)) {
      return refusals.refuse(
        'EINVAL',
        `the domain's smallest page, ${alignment}, is larger than the kernel's`,
        'pt_id',
      );
    }
    const misfit = alignment === this.alignment ? 0 : this.checkAlignment(alignment);
    if (misfit < 0) return misfit;
    const error = this.reserveAperture(domain) || this.fillDomain(domain);
    if (error < 0) {
      this.unreserve(domain);
      return error;
    }
    this.alignment = alignment;
    this.domains.push(domain);
    return 0;
  }

  /** iopt_table_remove_domain. */
  removeDomain(domain: IommuDomain): void {
    this.domains.splice(this.domains.indexOf(domain), 1);
    for (const area of this.areas.all()) {
      unmapArea(domain, area);
      if (this.domains.length === 0) this.unpin(area);
    }
    this.unreserve(domain);
    this.alignment = this.neededAlignment();
  }

  /** OPTION HUGE_PAGES 0: 0, -EINVAL with mappings in a domain, -EADDRINUSE with mappings that do not fit. */
  disableLargePages(): number {
    if (!this.largePages) return 0;
    if (this.domains.length > 0 && this.areas.size > 0) {
      const why = `${this.areas.size} mappings are in page tables, maybe in large pages`;
      return this.context.refusals.refuse('EINVAL', why, 'val64');
    }
    this.largePages = false;
    const alignment = this.neededAlignment();
    const error = alignment > this.alignment ? this.checkAlignment(alignment) : 0;
    if (error < 0) this.largePages = true;
    else this.alignment = alignment;
    return error;
  }

  enableLargePages(): void {
    this.largePages = true;
    this.alignment = this.neededAlignment();
  }

  /** iopt_cut_iova: areas end at each of these IOVAs, so that UNMAP can take a part (VFIO type1 v1). 0 or -EINVAL. */
  cut(lasts: readonly bigint[]): number {
    for (const last of lasts) {
      const area = this.areas.first(last, last);
      const error = area === null ? 0 : this.split(area, last);
      if (error < 0) return error;
    }
    return 0;
  }

  private split(area: Area, last: bigint): number {
    const { refusals } = this.context;
    if (last === area.start || last === area.last) return 0;
    if (area.pages.mmio) {
      return refusals.refuse('EOPNOTSUPP', `the mapping ${showSpan(area)} is a dma-buf's: no cut`, 'iova');
    }
    const next = last + 1n;
    if (next % this.alignment !== 0n || area.byteAt(next) % this.alignment !== 0n) {
      return refusals.refuse('EINVAL', `iova ${hex(next)} is no multiple of ${this.alignment}: no cut there`, 'iova');
    }
    if (area.filled && this.largePages) {
      return refusals.refuse('EINVAL', `the mapping ${showSpan(area)} may be in large pages: no cut`, 'iova');
    }
    const { pages, prot, startByte } = area;
    const left = new Area({ start: area.start, last }, pages, startByte, prot);
    const right = new Area({ start: next, last: area.last }, pages.get(), area.byteAt(next), prot);
    this.areas.remove(area);
    for (const half of [left, right]) {
      half.filled = area.filled;
      // What is pinned already is neither charged again nor refused.
      if (half.filled) pages.pin(half.startByte, half.length);
      this.areas.insert(half);
    }
    if (area.filled) pages.unpin(startByte, area.length);
    return 0;
  }

  private unmapRange(start: bigint, last: bigint): Unmapped {
    let bytes = 0n;
    for (let area = this.areas.first(start, last); area !== null; area = this.areas.first(start, last)) {
      if (area.locks > 0) {
        const why = `the mapping ${showSpan(area)} holds a queue that hardware reads`;
        return { error: this.context.refusals.refuse('EBUSY', why, 'iova', 'destroy the queue first'), bytes };
      }
      if (area.start < start || area.last > last) {
        const why = `${showSpan({ start, last })} would cut the mapping ${showSpan(area)}`;
        return { error: this.context.refusals.refuse('ENOENT', why, 'iova'), bytes };
      }
      this.remove(area);
      bytes += area.length;
    }
    return { error: 0, bytes };
  }

  /** Length, then the choice or the check of the IOVA. */
  private place(slices: readonly PagesSlice[], length: bigint, iova: bigint | null): bigint | number {
    const { refusals } = this.context;
    if (length === 0n || length % this.alignment !== 0n) {
      return refusals.refuse('EINVAL', `length ${hex(length)} is 0, or no multiple of ${this.alignment}`, 'length');
    }
    if (iova === null) {
      const { areas, allowed, reserved, alignment } = this;
      const [{ pages, startByte }] = slices;
      const address = pages.base + startByte;
      return chooseIova(this.context, { address, length, alignment, allowed, reserved, areas });
    }
    const error = this.checkIova(iova, length);
    return error < 0 ? error : iova;
  }

  /** iopt_check_iova. */
  private checkIova(iova: bigint, length: bigint): number {
    const { refusals } = this.context;
    if (iova % this.alignment !== 0n) {
      return refusals.refuse('EINVAL', `iova ${hex(iova)} is no multiple of ${this.alignment}`, 'iova');
    }
    const span = spanOf(iova, length);
    if (span === null) return refusals.refuse('EOVERFLOW', `iova ${hex(iova)} + ${hex(length)} wraps`, 'iova');
    const taken = this.reserved.find((reserved) => overlaps(reserved, span));
    if (taken !== undefined) {
      const what = taken.region === null ? 'range' : `region ${taken.region.type}`;
      const why = `${showSpan(span)} overlaps the reserved ${what} ${showSpan(taken)}`;
      return refusals.refuse('EINVAL', why, 'iova', 'IOAS_IOVA_RANGES lists what may be mapped');
    }
    const area = this.areas.first(span.start, span.last);
    if (area === null) return 0;
    return refusals.refuse('EEXIST', `${showSpan(span)} overlaps the mapping ${showSpan(area)}`, 'iova');
  }

  /** iopt_insert_area for each slice; those that were made are in `areas`, also on an error. */
  private insert(slices: readonly PagesSlice[], iova: bigint, prot: number, areas: Area[]): number {
    const { refusals, pageSize } = this.context;
    let at = iova;
    for (const { pages, startByte, length } of slices) {
      if ((prot & Prot.WRITE) !== 0 && !pages.writable) {
        return refusals.refuse('EPERM', 'the source was mapped without WRITEABLE', 'flags');
      }
      const offset = startByte % BigInt(pageSize);
      if (offset % this.alignment !== 0n) {
        const why = `the address is ${hex(offset)} into its page, no multiple of ${this.alignment}`;
        return refusals.refuse('EINVAL', why, 'user_va');
      }
      const span = spanOf(at, length);
      if (span === null) return refusals.refuse('EOVERFLOW', `iova ${hex(at)} + ${hex(length)} wraps`, 'iova');
      const area = new Area(span, pages, startByte, prot);
      this.areas.insert(area);
      areas.push(area);
      at += length;
    }
    return 0;
  }

  /** Pins and maps new areas in every domain: all, or none and -errno. */
  private fillAll(areas: readonly Area[]): number {
    if (this.domains.length === 0) return 0;
    for (const area of areas) {
      const error = this.fill(area);
      if (error === 0) continue;
      for (const done of areas) if (done.filled) this.unfill(done);
      return error;
    }
    return 0;
  }

  private fill(area: Area): number {
    const pinned = area.pages.pin(area.startByte, area.length);
    if (pinned < 0) return pinned;
    for (const [i, domain] of this.domains.entries()) {
      const error = mapArea(this.context, domain, area, this.largePages);
      if (error < 0) {
        for (const done of this.domains.slice(0, i)) unmapArea(done, area);
        area.pages.unpin(area.startByte, area.length);
        return error;
      }
    }
    area.filled = true;
    area.pages.track(area, this.domains);
    return 0;
  }

  private unfill(area: Area): void {
    for (const domain of this.domains) unmapArea(domain, area);
    this.unpin(area);
  }

  private unpin(area: Area): void {
    if (!area.filled) return;
    area.filled = false;
    area.pages.untrack(area);
    area.pages.unpin(area.startByte, area.length);
  }

  private remove(area: Area): void {
    if (area.filled) this.unfill(area);
    this.areas.remove(area);
    area.pages.put();
  }

  /** iopt_fill_domain: a domain that comes gets what the IOAS has; the first one pins it. */
  private fillDomain(domain: IommuDomain): number {
    const done: Area[] = [];
    const first = this.domains.length === 0;
    for (const area of this.areas.all()) {
      const pinned = first ? area.pages.pin(area.startByte, area.length) : 0;
      if (pinned === 0) {
        area.filled = true;
        area.pages.track(area, this.domains);
      }
      const error = pinned < 0 ? pinned : mapArea(this.context, domain, area, this.largePages);
      if (error === 0) {
        done.push(area);
        continue;
      }
      if (first) this.unpin(area);
      for (const earlier of done) {
        unmapArea(domain, earlier);
        if (first) this.unpin(earlier);
      }
      return error;
    }
    return 0;
  }

  private reserveAperture(domain: IommuDomain): number {
    const first = BigInt(domain.apertureStart);
    const last = BigInt(domain.apertureEnd);
    const below = first === 0n ? 0 : this.reserve({ start: 0n, last: first - 1n }, domain);
    if (below < 0 || last >= U64_MAX) return below;
    return this.reserve({ start: last + 1n, last: U64_MAX }, domain);
  }

  private checkAlignment(alignment: bigint): number {
    const misfit = this.areas
      .all()
      .find((area) => [area.start, area.length, area.startByte].some((value) => value % alignment !== 0n));
    if (misfit === undefined) return 0;
    const why = `the mapping ${showSpan(misfit)} is not made of pages of ${alignment} bytes`;
    return this.context.refusals.refuse('EADDRINUSE', why, 'pt_id');
  }

  private neededAlignment(): bigint {
    const pages = this.domains.map((domain) => domain.pageSizes[0] ?? 1);
    return BigInt(Math.max(1, this.largePages ? 1 : this.context.pageSize, ...pages));
  }
}
