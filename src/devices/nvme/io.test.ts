/** Expected values: NVM Express 1.4, by section. */
import { describe, expect, it } from 'vitest';
import type { BlockStore } from '../../ports/block-store.ts';
import { BUFFER, driveWithQueue } from '../testing/nvme-driver.ts';

const OUTSIDE = 0x100_0000;

describe('I/O commands (6)', () => {
  const rw = (opcode: number, block: number, count: number, prp1 = BUFFER, prp2 = 0) => ({
    ...{ opcode, nsid: 1, prp1, prp2 },
    words: [block, 0, count - 1],
  });

  it('write, read, compare, write zeroes, flush', () => {
    const { run, memory } = driveWithQueue();
    memory.fill(0xab, BUFFER, BUFFER + 1024);
    expect(run(1, rw(1, 5, 2)).status).toBe(0);
    expect([run(1, rw(5, 5, 2)).status, run(1, rw(5, 6, 2)).status]).toEqual([0, 0x285]);
    expect(run(1, rw(8, 6, 1)).status).toBe(0);
    memory.fill(1, BUFFER, BUFFER + 2048);
    expect(run(1, rw(2, 4, 4)).status).toBe(0);
    expect([0, 511, 512, 1023, 1024, 2047].map((at) => memory[BUFFER + at])).toEqual([0, 0, 0xab, 0xab, 0, 0]);
    expect([run(1, { opcode: 0, nsid: 1 }).status, run(1, { opcode: 0, nsid: 0xffff_ffff }).status]).toEqual([0, 0]);
  });

  it('moves data by PRP lists that start within a page and go on in another list', () => {
    const { run, memory, view } = driveWithQueue({ blockSize: 4096 });
    const pages = [0x2_1000, 0x2_3000, 0x2_2000, 0x2_8000];
    // The list begins in the last two slots of its page: one page, then the address of the next list.
    const list = 0x3_0ff0;
    view.setBigUint64(list, BigInt(pages[1]), true);
    view.setBigUint64(list + 8, 0x3_2000n, true);
    view.setBigUint64(0x3_2000, BigInt(pages[2]), true);
    view.setBigUint64(0x3_2008, BigInt(pages[3]), true);
    const first = pages[0] + 0x800;
    const places = [first, ...pages.slice(1)];
    const lengths = [0x800, 0x1000, 0x1000, 0x800];
    for (const [i, place] of places.entries()) memory.fill(i + 1, place, place + lengths[i]);
    expect(run(1, rw(1, 0, 3, first, list)).status).toBe(0);
    expect(run(1, rw(2, 0, 1, BUFFER)).status).toBe(0);
    expect([memory[BUFFER], memory[BUFFER + 0x7ff], memory[BUFFER + 0x800], memory[BUFFER + 0xfff]]).toEqual([
      1, 1, 2, 2,
    ]);
    for (const [i, place] of places.entries()) memory.fill(0, place, place + lengths[i]);
    expect(run(1, rw(2, 0, 3, first, list)).status).toBe(0);
    expect(places.map((place, i) => [memory[place], memory[place + lengths[i] - 1]])).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
      [4, 4],
    ]);
  });

  it('deallocates ranges, and refuses all of them for one beyond the end', () => {
    const { run, memory, view } = driveWithQueue({ size: '1M' });
    memory.fill(7, BUFFER, BUFFER + 512);
    for (const block of [0, 9]) run(1, rw(1, block, 1));
    const range = (index: number, block: number, count: number): void => {
      view.setUint32(BUFFER + 0x1000 + index * 16 + 4, count, true);
      view.setBigUint64(BUFFER + 0x1000 + index * 16 + 8, BigInt(block), true);
    };
    const deallocate = (count: number, attributes: number): number =>
      run(1, { opcode: 9, nsid: 1, prp1: BUFFER + 0x1000, words: [count - 1, attributes] }).status;
    const first = (block: number): number => {
      run(1, rw(2, block, 1, BUFFER + 0x2000));
      return memory[BUFFER + 0x2000];
    };
    range(0, 0, 4);
    range(1, 2047, 2);
    expect([deallocate(2, 4), first(0)]).toEqual([0x80, 7]);
    range(1, 9, 1);
    expect([deallocate(2, 1), first(0)]).toEqual([0, 7]);
    expect([deallocate(2, 4), first(0), first(9)]).toEqual([0, 0, 0]);
  });

  it.each([
    ['opcode', { opcode: 0x55, nsid: 1 }, 0x01],
    ['namespace', { ...rw(2, 0, 1), nsid: 2 }, 0x0b],
    ['all namespaces', { ...rw(2, 0, 1), nsid: 0xffff_ffff }, 0x0b],
    ['a fused command', { ...rw(2, 0, 1), flags: 1 }, 0x02],
    ['an SGL', { ...rw(2, 0, 1), flags: 0x40 }, 0x02],
    ['one block beyond the end', rw(2, 2047, 2), 0x80],
    ['block 2^32', { opcode: 2, nsid: 1, prp1: BUFFER, words: [0, 1, 0] }, 0x80],
    ['more than MDTS', rw(2, 0, 1025), 0x02],
    ['PRP1 at an odd byte', rw(2, 0, 1, BUFFER + 1), 0x13],
    ['PRP2 within a page', rw(2, 0, 16, BUFFER, BUFFER + 0x1200), 0x13],
    ['a list at an odd place', rw(2, 0, 32, BUFFER, BUFFER + 0x1204), 0x13],
    ['data where nothing is', rw(2, 0, 1, OUTSIDE), 0x04],
    ['data from where nothing is', rw(1, 0, 1, OUTSIDE), 0x04],
    ['a list where nothing is', rw(2, 0, 32, BUFFER, OUTSIDE), 0x04],
    ['an address of 2^63', rw(2, 0, 1, 2 ** 63), 0x04],
  ])('refuses %s', (_, entry, status) => {
    const { run } = driveWithQueue({ size: '1M' });
    expect(run(1, entry).status).toBe(status);
  });

  it('ends a list that leads to itself', () => {
    const { run, view } = driveWithQueue();
    view.setBigUint64(0x3_0ff8, 0x3_0ff8n, true);
    expect(run(1, rw(2, 0, 64, BUFFER, 0x3_0ff8)).status).toBe(0x13);
  });

  it('a medium that fails, and one that is not to be written', () => {
    const broken: BlockStore = {
      size: 2 ** 20,
      read: () => false,
      write: () => false,
      zero: () => false,
      flush: () => false,
    };
    const { run, view } = driveWithQueue({}, { store: broken });
    const flush = { opcode: 0, nsid: 1 };
    expect([rw(1, 0, 1), rw(2, 0, 1), rw(5, 0, 1), rw(8, 0, 1), flush].map((entry) => run(1, entry).status)).toEqual([
      0x280, 0x281, 0x281, 0x280, 0x280,
    ]);
    run(0, { opcode: 2, prp1: BUFFER, words: [0x007f_0002] });
    expect(view.getBigUint64(BUFFER + 160, true)).toBe(4n);
    const safe = driveWithQueue({ readOnly: true });
    expect([rw(1, 0, 1), rw(8, 0, 1), rw(2, 0, 1)].map((entry) => safe.run(1, entry).status)).toEqual([0x20, 0x20, 0]);
    safe.run(0, { opcode: 6, nsid: 1, prp1: BUFFER, words: [0] });
    expect(safe.memory[BUFFER + 99]).toBe(1);
  });

  it('a command id in use is refused, and the first one goes on', () => {
    const { put, ring, drain, take } = driveWithQueue();
    put(1, { ...rw(2, 0, 1), id: 5 });
    put(1, { ...rw(2, 0, 1), id: 5 });
    ring(1);
    drain();
    expect(
      take(1)
        .map(({ status }) => status)
        .sort(),
    ).toEqual([0, 3]);
  });
});
