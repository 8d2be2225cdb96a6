import { describe, expect, it } from 'vitest';
import { MemoryFile } from './memory-file.ts';
import { caught } from './testing/caught.ts';
import { ScriptedKernel } from './testing/scripted-kernel.ts';

describe('a memory file', () => {
  it('is made of whole pages, mapped once, and closed with its mapping', () => {
    const kernel = new ScriptedKernel();
    const memory = MemoryFile.create(kernel, { length: 4097, name: 'guest' });
    expect([memory.length, memory.label]).toEqual([8192, 'memory file guest']);
    expect(memory.mapping).toBe(memory.mapping);
    memory.close();
    expect(kernel.log).toEqual(['memfd(guest, 8192) = 3', 'mmap 0x2000 at 0x0', 'munmap', 'close(/memfd:guest)']);
    expect(caught(() => memory.mapping).code).toBe('EBADF');
  });

  it('that the kernel does not make, or does not map', () => {
    const full = new ScriptedKernel();
    full.memfd = () => -24;
    expect(caught(() => MemoryFile.create(full, { length: 1 }))).toMatchObject({
      code: 'EMFILE',
      request: 'memfd_create',
    });
    const kernel = new ScriptedKernel();
    kernel.mmap = () => -12;
    const memory = MemoryFile.create(kernel, { length: 1 });
    for (const use of [() => memory.mapping, () => memory.bytes])
      expect(caught(use)).toMatchObject({ code: 'ENOMEM', request: 'mmap' });
    memory.close();
    expect(kernel.openPaths).toEqual([]);
  });
});
