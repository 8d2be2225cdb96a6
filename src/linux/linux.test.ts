import { closeSync, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Libc } from '../libc/index.ts';
import type { EventFdHandle, Mapping, UserBuffer } from '../ports/kernel.ts';
import { explainOpen, LinuxKernel, LinuxUnavailable, type Look } from './index.ts';

const loaded = await LinuxKernel.load().catch((error: unknown) => {
  if (error instanceof LinuxUnavailable) return error;
  throw error;
});
const reason = loaded instanceof LinuxKernel ? '' : ` (skipped: ${loaded.message})`;
const kernel = loaded instanceof LinuxKernel ? loaded : (null as never);

const EBADF = 9;
const ENOENT = 2;
const ENOMEM = 12;
const EACCES = 13;
const EBUSY = 16;
const EINVAL = 22;

function ok<T extends object>(result: T | number): T {
  if (typeof result === 'number') throw new Error(`errno ${-result}`);
  return result;
}

describe.skipIf(reason !== '')(`the Kernel port on this machine${reason}`, () => {
  it('says what it is', () => {
    expect([kernel.kind, kernel.abi]).toEqual(['linux', 'linux-7.2']);
    expect([4096, 16384, 65536]).toContain(kernel.pageSize);
  });

  it('reads sysfs, and answers null for what is not there', () => {
    expect(kernel.list('/sys/class')).toContain('net');
    expect(kernel.readText('/proc/sys/kernel/ostype')).toBe('Linux\n');
    expect(kernel.readLink('/proc/self/exe')).toBe(process.execPath);
    expect(kernel.list('/nowhere')).toBeNull();
    expect(kernel.readText('/nowhere')).toBeNull();
    expect(kernel.readLink('/nowhere')).toBeNull();
  });

  it('answers -errno, and refuses what is no request', () => {
    expect(kernel.open('/nowhere')).toBe(-ENOENT);
    expect(kernel.refusal()).toBeNull();
    expect(kernel.close(999_999)).toBe(-EBADF);
    expect(kernel.ioctl(999_999, 0x3b64)).toBe(-EBADF);
    expect(() => kernel.ioctl(0, 0x3b64, 1.5)).toThrow(TypeError);
    expect(() => kernel.allocate(0)).toThrow(RangeError);
    expect(() => kernel.allocate(4096, 3)).toThrow(RangeError);
  });

  it('reaches no other file by what is no descriptor', () => {
    const { fd } = ok(kernel.eventfd());
    for (const wrong of [Number.NaN, fd + 0.5, 2 ** 32 + fd, -1]) {
      expect(kernel.close(wrong)).toBe(-EBADF);
      expect(kernel.ioctl(wrong, 0x3b64)).toBe(-EBADF);
      expect(kernel.read(wrong, new Uint8Array(8))).toBe(-EBADF);
      expect(kernel.write(wrong, new Uint8Array(8))).toBe(-EBADF);
      expect(kernel.pread(wrong, new Uint8Array(8), 0)).toBe(-EBADF);
      expect(kernel.pwrite(wrong, new Uint8Array(8), 0)).toBe(-EBADF);
      expect(kernel.mmap(wrong, 0, 4096)).toBe(-EBADF);
    }
    expect(kernel.close(fd)).toBe(0);
    expect(kernel.close(fd)).toBe(-EBADF);
  });

  it('takes places and lengths that are integers', () => {
    const fd = kernel.memfd('numbers', 8192);
    for (const wrong of [Number.NaN, 0.5, Number.POSITIVE_INFINITY]) {
      expect(() => kernel.pread(fd, new Uint8Array(4), wrong)).toThrow(RangeError);
      expect(() => kernel.pwrite(fd, new Uint8Array(4), wrong)).toThrow(RangeError);
      expect(() => kernel.mmap(fd, wrong, 4096)).toThrow(RangeError);
      expect(() => kernel.mmap(fd, 0, wrong)).toThrow(RangeError);
      expect(() => kernel.memfd('numbers', wrong)).toThrow(RangeError);
      expect(() => kernel.eventfd(wrong)).toThrow(RangeError);
    }
    expect(() => kernel.eventfd(-1)).toThrow(RangeError);
    expect(() => kernel.eventfd(2 ** 32)).toThrow(RangeError);
    expect(() => kernel.memfd('numbers', -1)).toThrow(RangeError);
    expect(kernel.pread(fd, new Uint8Array(4), -1)).toBe(-EINVAL);
    expect(kernel.mmap(fd, 0, 0)).toBe(-EINVAL);
    expect(kernel.mmap(fd, 1, 4096)).toBe(-EINVAL);
    expect(kernel.mmap(fd, 0, 2 ** 62)).toBe(-ENOMEM);
    kernel.close(fd);
  });

  it('forgets why, with the next request', () => {
    expect(kernel.open('/dev/vfio/no-such-group')).toBe(-ENOENT);
    expect(kernel.refusal()).toMatchObject({ errno: ENOENT, code: 'ENOENT', field: 'path' });
    kernel.ioctl(999_999, 0x3b64);
    expect(kernel.refusal()).toBeNull();
  });

  it('allocates memory with an address', () => {
    const buffer: UserBuffer = ok(kernel.allocate(10_000, 65536));
    expect([buffer.address % 65536, buffer.length, buffer.bytes.length]).toEqual([0, 10_000, 10_000]);
    buffer.bytes[9_999] = 1;
    const kept = buffer.bytes;
    buffer.free();
    expect(kept[9_999]).toBe(0);
    expect(() => buffer.bytes).toThrow(RangeError);
    buffer.free();
  });
});

describe.skipIf(reason !== '')(`mappings${reason}`, () => {
  async function mapped(access: 'r' | 'rw'): Promise<{ mapping: Mapping; fd: number }> {
    const libc = await Libc.load();
    const fd = libc.memfd('mapped', 8192);
    return { mapping: ok(kernel.mmap(fd, 4096, 4096, access)), fd };
  }

  it('reads and writes words, and shows plain memory as bytes', async () => {
    const { mapping, fd } = await mapped('rw');
    mapping.write32(4, 0xffff_fffe);
    expect(mapping.read32(4)).toBe(0xffff_fffe);
    expect(mapping.bytes?.[5]).toBe(0xff);
    const bytes = new Uint8Array(4);
    expect(kernel.pread(fd, bytes, 4100)).toBe(4);
    expect([...bytes]).toEqual([0xfe, 0xff, 0xff, 0xff]);
    mapping.unmap();
    kernel.close(fd);
  });

  it('throws instead of crashing: outside, read-only, after unmap', async () => {
    const { mapping, fd } = await mapped('r');
    expect(() => mapping.read32(4096)).toThrow(RangeError);
    expect(() => mapping.read32(-4)).toThrow(RangeError);
    expect(() => mapping.read32(2)).toThrow(RangeError);
    expect(() => mapping.write32(0, 1)).toThrow(TypeError);
    mapping.unmap();
    expect(() => mapping.read32(0)).toThrow(/gone/);
    expect(() => mapping.bytes).toThrow(RangeError);
    mapping.unmap();
    kernel.close(fd);
  });

  it('answers -errno for a file that cannot be mapped', () => {
    expect(kernel.mmap(999_999, 0, 4096)).toBe(-EBADF);
  });
});

describe.skipIf(reason !== '')(`eventfds${reason}`, () => {
  it('count, and tell their number', () => {
    const one: EventFdHandle = ok(kernel.eventfd(40));
    const two: EventFdHandle = ok(kernel.eventfd());
    expect(one.id).not.toBe(two.id);
    one.signal();
    expect(one.count).toBe(41);
    expect(one.drain()).toBe(41);
    expect(one.drain()).toBe(0);
    expect(one.setConsumer({ signalled() {} })).toBe(false);
    kernel.close(one.fd);
    kernel.close(two.fd);
    expect(() => one.signal()).toThrow(RangeError);
  });

  it('are read and written as files without places', () => {
    const eventfd = ok(kernel.eventfd());
    const bytes = new Uint8Array(BigUint64Array.of(7n).buffer);
    const ESPIPE = 29;
    const EAGAIN = 11;
    expect(kernel.write(eventfd.fd, bytes)).toBe(8);
    expect(kernel.pread(eventfd.fd, bytes, 0)).toBe(-ESPIPE);
    bytes.fill(0);
    expect(kernel.read(eventfd.fd, bytes)).toBe(8);
    expect(bytes[0]).toBe(7);
    expect(kernel.read(eventfd.fd, bytes)).toBe(-EAGAIN);
    kernel.close(eventfd.fd);
  });

  it('wake whoever watches, with each signal', async () => {
    const eventfd = ok(kernel.eventfd());
    let sum = 0;
    const stop = eventfd.watch(() => {
      sum += eventfd.drain();
    });
    for (let i = 1; i <= 3; i++) {
      eventfd.signal();
      await until(() => sum === i);
    }
    stop();
    eventfd.signal();
    await sleep(10);
    expect(sum).toBe(3);
    kernel.close(eventfd.fd);
  });

  it('call again for a signal that comes between the drain and the end of the call', async () => {
    const eventfd = ok(kernel.eventfd());
    let sum = 0;
    eventfd.watch(() => {
      sum += eventfd.drain();
      if (sum < 5) eventfd.signal();
    });
    eventfd.signal();
    await until(() => sum === 5);
    kernel.close(eventfd.fd);
  });

  it('wake again after a read of the descriptor, as after a drain', async () => {
    const eventfd = ok(kernel.eventfd());
    let calls = 0;
    eventfd.watch(() => {
      calls += 1;
    });
    eventfd.signal();
    await until(() => calls === 1);
    await sleep(5);
    expect(kernel.read(eventfd.fd, new Uint8Array(8))).toBe(8);
    eventfd.signal();
    await until(() => calls === 2);
    kernel.close(eventfd.fd);
  });

  it('do not spin when a watcher leaves the count standing, and go on after a drain', async () => {
    const eventfd = ok(kernel.eventfd());
    let calls = 0;
    eventfd.watch(() => {
      calls += 1;
    });
    eventfd.signal();
    await sleep(20);
    expect(calls).toBe(1);
    expect(eventfd.drain()).toBe(1);
    eventfd.signal();
    await until(() => calls === 2);
    kernel.close(eventfd.fd);
  });

  it('hang up when they are closed, and the number may be used again', async () => {
    const eventfd = ok(kernel.eventfd());
    let ended = 0;
    eventfd.onHangUp(() => {
      ended += 1;
    });
    eventfd.watch(() => {});
    kernel.close(eventfd.fd);
    expect(ended).toBe(1);
    const next = ok(kernel.eventfd(1));
    let seen = 0;
    next.watch(() => {
      seen += next.drain();
    });
    await until(() => seen === 1);
    kernel.close(next.fd);
  });

  it('are not inherited, and are ordinary descriptors', () => {
    const eventfd = ok(kernel.eventfd());
    const again = openSync(`/proc/self/fdinfo/${eventfd.fd}`, 'r');
    closeSync(again);
    const flags = /flags:\s*([0-7]+)/.exec(kernel.readText(`/proc/self/fdinfo/${eventfd.fd}`)!)![1]!;
    const O_CLOEXEC = 0o2000000;
    expect(Number.parseInt(flags, 8) & O_CLOEXEC).toBe(O_CLOEXEC);
    kernel.close(eventfd.fd);
  });
});

describe('why a file of VFIO does not open', () => {
  const look = (files: Record<string, readonly string[]>): Look => ({
    exists: (path) => path in files,
    list: (path) => files[path] ?? [],
    user: () => 'user 1000',
  });
  const groups = { '/sys/kernel/iommu_groups': ['3'], '/sys/kernel/iommu_groups/3/devices': ['0000:01:00.0'] };

  it.each([
    ['/dev/vfio/vfio', ENOENT, {}, 'VFIO is not loaded'],
    ['/dev/vfio/3', ENOENT, {}, 'the kernel has no IOMMU: there are no groups'],
    ['/dev/vfio/4', ENOENT, groups, 'there is no IOMMU group 4'],
    ['/dev/vfio/3', ENOENT, groups, 'no device of IOMMU group 3 (0000:01:00.0) is bound to vfio-pci'],
    ['/dev/vfio/3', EACCES, groups, 'user 1000 may not open /dev/vfio/3'],
    ['/dev/vfio/3', EBUSY, groups, '/dev/vfio/3 is open already; it has one owner'],
    ['/dev/iommu', ENOENT, {}, 'this kernel has no iommufd'],
    ['/dev/vfio/devices/vfio0', ENOENT, {}, 'this kernel has no VFIO_DEVICE_CDEV'],
    ['/dev/vfio/devices/vfio0', ENOENT, { '/dev/vfio/devices': [] }, '/dev/vfio/devices/vfio0 does not exist'],
  ] as const)('%s with errno %i', (path, errno, files, why) => {
    const refusal = explainOpen(path, errno, look(files));
    expect(refusal?.why).toBe(why);
    expect(refusal?.hint).toBeTruthy();
  });

  it('has nothing to say of other files and other errors', () => {
    expect(explainOpen('/etc/passwd', EACCES, look({}))).toBeNull();
    expect(explainOpen('/dev/vfio/3', 5, look(groups))).toBeNull();
  });
});

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !condition(); i++) await sleep(5);
  expect(condition()).toBe(true);
}
