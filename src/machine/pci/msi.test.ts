import { describe, expect, it } from 'vitest';
import { CapabilityId } from '../../arch/pci/index.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import { ALL_ON, BELL, capabilityOf, single } from './testing/rig.ts';

const COMMAND = 0x04;

function enabled(vectors: number, address64: boolean, perVectorMask: boolean) {
  const made = single({ msi: { vectors, address64, perVectorMask } });
  const { fn } = made;
  const at = capabilityOf(fn, CapabilityId.MSI);
  fn.configWrite(COMMAND, 2, ALL_ON);
  fn.configWrite(at + 4, 4, BELL + 0x40);
  const dataAt = at + (address64 ? 12 : 8);
  const maskAt = dataAt + 4;
  // All that software may grant: Multiple Message Enable is a copy of Multiple Message Capable.
  fn.configWrite(dataAt, 2, 0xabff);
  fn.configWrite(at + 2, 2, 1 | (Math.log2(vectors) << 4));
  return { ...made, at, dataAt, maskAt, pendingAt: maskAt + 4 };
}

describe('MSI', () => {
  for (const vectors of [1, 2, 4, 8, 16, 32]) {
    for (const address64 of [false, true]) {
      for (const perVectorMask of [false, true]) {
        it(`${vectors} messages, ${address64 ? 64 : 32} bit, ${perVectorMask ? 'with' : 'without'} masks`, () => {
          const { fn, bell, at, ledger, lost } = enabled(vectors, address64, perVectorMask);
          // Message control: capable in bits 3:1, 64-bit in 7, per-vector masking in 8.
          const control =
            1 |
            (Math.log2(vectors) << 1) |
            (Math.log2(vectors) << 4) |
            (address64 ? 0x80 : 0) |
            (perVectorMask ? 0x100 : 0);
          expect(fn.configRead(at + 2, 2)).toBe(control);
          for (let vector = 0; vector < vectors; vector++) expect(fn.raise(vector)).toBe(true);
          expect(bell.arrivals.map(({ data }) => data)).toEqual(
            Array.from({ length: vectors }, (_, vector) => (0xabff - (vectors - 1)) | vector),
          );
          expect(fn.raise(vectors)).toBe(false);
          expect(lost(Loss.NOT_ENABLED)).toBe(1);
          expect(ledger[Count.SENT]).toBe(vectors + 1);
        });
      }
    }
  }

  it('has the length of its kind: what follows is not writable', () => {
    for (const [address64, perVectorMask, length] of [
      [false, false, 10],
      [true, false, 14],
      [false, true, 20],
      [true, true, 24],
    ] as const) {
      const { fn, at } = enabled(32, address64, perVectorMask);
      for (let offset = 4; offset < 28; offset++) fn.configWrite(at + offset, 1, 0xff);
      const writable = Array.from({ length: 24 }, (_, index) => fn.config.writable[at + 4 + index] !== 0);
      const last = writable.lastIndexOf(true) + 4;
      // The last writable byte: data's for 10 and 14, the mask's (before the read-only pending bits) for 20 and 24.
      expect(last).toBe(perVectorMask ? length - 5 : length - 1);
    }
  });

  it('grants fewer messages than asked for, and never more', () => {
    const { fn, at, bell, dataAt } = enabled(4, true, false);
    fn.configWrite(at + 2, 2, 1 | (1 << 4));
    fn.configWrite(dataAt, 2, 0x10);
    expect(fn.raise(1)).toBe(true);
    expect(fn.raise(2)).toBe(false);
    fn.configWrite(at + 2, 2, 1 | (7 << 4));
    expect(fn.raise(3)).toBe(true);
    expect(fn.raise(4)).toBe(false);
    expect(bell.arrivals.map(({ data }) => data)).toEqual([0x11, 0x13]);
  });

  it('a masked vector waits in its pending bit, a second one is coalesced, and the unmask sends it', () => {
    const { fn, bell, ledger, maskAt, pendingAt } = enabled(8, true, true);
    fn.configWrite(maskAt, 4, 0b1010_0000);
    expect(fn.raise(5)).toBe(false);
    expect(fn.raise(5)).toBe(false);
    expect(fn.raise(7)).toBe(false);
    expect(fn.configRead(pendingAt, 4)).toBe(0b1010_0000);
    expect([ledger[Count.PENDING], ledger[Count.COALESCED]]).toEqual([2, 1]);
    fn.configWrite(maskAt, 4, 0b1000_0000);
    expect(bell.arrivals.map(({ data }) => data & 7)).toEqual([5]);
    expect(fn.configRead(pendingAt, 4)).toBe(0b1000_0000);
    fn.configWrite(maskAt + 0, 1, 0);
    expect(bell.arrivals.map(({ data }) => data & 7)).toEqual([5, 7]);
    expect(ledger[Count.PENDING]).toBe(0);
    fn.configWrite(pendingAt, 4, 0xffff_ffff);
    expect(fn.configRead(pendingAt, 4)).toBe(0);
  });

  it('vector 31 of 32 masks and fires like the others', () => {
    const { fn, bell, maskAt, pendingAt } = enabled(32, true, true);
    fn.configWrite(maskAt, 4, 0x8000_0000);
    fn.raise(31);
    expect(fn.configRead(pendingAt, 4)).toBe(0x8000_0000);
    fn.configWrite(maskAt, 4, 0);
    expect(bell.arrivals).toHaveLength(1);
    expect(bell.arrivals[0].data & 31).toBe(31);
  });

  it('a 64-bit address leaves with its upper half, a 32-bit one without', () => {
    const { fn, at, lost } = enabled(1, true, false);
    fn.configWrite(at + 8, 4, 0x10);
    expect(fn.raise(0)).toBe(false);
    expect(lost(Loss.UNCLAIMED)).toBe(1);
  });

  it('reset switches it off, and what was pending ends as torn down', () => {
    const { fn, model, ledger, lost, at, maskAt, pendingAt } = enabled(4, true, true);
    fn.configWrite(maskAt, 4, 0xf);
    fn.raise(0);
    fn.raise(3);
    fn.reset();
    expect(model.resets).toBe(1);
    expect([ledger[Count.PENDING], lost(Loss.TORN_DOWN)]).toEqual([0, 2]);
    expect([fn.configRead(COMMAND, 2), fn.configRead(at + 2, 2) & 1, fn.configRead(pendingAt, 4)]).toEqual([0, 0, 0]);
  });
});
