/** memfds: flags and seals by their errno (mm/memfd.c), what a cut leaves (mm/shmem.c), and pages that devices hold (mm/gup.c memfd_pin_folios). */
import { describe, expect, it } from 'vitest';
import { errnoName } from '../uapi/errno.ts';
import {
  F_ADD_SEALS,
  F_GET_SEALS,
  F_SEAL_EXEC,
  F_SEAL_FUTURE_WRITE,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  F_SEAL_WRITE,
} from '../uapi/fcntl.ts';
import { MFD_ALLOW_SEALING, MFD_EXEC, MFD_HUGE_SHIFT, MFD_HUGETLB, MFD_NOEXEC_SEAL } from '../uapi/memfd.ts';
import { BusError } from './bus-error.ts';
import { SimKernelClient } from './client.ts';
import { SimKernel } from './kernel.ts';
import { MemfdFile } from './memfd.ts';
import { testContext } from './test-context.ts';

const PAGE = 4096;
const HUGE = 0x20_0000;
const named = (result: number): number | string => (result < 0 ? errnoName(result) : result);

function setUp() {
  const kernel = new SimKernel(testContext());
  const client = new SimKernelClient(kernel);
  const { process } = client;
  const calls = kernel.syscalls;
  const create = (flags = 0, length = 0): { fd: number; file: MemfdFile } => {
    const fd = calls.memfdCreate(process, 'memory', flags);
    const file = process.file(fd);
    if (!(file instanceof MemfdFile)) throw new Error(`${fd}`);
    if (length > 0) calls.ftruncate(process, fd, length);
    return { fd, file };
  };
  const cut = (fd: number, length: number) => named(calls.ftruncate(process, fd, length));
  const seal = (fd: number, seals: number) => named(calls.fcntl(process, fd, F_ADD_SEALS, seals));
  const seals = (fd: number) => named(calls.fcntl(process, fd, F_GET_SEALS));
  const map = (fd: number, length: number, access: 'r' | 'rw' = 'rw', offset = 0) => {
    const mapping = client.mmap(fd, offset, length, access);
    if (typeof mapping === 'number') throw new Error(errnoName(mapping));
    return mapping;
  };
  return { kernel, client, process, calls, create, cut, seal, seals, map, memory: kernel.context.memory };
}

describe('memfd_create', () => {
  it('EINVAL unknown flags, flags that exclude each other, a long name; ENODEV huge pages of another size', () => {
    const { calls, process } = setUp();
    const create = (flags: number, name = 'x') => named(calls.memfdCreate(process, name, flags));
    expect([create(0x20), create(21 << MFD_HUGE_SHIFT)]).toEqual(['EINVAL', 'EINVAL']);
    expect(create(MFD_EXEC | MFD_NOEXEC_SEAL, 'x'.repeat(250))).toBe('EINVAL');
    expect([create(0, 'x'.repeat(250)), create(0, 'x'.repeat(249)), create(0, '')]).toEqual(['EINVAL', 0, 1]);
    expect(create(MFD_HUGETLB | (30 << MFD_HUGE_SHIFT))).toBe('ENODEV');
    expect([create(MFD_HUGETLB), create(MFD_HUGETLB | (21 << MFD_HUGE_SHIFT))]).toEqual([2, 3]);
    process.limits.nofile = 4;
    expect(create(0)).toBe('EMFILE');
  });

  it('the file has its name and mode, no bytes, and its seals as it was made', () => {
    const { calls, process, create, seals } = setUp();
    const made = [0, MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL].map((flags) => create(flags));
    expect(made[0]?.file.name).toBe('/memfd:memory (deleted)');
    expect(made.map(({ fd }) => calls.fstat(process, fd))).toEqual([
      { mode: 0o100777, size: 0 },
      { mode: 0o100777, size: 0 },
      { mode: 0o100666, size: 0 },
    ]);
    expect(made.map(({ fd }) => seals(fd))).toEqual([F_SEAL_SEAL, 0, F_SEAL_EXEC]);
  });
});

describe('bytes', () => {
  it('reads, writes, seeks; holes are zeros and take no memory', () => {
    const { client, calls, process, create, memory } = setUp();
    const before = memory.allocated;
    const { fd, file } = create(0, 2 ** 40);
    const bytes = new Uint8Array(8).fill(9);
    expect([client.pread(fd, bytes, 2 ** 39), bytes.every((byte) => byte === 0)]).toEqual([8, true]);
    expect(client.pread(fd, bytes, 2 ** 40 - 3)).toBe(3);
    expect(client.pread(fd, bytes, 2 ** 40)).toBe(0);
    expect(file.resident).toBe(0);
    const small = create().fd;
    expect(client.pwrite(small, Uint8Array.of(1, 2, 3), PAGE - 1)).toBe(3);
    expect(client.pread(small, bytes, PAGE - 2)).toBe(4);
    expect([...bytes.subarray(0, 4)]).toEqual([0, 1, 2, 3]);
    const seek = (offset: number, whence: number) => named(calls.lseek(process, small, offset, whence));
    expect([seek(0, 2), seek(-2, 1), seek(5, 0), seek(-6, 1), seek(0, 9)]).toEqual([
      PAGE + 2,
      PAGE,
      5,
      'EINVAL',
      'EINVAL',
    ]);
    client.close(fd);
    client.close(small);
    // Frames of the page that calls pass through are the process's own.
    process.exit();
    expect(memory.allocated).toBe(before);
  });

  it('a mapping is the file: shared by processes, alive after close, SIGBUS beyond the end', () => {
    const { client, kernel, process, create, map, cut } = setUp();
    const { fd, file } = create(0, 2 * PAGE);
    const mapping = map(fd, 3 * PAGE);
    mapping.write32(PAGE, 0x1234);
    expect([file.resident, mapping.read32(PAGE)]).toEqual([2 * PAGE, 0x1234]);
    expect(() => mapping.read32(2 * PAGE)).toThrow(BusError);
    expect(() => mapping.bytes).toThrow(BusError);
    expect(process.memory.copyIn(mapping.address + 2 * PAGE, new Uint8Array(1))).toBe(false);
    const child = kernel.fork(process)!;
    client.close(fd);
    child.memory.copyOut(mapping.address, Uint8Array.of(7));
    expect(mapping.read32(0)).toBe(7);
    expect(cut(fd, 0)).toBe('EBADF');
    mapping.unmap();
    kernel.exit(child);
  });

  it('a cut takes pages away, zeroes the rest of the last one, and growing again brings new ones', () => {
    const { create, map, cut, process } = setUp();
    const { fd, file } = create(0, 4 * PAGE);
    const { bytes, address } = map(fd, 4 * PAGE);
    bytes!.fill(0xff);
    expect([cut(fd, PAGE + 16), file.resident]).toEqual([0, 2 * PAGE]);
    const seen = new Uint8Array(PAGE);
    expect(process.memory.copyIn(address + PAGE, seen)).toBe(true);
    expect([seen[15], seen[16], seen[PAGE - 1]]).toEqual([0xff, 0, 0]);
    expect(process.memory.copyIn(address + 2 * PAGE, seen)).toBe(false);
    expect(cut(fd, 4 * PAGE)).toBe(0);
    expect([process.memory.copyIn(address + 3 * PAGE, seen), seen[0]]).toEqual([true, 0]);
    expect(bytes![3 * PAGE]).toBe(0xff);
  });

  it('EINVAL negative lengths and files that are not regular, EFBIG, EBADF', () => {
    const { client, calls, process, create, cut } = setUp();
    const { fd } = create();
    const event = client.eventfd();
    if (typeof event === 'number') throw new Error();
    expect([cut(fd, -1), cut(fd, 2 ** 52 + 4096), cut(event.fd, 0), cut(77, 0)]).toEqual([
      'EINVAL',
      'EFBIG',
      'EINVAL',
      'EBADF',
    ]);
    expect([named(calls.lseek(process, event.fd, 0, 0)), named(calls.fcntl(process, event.fd, F_GET_SEALS))]).toEqual([
      'ESPIPE',
      'EINVAL',
    ]);
    expect(calls.fstat(process, event.fd)).toBeNull();
  });
});

describe('huge pages', () => {
  it('whole ones alone: ftruncate, mmap; no write(2); a writable mapping makes the file as long as it is', () => {
    const { client, create, cut, map, memory } = setUp();
    const { fd, file } = create(MFD_HUGETLB);
    expect([cut(fd, PAGE), cut(fd, HUGE)]).toEqual(['EINVAL', 0]);
    expect(named(client.pwrite(fd, Uint8Array.of(1), 0))).toBe('EINVAL');
    expect(named(client.mmap(fd, PAGE, PAGE) as number)).toBe('EINVAL');
    const mapping = map(fd, HUGE + PAGE);
    expect([file.size, mapping.length]).toEqual([2 * HUGE, HUGE + PAGE]);
    mapping.write32(HUGE, 1);
    expect(file.locate(0)!.pa % HUGE).toBe(0);
    expect(memory.covers(file.locate(0)!.pa, 2 * HUGE)).toBe(true);
  });
});

describe('seals', () => {
  it('EINVAL unknown ones, EPERM once SEAL is set; they only grow', () => {
    const { create, seal, seals } = setUp();
    const { fd } = create(MFD_ALLOW_SEALING);
    expect(seal(fd, 0x40)).toBe('EINVAL');
    expect([seal(fd, F_SEAL_GROW), seal(fd, F_SEAL_SEAL), seals(fd)]).toEqual([0, 0, F_SEAL_GROW | F_SEAL_SEAL]);
    expect([seal(fd, F_SEAL_SHRINK), seal(create().fd, F_SEAL_GROW)]).toEqual(['EPERM', 'EPERM']);
    const { fd: executable } = create(MFD_ALLOW_SEALING | MFD_EXEC);
    expect([seal(executable, F_SEAL_EXEC), seals(executable)]).toEqual([0, 0x3e]);
  });

  it('forbid what they name', () => {
    const { client, create, seal, cut, map } = setUp();
    const { fd } = create(MFD_ALLOW_SEALING, 2 * PAGE);
    expect([seal(fd, F_SEAL_SHRINK), cut(fd, PAGE), cut(fd, 3 * PAGE)]).toEqual([0, 'EPERM', 0]);
    expect([seal(fd, F_SEAL_GROW), cut(fd, 4 * PAGE), cut(fd, 3 * PAGE)]).toEqual([0, 'EPERM', 0]);
    expect(named(client.pwrite(fd, Uint8Array.of(1, 2), 3 * PAGE - 1))).toBe('EPERM');
    expect(client.pwrite(fd, Uint8Array.of(1), 3 * PAGE - 1)).toBe(1);
    const writable = map(fd, PAGE);
    expect([seal(fd, F_SEAL_WRITE), seal(fd, F_SEAL_FUTURE_WRITE)]).toEqual(['EBUSY', 0]);
    expect([named(client.pwrite(fd, Uint8Array.of(1), 0)), named(client.mmap(fd, 0, PAGE) as number)]).toEqual([
      'EPERM',
      'EPERM',
    ]);
    writable.write32(0, 5);
    const reader = map(fd, PAGE, 'r');
    expect([reader.read32(0), seal(fd, F_SEAL_WRITE)]).toEqual([5, 'EBUSY']);
    writable.unmap();
    expect(seal(fd, F_SEAL_WRITE)).toBe(0);
  });

  it('WRITE waits for no device: EBUSY while a page is pinned, not for one that the file has forgotten', () => {
    const { create, seal, cut } = setUp();
    const { fd, file } = create(MFD_ALLOW_SEALING, 4 * PAGE);
    const [front, back] = [file.pin(0, PAGE, false), file.pin(2 * PAGE, 2 * PAGE, true)];
    if (typeof front === 'number' || typeof back === 'number') throw new Error();
    expect(seal(fd, F_SEAL_WRITE)).toBe('EBUSY');
    front.release();
    expect(seal(fd, F_SEAL_WRITE)).toBe('EBUSY');
    expect([cut(fd, 2 * PAGE), seal(fd, F_SEAL_WRITE)]).toEqual([0, 0]);
    back.release();
  });
});

describe('pinned pages', () => {
  it('EINVAL beyond the last byte of the file, even within its last page', () => {
    const { create } = setUp();
    const { file } = create(0, 2 * PAGE + 1);
    expect([file.pin(2 * PAGE, PAGE, false), file.pin(PAGE, 2 * PAGE, false)]).toEqual([-22, -22]);
    const pinned = file.pin(0, 2 * PAGE, false);
    expect(pinned).toMatchObject({ accountedPages: 2, deviceMemory: false });
  });

  it('outlive a cut, the file, and a mapping that they were pinned through', () => {
    const { client, create, cut, map, memory, process } = setUp();
    const { fd, file } = create(0, 2 * PAGE);
    const mapping = map(fd, 2 * PAGE);
    mapping.write32(PAGE, 0xabc);
    const before = memory.allocated;
    const byFile = file.pin(PAGE, PAGE, true);
    const byAddress = process.memory.pin(mapping.address + PAGE, PAGE, true);
    if (typeof byFile === 'number' || typeof byAddress === 'number') throw new Error();
    expect(byFile.runs).toEqual(byAddress.runs);
    expect(cut(fd, 0)).toBe(0);
    mapping.unmap();
    client.close(fd);
    expect([memory.read32(byFile.runs[0]!.pa), memory.allocated]).toEqual([0xabc, before]);
    byAddress.release();
    expect(memory.allocated).toBe(before);
    byFile.release();
    expect(memory.allocated).toBe(before - 2 * PAGE);
  });

  it('a device and the file’s mappings see the same bytes', () => {
    const { create, map, memory, process } = setUp();
    const { fd, file } = create(0, PAGE);
    const pinned = file.pin(0, PAGE, true);
    if (typeof pinned === 'number') throw new Error();
    memory.write32(pinned.runs[0]!.pa + 8, 0x77);
    const mapping = map(fd, PAGE);
    expect([
      mapping.read32(8),
      new DataView(mapping.bytes!.buffer, mapping.bytes!.byteOffset).getUint32(8, true),
    ]).toEqual([0x77, 0x77]);
    expect(process.memory.view(mapping.address, PAGE)?.[8]).toBe(0x77);
    pinned.release();
  });
});
