/** Translation tables of a stage 1 that user space owns: VMSAv8-64 descriptors in its own memory, as the SMMU reads them. */
import { getInPlace, getNumber, pack, word64 } from '../arch/bits.ts';
import {
  allowsBlock,
  DescriptorType,
  type Geometry,
  levelShift,
  S1_LEAF,
  stage1Attributes,
  stage1Geometry,
  TABLE_DESCRIPTOR,
} from '../arch/lpae/index.ts';
import { hex } from '../ports/address.ts';
import { VfioError } from './error.ts';

/** One table: its bytes here, and where the SMMU finds it (an address of the stage 2). */
export interface TablePage {
  readonly bytes: Uint8Array;
  readonly ipa: number;
}

/** `device`: registers, such as a doorbell; `memory`: cached. */
export const STAGE1_KINDS = ['memory', 'device'] as const;
export type Stage1Kind = (typeof STAGE1_KINDS)[number];

const LAST_LEVEL = 3;
const NOTHING = 0n;

interface Slot {
  readonly view: DataView;
  readonly at: number;
  readonly level: number;
  readonly descriptor: bigint;
}

export class Stage1Tables {
  readonly geometry: Geometry;
  /** Of the first table, for the context descriptor. */
  readonly root: number;
  readonly #pages = new Map<number, DataView>();
  readonly #newPage: () => TablePage;

  /** @param newPage zeroed, of one granule @param inputBits of an IOVA */
  constructor(granuleShift: number, inputBits: number, newPage: () => TablePage) {
    this.geometry = stage1Geometry(granuleShift, inputBits);
    this.#newPage = newPage;
    this.root = this.#add();
  }

  /** Bytes of the smallest mapping. */
  get granule(): number {
    return 2 ** this.geometry.granuleShift;
  }

  /**
   * Lets [iova, iova + length) mean [ipa, ipa + length), in the largest blocks that fit. Nothing needs to be invalidated for it.
   * @throws VfioError: EINVAL for a part of a page or beyond the input size, EEXIST over a mapping (what came before it stays)
   */
  map(iova: number, ipa: number, length: number, kind: Stage1Kind = 'memory'): void {
    this.#check(iova, length);
    if (ipa % this.granule !== 0) this.#refuse('EINVAL', `${hex(ipa)} is no multiple of ${hex(this.granule, 1)}`);
    const device = kind === 'device';
    const { lo, hi } = stage1Attributes({ read: true, write: true, cache: !device, noexec: true, mmio: device });
    const attributes = word64(lo, hi);
    for (let done = 0; done < length; ) {
      const level = this.#levelFor(iova + done, ipa + done, length - done);
      const slot = this.#walk(iova + done, level, true);
      if (slot.level !== level || slot.descriptor !== NOTHING) {
        this.#refuse('EEXIST', `iova ${hex(iova + done)} is mapped, or has a table`);
      }
      const type = BigInt(level === LAST_LEVEL ? DescriptorType.PAGE : DescriptorType.BLOCK);
      slot.view.setBigUint64(slot.at, BigInt(ipa + done) | attributes | type, true);
      done += this.#size(level);
    }
  }

  /** The owner invalidates afterwards. A table that became empty stays for what is mapped there next. @returns bytes unmapped @throws VfioError EINVAL where a block would be cut */
  unmap(iova: number, length: number): number {
    this.#check(iova, length);
    let unmapped = 0;
    for (let at = iova; at < iova + length; ) {
      const slot = this.#walk(at, LAST_LEVEL, false);
      const size = this.#size(slot.level);
      const start = at - (at % size);
      if (slot.descriptor !== NOTHING) {
        if (start < iova || start + size > iova + length) {
          this.#refuse('EINVAL', `${hex(iova)} + ${hex(length, 1)} cuts the block ${hex(start)} + ${hex(size, 1)}`);
        }
        slot.view.setBigUint64(slot.at, NOTHING, true);
        unmapped += size;
      }
      at = start + size;
    }
    return unmapped;
  }

  /** The address of stage 2 behind an IOVA, or null. */
  lookup(iova: number): number | null {
    if (iova < 0 || iova >= 2 ** this.geometry.inputBits) return null;
    const { level, descriptor } = this.#walk(iova, LAST_LEVEL, false);
    if (descriptor === NOTHING) return null;
    return Number(getInPlace([descriptor], S1_LEAF.Address)) + (iova % this.#size(level));
  }

  /** The entry of `level` for an IOVA; that of an earlier level where the walk ends before it. */
  #walk(iova: number, level: number, make: boolean): Slot {
    const { startLevel, startBits, levelBits, granuleShift } = this.geometry;
    let view = this.#pages.get(this.root) as DataView;
    for (let here = startLevel; ; here++) {
      const bits = here === startLevel ? startBits : levelBits;
      const at = (Math.floor(iova / this.#size(here)) % 2 ** bits) * 8;
      let descriptor = view.getBigUint64(at, true);
      if (here === level) return { view, at, level: here, descriptor };
      if (descriptor === NOTHING && make) {
        descriptor = pack(TABLE_DESCRIPTOR, 1, {
          Type: DescriptorType.TABLE,
          Address: BigInt(this.#add()) >> BigInt(TABLE_DESCRIPTOR.Address.low),
        })[0];
        view.setBigUint64(at, descriptor, true);
      }
      if (getNumber([descriptor], TABLE_DESCRIPTOR.Type) !== DescriptorType.TABLE) {
        return { view, at, level: here, descriptor };
      }
      const next = this.#pages.get(Number(getInPlace([descriptor], TABLE_DESCRIPTOR.Address)));
      if (next === undefined)
        throw new TypeError(`level ${here + 1} of ${hex(iova)} is no table of granule ${granuleShift}`);
      view = next;
    }
  }

  #levelFor(iova: number, ipa: number, length: number): number {
    for (let level = Math.max(1, this.geometry.startLevel); level < LAST_LEVEL; level++) {
      const size = this.#size(level);
      if (!allowsBlock(this.geometry.granuleShift, level) || size > length) continue;
      if (iova % size === 0 && ipa % size === 0 && this.#isFree(iova, level)) return level;
    }
    return LAST_LEVEL;
  }

  /** No table for smaller pages is there yet. */
  #isFree(iova: number, level: number): boolean {
    return this.#walk(iova, level, false).descriptor === NOTHING;
  }

  #size(level: number): number {
    return 2 ** levelShift(this.geometry.granuleShift, level);
  }

  #add(): number {
    const { bytes, ipa } = this.#newPage();
    this.#pages.set(ipa, new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    return ipa;
  }

  #check(iova: number, length: number): void {
    const { granule } = this;
    if (!Number.isSafeInteger(iova) || iova < 0 || iova % granule !== 0 || length <= 0 || length % granule !== 0) {
      this.#refuse('EINVAL', `iova ${hex(iova)} + ${hex(length, 1)} is no range of pages of ${hex(granule, 1)}`);
    }
    if (iova + length > 2 ** this.geometry.inputBits) {
      this.#refuse('EINVAL', `iova ${hex(iova)} + ${hex(length, 1)} is beyond ${this.geometry.inputBits} bits`);
    }
  }

  #refuse(code: 'EINVAL' | 'EEXIST', why: string): never {
    throw new VfioError({ code, request: 'stage 1', why, field: 'iova' });
  }
}
