import { describe, expect, it } from 'vitest';
import type { PinnedPages } from '../ports/process.ts';
import type { FileMapping } from './files.ts';
import { testContext } from './test-context.ts';
import { SimUserMemory } from './user-memory.ts';

const EFAULT = -14;

function setUp(pageSize = 4096) {
  const context = testContext({ pageSize });
  return { context, memory: new SimUserMemory(context.memory, pageSize), before: context.memory.allocated };
}

const bar = (pa: number, length: number, closed: string[] = []): FileMapping => ({
  pa,
  length,
  deviceMemory: true,
  open: () => {
    throw new Error('not opened here');
  },
  close: () => closed.push('closed'),
});

describe('user memory', () => {
  it('is zeroed, page aligned, and one view of the machine that copies see too', () => {
    const { memory } = setUp();
    const address = memory.allocate(10_000);
    expect(address % 4096).toBe(0);
    const view = memory.view(address, 12_288)!;
    expect(view.every((byte) => byte === 0)).toBe(true);
    expect(memory.copyOut(address + 5000, Uint8Array.of(1, 2, 3))).toBe(true);
    expect([...view.subarray(5000, 5003)]).toEqual([1, 2, 3]);
    view[4096] = 9;
    const into = new Uint8Array(1);
    expect(memory.copyIn(address + 4096, into)).toBe(true);
    expect(into[0]).toBe(9);
  });

  it('makes a large allocation without touching it, aligned for 2 MiB blocks', () => {
    const { memory } = setUp();
    const address = memory.allocate(0x1000_0000);
    const pinned = memory.pin(address, 0x1000_0000, true) as PinnedPages;
    expect(address % 0x20_0000).toBe(0);
    expect(pinned.runs).toHaveLength(1);
    expect(pinned.runs[0].pa % 0x20_0000).toBe(0);
  });

  it('is one view beyond 64 MiB too, which copies and frames agree with', () => {
    const { context, memory } = setUp();
    memory.allocate(4096);
    const length = 0xc00_0000;
    const address = memory.allocate(length);
    memory.copyOut(address + 0x7ff_fffe, Uint8Array.of(1, 2, 3, 4));
    const view = memory.view(address, length)!;
    expect([...view.subarray(0x7ff_fffe, 0x800_0002)]).toEqual([1, 2, 3, 4]);
    view[length - 4] = 9;
    const pinned = memory.pin(address, length, true) as PinnedPages;
    expect(context.memory.read32(pinned.runs[0].pa + length - 4)).toBe(9);
  });

  it('is one view up to 64 MiB, whatever was allocated before', () => {
    const { memory } = setUp();
    for (const length of [0x100_0000, 0x300_0000, 0x123_4000, 0x400_0000]) {
      const address = memory.allocate(length);
      expect(memory.view(address, length)?.length).toBe(length);
    }
  });

  it('EFAULT: beyond the mapping, below it, and writes of read-only memory', () => {
    const { memory } = setUp();
    const readOnly = memory.allocate(4096, 4096, false);
    expect(memory.copyIn(readOnly, new Uint8Array(4096))).toBe(true);
    expect(memory.copyIn(readOnly, new Uint8Array(4097))).toBe(false);
    expect(memory.copyIn(readOnly - 1, new Uint8Array(2))).toBe(false);
    expect(memory.copyOut(readOnly, new Uint8Array(1))).toBe(false);
    expect(memory.pin(readOnly, 4096, true)).toBe(EFAULT);
    expect(memory.pin(readOnly, 8192, false)).toBe(EFAULT);
    expect(typeof memory.pin(readOnly, 4096, false)).toBe('object');
    expect(memory.copyIn(0, new Uint8Array(1))).toBe(false);
    expect(memory.copyIn(Number.MAX_SAFE_INTEGER, new Uint8Array(1))).toBe(false);
  });

  it('keeps pinned frames after unmap until the last pin is released', () => {
    const { context, memory, before } = setUp();
    const address = memory.allocate(8192);
    const first = memory.pin(address, 4096, true) as PinnedPages;
    const second = memory.pin(address, 8192, true) as PinnedPages;
    expect(memory.unmap(address)).toBe(0);
    expect(memory.pin(address, 4096, true)).toBe(EFAULT);
    expect(context.memory.allocated - before).toBe(8192);
    first.release();
    first.release();
    expect(context.memory.allocated - before).toBe(8192);
    second.release();
    expect(context.memory.allocated - before).toBe(0);
  });

  it('counts pages of the kernel, and none of a BAR', () => {
    const { memory } = setUp(65536);
    const ram = memory.pin(memory.allocate(131_072), 131_072, true) as PinnedPages;
    expect([ram.accountedPages, ram.deviceMemory]).toEqual([2, false]);
    const closed: string[] = [];
    const address = memory.mapFile(bar(0x1000_0000, 65536, closed), true);
    const device = memory.pin(address, 65536, true) as PinnedPages;
    expect([device.accountedPages, device.deviceMemory, device.runs]).toEqual([
      0,
      true,
      [{ pa: 0x1000_0000, length: 65536 }],
    ]);
    memory.unmap(address);
    expect(closed).toEqual(['closed']);
  });

  it('never places a mapping on an address that was used before', () => {
    const { memory } = setUp();
    const address = memory.allocate(4096);
    memory.unmap(address);
    expect(memory.allocate(4096)).not.toBe(address);
    expect(memory.unmap(address)).toBe(-22);
  });

  it('ENOMEM: more than the machine has', () => {
    const { memory } = setUp();
    expect(memory.allocate(0x4000_0000)).toBe(-12);
  });

  it('gives a child copies at the same addresses', () => {
    const { context, memory } = setUp();
    const address = memory.allocate(4096);
    memory.copyOut(address, Uint8Array.of(5));
    const child = new SimUserMemory(context.memory, 4096);
    expect(memory.copyTo(child)).toBe(true);
    memory.copyOut(address, Uint8Array.of(6));
    const into = new Uint8Array(1);
    child.copyIn(address, into);
    expect(into[0]).toBe(5);
  });

  it('shares what a file maps with a child, and closes it with the last one', () => {
    const { context, memory } = setUp();
    const closed: string[] = [];
    const address = memory.mapFile(bar(0x1000_0000, 4096, closed), true);
    const child = new SimUserMemory(context.memory, 4096);
    memory.copyTo(child);
    memory.unmapAll();
    expect(closed).toEqual([]);
    expect((child.pin(address, 4096, true) as PinnedPages).runs).toEqual([{ pa: 0x1000_0000, length: 4096 }]);
    child.unmap(address);
    expect(closed).toEqual(['closed']);
  });
});
