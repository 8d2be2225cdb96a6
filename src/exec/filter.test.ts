import { describe, expect, it } from 'vitest';
import { buildFilter } from './filter.ts';
import { type CallName, callTable } from './numbers.ts';

const ALLOW = 0x7fff0000;
const NOTIFY = 0x7fc00000;
const range = { first: 900, end: 1024 };

/** Classic BPF (linux/filter.h), the few instructions that a seccomp filter may have and this one uses. */
function run(program: Uint8Array, data: DataView): number {
  const view = new DataView(program.buffer, program.byteOffset, program.length);
  let a = 0;
  for (let pc = 0; pc < program.length / 8; pc += 1) {
    const code = view.getUint16(8 * pc, true);
    const k = view.getUint32(8 * pc + 4, true);
    if (code === 0x06) return k;
    if (code === 0x20) a = data.getUint32(k, true);
    else if (code === 0x54) a = (a & k) >>> 0;
    else {
      const taken = code === 0x15 ? a === k : code === 0x35 ? a >= k : code === 0x45 && (a & k) !== 0;
      pc += view.getUint8(8 * pc + (taken ? 2 : 3));
    }
  }
  throw new Error('the program ran off its end');
}

function verdict(
  architecture: string,
  name: CallName | number,
  args: readonly (number | bigint)[] = [],
  audit?: number,
) {
  const table = callTable(architecture);
  if (table === null) throw new Error('no table');
  const data = new DataView(new ArrayBuffer(64));
  data.setInt32(0, typeof name === 'number' ? name : (table.numbers[name] ?? -1), true);
  data.setUint32(4, audit ?? table.audit, true);
  for (const [i, value] of args.entries()) data.setBigUint64(16 + 8 * i, BigInt.asUintN(64, BigInt(value)), true);
  return run(buildFilter(table, range), data);
}

describe.each(['x64', 'arm64'])('the filter of %s', (architecture) => {
  it('stops on descriptors of simulated files alone', () => {
    const names = [
      'read',
      'write',
      'readv',
      'lseek',
      'fstat',
      'dup',
      'pread64',
      'preadv2',
      'pwritev2',
      'ioctl',
    ] as const;
    for (const name of names) {
      expect(verdict(architecture, name, [899])).toBe(ALLOW);
      expect(verdict(architecture, name, [900])).toBe(NOTIFY);
      expect(verdict(architecture, name, [1023])).toBe(NOTIFY);
      expect(verdict(architecture, name, [1024])).toBe(ALLOW);
      expect(verdict(architecture, name, [-1])).toBe(ALLOW);
    }
  });

  it('stops on what is written to standard output, which a shell may have redirected', () => {
    expect(verdict(architecture, 'write', [1])).toBe(NOTIFY);
    expect(verdict(architecture, 'write', [2])).toBe(ALLOW);
    expect(verdict(architecture, 'read', [1])).toBe(ALLOW);
  });

  it('stops on requests of VFIO and iommufd on any descriptor, and on no others', () => {
    expect(verdict(architecture, 'ioctl', [5, 0x3b64])).toBe(NOTIFY);
    expect(verdict(architecture, 'ioctl', [-1, 0x3b81])).toBe(NOTIFY);
    expect(verdict(architecture, 'ioctl', [5, 0x5401])).toBe(ALLOW);
    expect(verdict(architecture, 'ioctl', [5, 0xae00])).toBe(ALLOW);
  });

  it('stops when a file is cut short or gets a hole', () => {
    expect(verdict(architecture, 'ftruncate', [5, 0])).toBe(NOTIFY);
    expect([0, 1, 2, 3].map((mode) => verdict(architecture, 'fallocate', [5, mode, 0, 4096]))).toEqual([
      ALLOW,
      ALLOW,
      NOTIFY,
      NOTIFY,
    ]);
  });

  it('stops on offsets of a region on any descriptor', () => {
    expect(verdict(architecture, 'pread64', [5, 0, 4, 7n << 40n])).toBe(NOTIFY);
    expect(verdict(architecture, 'pwrite64', [5, 0, 4, (1n << 40n) - 1n])).toBe(ALLOW);
  });

  it('stops where mappings go, and where simulated files are mapped', () => {
    expect(verdict(architecture, 'munmap', [0x1000, 0x1000])).toBe(NOTIFY);
    expect(verdict(architecture, 'mremap', [0x1000])).toBe(NOTIFY);
    expect(verdict(architecture, 'mmap', [0, 4096, 3, 0x22, -1])).toBe(ALLOW);
    expect(verdict(architecture, 'mmap', [0, 4096, 3, 0x32, -1])).toBe(NOTIFY);
    expect(verdict(architecture, 'mmap', [0, 4096, 3, 1, 900])).toBe(NOTIFY);
    expect(verdict(architecture, 'mmap', [0, 4096, 3, 1, 12])).toBe(ALLOW);
    for (const [advice, expected] of [
      [4, NOTIFY],
      [8, NOTIFY],
      [14, ALLOW],
    ] as const)
      expect(verdict(architecture, 'madvise', [0, 4096, advice])).toBe(expected);
  });

  it('stops on copies of a descriptor, not on other uses of fcntl', () => {
    expect(verdict(architecture, 'fcntl', [900, 0])).toBe(NOTIFY);
    expect(verdict(architecture, 'fcntl', [900, 1030])).toBe(NOTIFY);
    expect(verdict(architecture, 'fcntl', [900, 3])).toBe(ALLOW);
    expect(verdict(architecture, 'fcntl', [5, 0])).toBe(ALLOW);
  });

  it('stops where a descriptor may begin to stand for something else', () => {
    expect(verdict(architecture, 'close', [900])).toBe(NOTIFY);
    expect(verdict(architecture, 'close', [7])).toBe(ALLOW);
    expect(verdict(architecture, 'dup3', [900, 7])).toBe(NOTIFY);
    expect(verdict(architecture, 'dup3', [7, 900])).toBe(NOTIFY);
    expect(verdict(architecture, 'dup3', [7, 8])).toBe(ALLOW);
    expect(verdict(architecture, 'close_range')).toBe(NOTIFY);
    expect(verdict(architecture, 'execve')).toBe(NOTIFY);
  });

  it('stops on paths, and on nothing that it does not know', () => {
    for (const name of ['openat', 'newfstatat', 'statx', 'readlinkat', 'faccessat2'] as const)
      expect(verdict(architecture, name)).toBe(NOTIFY);
    expect(verdict(architecture, 9999)).toBe(ALLOW);
    expect(verdict(architecture, 'openat', [], 0x40000003)).toBe(ALLOW);
  });
});

describe('architectures', () => {
  it('has a table for two', () => {
    expect(callTable('riscv64')).toBeNull();
    expect(callTable('x64')?.audit).toBe(0xc000003e);
    expect(callTable('arm64')?.audit).toBe(0xc00000b7);
  });
});
