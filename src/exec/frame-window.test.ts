import { describe, expect, it } from 'vitest';
import { RamMemory } from '../machine/memory.ts';
import { FrameWindow, type PageSource } from './frame-window.ts';

class Bytes implements PageSource {
  readonly identity: { readonly object: string; readonly at: number };
  readonly bytes: Uint8Array;
  released = 0;

  constructor(object: string, size: number) {
    this.identity = { object, at: 0x3000 };
    this.bytes = new Uint8Array(size);
  }

  read(offset: number, into: Uint8Array): boolean {
    into.set(this.bytes.subarray(offset, offset + into.length));
    return true;
  }

  write(offset: number, from: Uint8Array): boolean {
    this.bytes.set(from, offset);
    return true;
  }

  release(): void {
    this.released += 1;
  }
}

function windowed() {
  const memory = new RamMemory([{ base: 0, size: 2 ** 26 }]);
  return { memory, window: new FrameWindow(memory) };
}

describe('the window of pinned pages', () => {
  it('is memory to devices while pages are pinned, and nothing afterwards', () => {
    const { memory, window } = windowed();
    const source = new Bytes('a', 0x2000);
    const frames = window.add(0x2000, source);
    expect(frames).not.toBeNull();
    if (frames === null) return;
    expect(memory.write(frames.pa + 0xffe, Uint8Array.of(1, 2, 3, 4))).toBe(true);
    expect([...source.bytes.subarray(0xffe, 0x1002)]).toEqual([1, 2, 3, 4]);
    expect(memory.read32(frames.pa + 0x1000)).toBe(0x0403);
    expect(window.pinned).toBe(0x2000);
    expect(window.identity(frames.pa + 0x1008)).toEqual({ object: 'a', at: 0x4008 });
    window.remove(frames);
    window.remove(frames);
    expect(source.released).toBe(1);
    expect(window.pinned).toBe(0);
    expect(window.identity(frames.pa)).toBeNull();
    expect(memory.write(frames.pa, Uint8Array.of(1))).toBe(false);
  });

  it('an access over two pins reaches both, and one into a gap none of what follows', () => {
    const { memory, window } = windowed();
    const [a, b] = [new Bytes('a', 0x1000), new Bytes('b', 0x1000)];
    const first = window.add(0x1000, a);
    const second = window.add(0x1000, b);
    if (first === null || second === null) throw new Error('no frames');
    expect(second.pa).toBe(first.pa + 0x1000);
    memory.write(second.pa - 2, Uint8Array.of(1, 2, 3, 4));
    expect([...a.bytes.subarray(0xffe), ...b.bytes.subarray(0, 2)]).toEqual([1, 2, 3, 4]);
    expect(window.pins()).toEqual([
      { object: 'a', at: 0x3000, length: 0x1000 },
      { object: 'b', at: 0x3000, length: 0x1000 },
    ]);
    window.remove(first);
    expect(memory.read(first.pa + 0xffe, new Uint8Array(4))).toBe(false);
    expect(memory.read(second.pa, new Uint8Array(4))).toBe(true);
  });
});
