/** The mock's dirty state: what generic_pt's AMD format with pages of 2 KiB says (iommu_pt.h record_dirty). */
import { describe, expect, it } from 'vitest';
import { MockDomain } from './mock-domain.ts';

const K = 1024;
const BASE = 2 ** 24;

function tracked(huge: boolean, chunks: readonly (readonly [offset: number, size: number])[]) {
  const domain = new MockDomain('unmanaged', huge, true);
  for (const [offset, size] of chunks) domain.map(BASE + offset, 2 ** 30 + offset, size);
  const read = (offset: number, size: number, noClear = false): [number, number][] => {
    const told: [number, number][] = [];
    domain.dirtyOps?.readAndClearDirty(BASE + offset, size, noClear, (at, length) => told.push([at - BASE, length]));
    return told;
  };
  return { domain, read, set: (offset: number) => domain.dirtyOps?.set(BASE + offset) };
}

describe('the dirty state of a mock page table', () => {
  it('is absent where it was not asked for', () => {
    expect(new MockDomain('unmanaged').dirtyOps).toBeUndefined();
  });

  it('a page of the kernel is a leaf of two entries, of which the first is told', () => {
    const { read, set } = tracked(false, [
      [0, 4 * K],
      [4 * K, 4 * K],
    ]);
    set(0);
    set(6 * K);
    expect(read(0, 8 * K, true)).toEqual([
      [0, 2 * K],
      [4 * K, 2 * K],
    ]);
    expect(read(4 * K, 2 * K)).toEqual([[4 * K, 2 * K]]);
    expect(read(0, 8 * K)).toEqual([[0, 2 * K]]);
    expect(read(0, 8 * K)).toEqual([]);
  });

  it('a huge page is one entry, told as a whole', () => {
    const { read, set } = tracked(true, [[0, 3072 * K]]);
    set(1024 * K + 4 * K);
    expect(read(0, 3072 * K)).toEqual([[1024 * K, 1024 * K]]);
  });

  it('unmapping forgets, and so does not what lies beside; nothing is dirty where nothing is mapped', () => {
    const { domain, read, set } = tracked(false, [
      [0, 4 * K],
      [4 * K, 4 * K],
    ]);
    for (const offset of [0, 4 * K, 8 * K]) set(offset);
    domain.unmap(BASE, 4 * K);
    domain.map(BASE, 2 ** 30, 4 * K);
    expect(read(0, 64 * K)).toEqual([[4 * K, 2 * K]]);
  });
});
