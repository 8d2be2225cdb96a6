import { afterAll, describe, expect, it } from 'vitest';
import { Libc, LibcUnavailable } from './index.ts';
import { PollSet } from './poll-set.ts';
import { makePipe } from './spawn.ts';

const libc = await Libc.load().catch((error: unknown) => {
  if (error instanceof LibcUnavailable) return null;
  throw error;
});

describe.skipIf(libc === null)('PollSet', () => {
  const c = libc as Libc;
  const open: number[] = [];
  const eventfd = (count: number): number => {
    const fd = c.eventfd(count);
    open.push(fd);
    return fd;
  };
  afterAll(() => {
    for (const fd of open) c.close(fd);
  });

  it('tells which of them can be read, and leaves out what is not there', () => {
    const [idle, busy] = [eventfd(0), eventfd(1)];
    const set = new PollSet(c, [idle, -1, busy]);
    expect(set.wait(-1)).toBe(1);
    expect([0, 1, 2].map((index) => set.ready(index))).toEqual([false, false, true]);
    c.eventfdRead(busy);
    expect(set.wait(0)).toBe(0);
    set.set(1, eventfd(3));
    expect(set.wait(-1)).toBe(1);
    expect([0, 1, 2].map((index) => set.ready(index))).toEqual([false, true, false]);
    set.set(1, -1);
    expect(set.ready(1)).toBe(false);
    expect(set.wait(0)).toBe(0);
  });

  it('tells a hang-up from something to read', () => {
    const ends = makePipe(c);
    if (typeof ends === 'number') throw new Error(`errno ${-ends}`);
    const [from, to] = ends;
    open.push(from);
    const set = new PollSet(c, [from]);
    c.write(to, new Uint8Array(1));
    c.close(to);
    expect(set.wait(0)).toBe(1);
    expect([set.ready(0), set.hungUp(0)]).toEqual([true, false]);
    c.read(from, new Uint8Array(1));
    expect(set.wait(0)).toBe(1);
    expect([set.ready(0), set.hungUp(0)]).toEqual([false, true]);
  });
});
