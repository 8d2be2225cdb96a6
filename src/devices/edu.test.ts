import { describe, expect, it } from 'vitest';
import { Edu, EduDma, EduInterrupt, EduStatus, EduRegister as R } from './edu.ts';
import { carry } from './testing/port.ts';

const MS = 1_000_000;

describe('edu, as QEMU specifies it', () => {
  it('identifies itself and is alive', () => {
    const edu = new Edu();
    carry(edu);
    expect(edu.read(R.ID, 4)).toBe(0x010000ed);
    edu.write(R.LIVENESS, 4, 0x1234_5678);
    expect(edu.read(R.LIVENESS, 4) >>> 0).toBe(0xedcb_a987);
    expect(edu.read(0x0c, 4)).toBe(-1);
    expect(edu.read(R.ID, 2)).toBe(-1);
  });

  it('computes factorials modulo 2^32 and interrupts when asked', () => {
    const edu = new Edu();
    const { events, advance } = carry(edu);
    const results: [number, number][] = [
      [0, 1],
      [1, 1],
      [5, 120],
      [12, 479_001_600],
      [13, 1_932_053_504],
      [33, 0x8000_0000],
      [34, 0],
      [0xffff_ffff, 0],
    ];
    for (const [n, result] of results) {
      edu.write(R.FACTORIAL, 4, n);
      expect(edu.read(R.STATUS, 4)).toBe(EduStatus.COMPUTING);
      edu.write(R.FACTORIAL, 4, 3);
      advance(MS);
      expect([edu.read(R.STATUS, 4), edu.read(R.FACTORIAL, 4) >>> 0]).toEqual([0, result]);
    }
    expect(events).toEqual([]);
    edu.write(R.STATUS, 4, 0xff);
    expect(edu.read(R.STATUS, 4)).toBe(EduStatus.INTERRUPT);
    edu.write(R.FACTORIAL, 4, 4);
    advance(MS);
    expect([events, edu.read(R.INTERRUPT_STATUS, 4)]).toEqual([['vector 0'], EduInterrupt.FACTORIAL]);
  });

  it('raises and acknowledges, by MSI or by its pin', () => {
    const edu = new Edu();
    const { events, state } = carry(edu);
    edu.write(R.INTERRUPT_RAISE, 4, 0x5);
    edu.write(R.INTERRUPT_RAISE, 4, 0x2);
    expect(edu.read(R.INTERRUPT_STATUS, 4)).toBe(7);
    edu.write(R.INTERRUPT_ACKNOWLEDGE, 4, 7);
    expect(events).toEqual(['vector 0', 'vector 0', 'line down']);
    state.messages = false;
    edu.write(R.INTERRUPT_RAISE, 4, 1);
    edu.write(R.INTERRUPT_RAISE, 4, 2);
    edu.write(R.INTERRUPT_ACKNOWLEDGE, 4, 1);
    edu.write(R.INTERRUPT_ACKNOWLEDGE, 4, 2);
    expect(events.slice(3)).toEqual(['line up', 'line up', 'line down']);
  });

  it('moves bytes through its buffer in 100 ms, and says so with interrupt 0x100', () => {
    const edu = new Edu();
    const { events, memory, advance, drain } = carry(edu);
    memory.set([1, 2, 3, 4, 5], 0x1000);
    const dma = (source: number, destination: number, count: number, command: number): void => {
      edu.write(R.DMA_SOURCE, 4, source);
      edu.write(R.DMA_DESTINATION, 4, destination);
      edu.write(R.DMA_COUNT, 4, count);
      edu.write(R.DMA_COMMAND, 4, command);
    };
    dma(0x1000, 0x4_0ffb, 5, EduDma.START | EduDma.INTERRUPT);
    edu.write(R.DMA_COUNT, 4, 1);
    advance(99 * MS);
    drain();
    expect([edu.read(R.DMA_COMMAND, 4), events]).toEqual([5, []]);
    advance(MS);
    drain();
    expect([edu.read(R.DMA_COMMAND, 4), events, edu.read(R.INTERRUPT_STATUS, 4)]).toEqual([4, ['vector 0'], 0x100]);
    // The mask of 28 bits takes the upper bits of the address away.
    dma(0x4_0ffb, 0x2000, 5, 0);
    edu.write(R.DMA_DESTINATION, 4, 0x3000_2000);
    edu.write(R.DMA_COMMAND, 4, EduDma.START | EduDma.FROM_DEVICE);
    advance(100 * MS);
    drain();
    expect([...memory.subarray(0x2000, 0x2005)]).toEqual([1, 2, 3, 4, 5]);
    // One byte beyond the buffer: nothing moves.
    dma(0x1000, 0x4_0ffc, 5, EduDma.START);
    advance(100 * MS);
    drain();
    dma(0x4_0ffb, 0x2100, 5, EduDma.START | EduDma.FROM_DEVICE);
    advance(100 * MS);
    drain();
    expect([...memory.subarray(0x2100, 0x2105)]).toEqual([1, 2, 3, 4, 5]);
  });

  it('takes a 64-bit address as two halves, low first; a low half alone clears the high one', () => {
    const edu = new Edu({ dmaMask: Number.MAX_SAFE_INTEGER });
    carry(edu);
    edu.write(R.DMA_SOURCE, 4, 0x10);
    edu.write(R.DMA_SOURCE + 4, 4, 0x80);
    expect([edu.read(R.DMA_SOURCE, 4), edu.read(R.DMA_SOURCE + 4, 4)]).toEqual([0x10, 0x80]);
    edu.write(R.DMA_SOURCE, 4, 0x20);
    expect(edu.read(R.DMA_SOURCE + 4, 4)).toBe(0);
  });

  it('forgets everything at reset, also what was under way', () => {
    const edu = new Edu();
    const { events, advance } = carry(edu);
    edu.write(R.STATUS, 4, EduStatus.INTERRUPT);
    edu.write(R.FACTORIAL, 4, 4);
    edu.reset();
    advance(MS);
    expect([events, edu.read(R.STATUS, 4), edu.read(R.FACTORIAL, 4)]).toEqual([[], 0, 0]);
  });
});
