/** A user of an IOAS inside the kernel (iommufd_access), as a file that the tests drive. */
import { type File, fget, fput } from '../../kernel/files.ts';
import type { Area } from '../../kernel/iommufd/area.ts';
import type { IommufdContext } from '../../kernel/iommufd/index.ts';
import { Ioas } from '../../kernel/iommufd/index.ts';
import { IommufdObject } from '../../kernel/iommufd/object.ts';
import { hex } from '../../ports/address.ts';
import { Prot } from '../../ports/iommu.ts';

export interface Piece {
  readonly area: Area;
  readonly startByte: bigint;
  readonly length: bigint;
}

/** Pages that the test pinned through an access. */
export interface Item {
  readonly id: number;
  readonly iova: bigint;
  readonly length: bigint;
  readonly pieces: readonly Piece[];
}

export class Access extends IommufdObject {
  readonly type = 'access';
  ioas: Ioas | null = null;
  items: Item[] = [];
  private readonly ctx: IommufdContext;

  constructor(ctx: IommufdContext) {
    super();
    this.ctx = ctx;
    fget(ctx.file);
    // Who made it is a user until it says otherwise.
    this.users += 1;
  }

  /** iommufd_access_attach and _replace: 0 or -ENOENT. Pages of the old IOAS are let go. */
  use(ioasId: number): number {
    const ioas = this.ctx.objects.get(ioasId, Ioas, 'ioas_id');
    if (typeof ioas === 'number') return ioas;
    ioas.users += 1;
    this.leave();
    this.ioas = ioas;
    return 0;
  }

  /** The pieces of a range, checked as iommufd_access_pin_pages and _rw do; or -errno. */
  pieces(iova: bigint, length: bigint, write: boolean, wholePages: boolean): Piece[] | number {
    const { refusals, pageSize } = this.ctx.context;
    if (length === 0n) return refusals.refuse('EINVAL', 'length is 0', 'length');
    if (iova + length > 2n ** 64n)
      return refusals.refuse('EOVERFLOW', `iova ${hex(iova)} + ${hex(length)} wraps`, 'iova');
    if (this.ioas === null) return refusals.refuse('ENOENT', 'the access has no IOAS', 'id');
    const found: Piece[] = [];
    const end = iova + length;
    for (let at = iova; at < end; ) {
      const area = this.ioas.iopt.areas.first(at, at);
      if (area === null) return refusals.refuse('ENOENT', `nothing is mapped at iova ${hex(at)}`, 'iova');
      if (write && (area.prot & Prot.WRITE) === 0) return refusals.refuse('EPERM', 'mapped without WRITEABLE', 'flags');
      const stop = area.last + 1n < end ? area.last + 1n : end;
      const page = BigInt(pageSize);
      if (wholePages && area.byteAt(at) % page !== at % page) {
        return refusals.refuse('EINVAL', `iova ${hex(at)} is not where its byte is in a page`, 'iova');
      }
      // Pages cannot be handed out as an array when a piece ends inside of one.
      if (wholePages && stop !== end && area.byteAt(stop) % page !== 0n) {
        return refusals.refuse('EINVAL', `the mapping ends inside of a page at iova ${hex(stop)}`, 'iova');
      }
      found.push({ area, startByte: area.byteAt(at), length: stop - at });
      at = stop;
    }
    return found;
  }

  /** Pins the pages of the pieces: 0, or -errno with none pinned. */
  pin(pieces: readonly Piece[]): number {
    for (const [i, { area, startByte, length }] of pieces.entries()) {
      const error = area.pages.mmio ? this.deviceMemory() : area.pages.pin(startByte, length);
      if (error === 0) continue;
      this.unpin(pieces.slice(0, i));
      return error;
    }
    for (const { area } of pieces) area.pages.get();
    return 0;
  }

  unpin(pieces: readonly Piece[]): void {
    for (const { area, startByte, length } of pieces) {
      area.pages.unpin(startByte, length);
      area.pages.put();
    }
  }

  /** The unmap notification: items whose area is gone are let go. */
  sweep(): void {
    const { ioas } = this;
    const lives = ({ area }: Piece): boolean => ioas?.iopt.areas.first(area.start, area.last) === area;
    const gone = this.items.filter((item) => !item.pieces.every(lives));
    for (const item of gone) this.drop(item);
  }

  drop(item: Item): void {
    this.items = this.items.filter((other) => other !== item);
    this.unpin(item.pieces);
  }

  destroy(): void {
    this.leave();
    fput(this.ctx.file);
  }

  /** iopt_area_add_access and iopt_pages_rw_access: a dma-buf has no pages for the kernel. */
  private deviceMemory(): number {
    return this.ctx.context.refusals.refuse(
      'EINVAL',
      'the mapping is a dma-buf, which the kernel does not access',
      'iova',
    );
  }

  private leave(): void {
    for (const item of this.items) this.unpin(item.pieces);
    this.items = [];
    if (this.ioas !== null) this.ioas.users -= 1;
    this.ioas = null;
  }
}

/** The file that stands for an access. */
export class AccessFile implements File {
  readonly name = 'anon_inode:[iommufd_test_staccess]';
  readonly access: Access;
  readonly pinsPages: boolean;
  nextItem = 0;
  private readonly ctx: IommufdContext;

  constructor(ctx: IommufdContext, access: Access, pinsPages: boolean) {
    this.ctx = ctx;
    this.access = access;
    this.pinsPages = pinsPages;
  }

  release(): void {
    this.ctx.objects.putAndTryDestroy(this.access);
  }
}
