/** Pages of a file that a device has pinned, when the program cuts the file: on real memfds. */
import { ftruncateSync, readSync, writeSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Libc, LibcUnavailable } from '../libc/index.ts';
import { RamMemory } from '../machine/memory.ts';
import { FrameWindow } from './frame-window.ts';
import { isMemory, MemoryFile } from './memory-file.ts';
import { SharedPages } from './page-sources.ts';

const PAGE = 4096;
const libc = await Libc.load().catch((error: unknown) => {
  if (error instanceof LibcUnavailable) return null;
  throw error;
});

function pinned(pages: number) {
  const fd = libc!.memfd('cut', pages * PAGE);
  const source = SharedPages.ofFile(libc!, fd, 'file', 0, pages * PAGE, true);
  if (source === null) throw new Error('not mapped');
  const memory = new RamMemory([{ base: 0, size: 2 ** 26 }]);
  const window = new FrameWindow(memory);
  const frames = window.add(pages * PAGE, source)!;
  const word = (page: number): number => memory.read32(frames.pa + page * PAGE);
  const ofFile = (page: number): number => {
    const bytes = new Uint8Array(4);
    readSync(fd, bytes, 0, 4, page * PAGE);
    return new DataView(bytes.buffer).getUint32(0, true);
  };
  return { fd, window, memory, frames, word, ofFile };
}

describe.skipIf(libc === null)('a file that loses pages under a device', () => {
  it('the device keeps what it had and writes there; the rest stays the file’s', () => {
    const { fd, window, memory, frames, word, ofFile } = pinned(4);
    for (let page = 0; page < 4; page += 1) memory.write32(frames.pa + page * PAGE, 0x10 + page);
    window.aboutToLose('file', PAGE + 8, Number.POSITIVE_INFINITY);
    ftruncateSync(fd, PAGE + 8);
    expect([0, 1, 2, 3].map(word)).toEqual([0x10, 0x11, 0x12, 0x13]);
    memory.write32(frames.pa + 2 * PAGE, 0x99);
    memory.write32(frames.pa, 0x77);
    ftruncateSync(fd, 4 * PAGE);
    expect([word(2), ofFile(2), ofFile(0)]).toEqual([0x99, 0, 0x77]);
    const across = new Uint8Array(2 * PAGE);
    expect([memory.read(frames.pa + PAGE, across), across[0], across[PAGE]]).toEqual([true, 0x11, 0x99]);
    across.fill(5);
    expect([memory.write(frames.pa + PAGE, across), ofFile(1), word(2)]).toEqual([true, 0x0505_0505, 0x0505_0505]);
    window.remove(frames);
    libc!.close(fd);
  });

  it('holes come one after the other, and what was kept is kept once', () => {
    const { fd, window, memory, frames, word } = pinned(4);
    memory.write32(frames.pa + PAGE, 1);
    memory.write32(frames.pa + 3 * PAGE, 3);
    window.aboutToLose('file', PAGE, PAGE);
    memory.write32(frames.pa + PAGE, 11);
    window.aboutToLose('file', 3 * PAGE, PAGE);
    window.aboutToLose('other', 0, 4 * PAGE);
    window.aboutToLose('file', 0, Number.POSITIVE_INFINITY);
    ftruncateSync(fd, 0);
    expect([0, 1, 2, 3].map(word)).toEqual([0, 11, 0, 3]);
    window.remove(frames);
    libc!.close(fd);
  });

  it('memfds are memory, other files are not; pages beyond the last byte cannot be pinned', () => {
    const fd = libc!.memfd('kind', 2 * PAGE - 1);
    expect([isMemory(`/proc/self/fd/${fd}`), isMemory('/proc/self/exe'), isMemory('/nowhere')]).toEqual([
      true,
      false,
      false,
    ]);
    const window = new FrameWindow(new RamMemory([{ base: 0, size: 2 ** 26 }]));
    const file = new MemoryFile(libc!, window, 'kind', fd);
    expect([file.pin(PAGE, PAGE, true), file.pin(2 * PAGE, PAGE, true)]).toEqual([-22, -22]);
    const held = file.pin(0, PAGE, true);
    if (typeof held === 'number') throw new Error(`${held}`);
    writeSync(fd, new Uint8Array([7]), 0, 1, 3);
    expect(held.accountedPages).toBe(1);
    held.release();
    file.release();
  });
});
