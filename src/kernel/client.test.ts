import { describe, expect, it } from 'vitest';
import type { Mapping } from '../ports/kernel.ts';
import { SimKernelClient } from './client.ts';
import type { File, FileMapping } from './files.ts';
import { SimKernel } from './kernel.ts';
import type { Process } from './process.ts';
import { testContext } from './test-context.ts';

function registers(values: Uint32Array, closed: string[]): FileMapping {
  const open = (address: number): Mapping => ({
    address,
    length: 4096,
    bytes: null,
    read32: (offset) => values[offset / 4],
    write32: (offset, value) => {
      values[offset / 4] = value;
    },
    unmap: () => closed.push('unmap'),
  });
  return { pa: 0x1000_0000, length: 4096, deviceMemory: true, open, close: () => closed.push('close') };
}

function setUp() {
  const context = testContext();
  const kernel = new SimKernel(context);
  const closed: string[] = [];
  const values = new Uint32Array(1024);
  const seen: bigint[] = [];
  const file: File = {
    name: 'test',
    kind: 'device',
    ioctl(process: Process, request: number, argument: bigint): number {
      seen.push(argument);
      if (request === 1) return context.refusals.refuse('EINVAL', 'as asked', 'x');
      if (request === 2) {
        const bytes = new Uint8Array(4);
        process.memory.copyIn(Number(argument), bytes);
        process.memory.copyOut(Number(argument), bytes.reverse());
        return 7;
      }
      return process.memory.copyIn(Number(argument) + 4, new Uint8Array(1)) ? 0 : -14;
    },
    mmap: () => registers(values, closed),
    release: () => closed.push('release'),
  };
  kernel.mount('/dev/test', { kind: 'device', mode: 0o600, uid: 0, open: () => file });
  const client = new SimKernelClient(kernel);
  return { context, kernel, client, closed, values, seen, fd: client.open('/dev/test') };
}

describe('the Kernel port of a simulated process', () => {
  it('copies structs through the process and back, and passes integers as they are', () => {
    const { client, fd, seen } = setUp();
    const bytes = Uint8Array.of(1, 2, 3, 4);
    expect(client.ioctl(fd, 2, bytes)).toBe(7);
    expect([...bytes]).toEqual([4, 3, 2, 1]);
    client.ioctl(fd, 0, -1);
    client.ioctl(fd, 0, 2n ** 63n);
    client.ioctl(fd, 0);
    expect(seen.slice(1)).toEqual([2n ** 64n - 1n, 2n ** 63n, 0n]);
    expect(() => client.ioctl(fd, 0, 0.5)).toThrow(TypeError);
  });

  it('faults where a request reads behind its struct', () => {
    const { client, fd } = setUp();
    expect(client.ioctl(fd, 0, new Uint8Array(4))).toBe(-14);
    expect(client.ioctl(fd, 0, new Uint8Array(5))).toBe(0);
    expect(client.ioctl(fd, 0, new Uint8Array(100_000))).toBe(0);
  });

  it('keeps why the last request was refused, for each process apart', () => {
    const { client, kernel, fd } = setUp();
    client.ioctl(fd, 1);
    expect(client.refusal()).toEqual({ errno: 22, code: 'EINVAL', request: 'ioctl 0x1', why: 'as asked', field: 'x' });
    const other = new SimKernelClient(kernel);
    expect(other.close(5)).toBe(-9);
    expect(client.refusal()?.code).toBe('EINVAL');
    client.ioctl(fd, 2, new Uint8Array(4));
    expect(client.refusal()).toBeNull();
  });

  it('maps registers, and throws instead of crashing once they are unmapped', () => {
    const { client, fd, values, closed } = setUp();
    expect(client.mmap(fd, 5, 4096)).toBe(-22);
    expect(client.mmap(fd, 0, 0)).toBe(-22);
    const mapping = client.mmap(fd, 0, 4096) as Mapping;
    mapping.write32(8, 5);
    expect([mapping.read32(8), values[2], mapping.bytes]).toEqual([5, 5, null]);
    expect(() => mapping.read32(4096)).toThrow(RangeError);
    expect(() => mapping.read32(2)).toThrow(RangeError);
    mapping.unmap();
    mapping.unmap();
    expect(closed).toEqual(['unmap', 'close']);
    expect(() => mapping.read32(0)).toThrow(RangeError);
    expect(() => mapping.bytes).toThrow(RangeError);
    const readOnly = client.mmap(fd, 0, 4096, 'r') as Mapping;
    expect(() => readOnly.write32(0, 1)).toThrow(TypeError);
  });

  it('takes mappings away when the process ends', () => {
    const { client, fd, kernel, closed } = setUp();
    const mapping = client.mmap(fd, 0, 4096) as Mapping;
    kernel.exit(client.process);
    expect(closed).toEqual(['close', 'release']);
    expect(() => mapping.read32(0)).toThrow(RangeError);
  });

  it('allocates memory as bytes', () => {
    const { client } = setUp();
    const buffer = client.allocate(8192, 65536);
    if (typeof buffer === 'number') throw new Error('no memory');
    expect(buffer.address % 65536).toBe(0);
    expect(buffer.bytes).toHaveLength(8192);
    buffer.bytes[8191] = 3;
    buffer.free();
    buffer.free();
    expect(() => buffer.bytes).toThrow(RangeError);
    const large = client.allocate(0x800_0000);
    if (typeof large === 'number') throw new Error('no memory');
    expect(large.bytes).toHaveLength(0x800_0000);
    expect(client.allocate(0x4000_0000)).toBe(-12);
    expect(client.refusal()).toMatchObject({ code: 'ENOMEM', field: 'length' });
    expect(() => client.allocate(0)).toThrow(RangeError);
  });
});

describe('numbers that are no request', () => {
  it('places and lengths are integers, and a count fits into 32 bits', () => {
    const { client } = setUp();
    const fd = client.memfd('numbers', 8192);
    for (const wrong of [Number.NaN, 0.5, Number.POSITIVE_INFINITY]) {
      expect(() => client.pread(fd, new Uint8Array(4), wrong)).toThrow(RangeError);
      expect(() => client.pwrite(fd, new Uint8Array(4), wrong)).toThrow(RangeError);
      expect(() => client.mmap(fd, wrong, 4096)).toThrow(RangeError);
      expect(() => client.mmap(fd, 0, wrong)).toThrow(RangeError);
      expect(() => client.eventfd(wrong)).toThrow(RangeError);
    }
    expect(() => client.eventfd(-1)).toThrow(RangeError);
    expect(() => client.eventfd(2 ** 32)).toThrow(RangeError);
  });

  /** fs/read_write.c ksys_pread64 and ksys_pwrite64 (before the descriptor), mm/mmap.c do_mmap. */
  it('a place below 0 is EINVAL, also of a bad descriptor; mapped, EOVERFLOW', () => {
    const { client } = setUp();
    const fd = client.memfd('numbers', 8192);
    for (const any of [fd, 999]) {
      expect(client.pread(any, new Uint8Array(4), -1)).toBe(-22);
      expect(client.pwrite(any, new Uint8Array(4), -1)).toBe(-22);
    }
    expect(client.refusal()?.field).toBe('offset');
    expect(client.mmap(fd, -4096, 4096)).toBe(-75);
  });
});
