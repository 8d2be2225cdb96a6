import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Libc, LibcUnavailable, loadKoffi, type MappedMemory, O_RDONLY } from './index.ts';

const available = await Libc.load().catch((error: unknown) => {
  if (error instanceof LibcUnavailable) return error;
  throw error;
});
const reason = available instanceof Libc ? '' : ` (skipped: ${available.message})`;
const libc = available instanceof Libc ? available : (null as never);

const ENOENT = 2;
const EBADF = 9;
const EINVAL = 22;
const ENOTTY = 25;
const EPERM = 1;
const FIONREAD = 0x541b;

const memory = (result: MappedMemory | number): MappedMemory => {
  if (typeof result === 'number') throw new Error(`errno ${-result}`);
  return result;
};

describe('loading', () => {
  it('says that another platform has no VFIO', async () => {
    await expect(loadKoffi('darwin')).rejects.toMatchObject({ name: 'LibcUnavailable', missing: 'platform' });
  });

  it('says which package is missing and how to get it', async () => {
    const failure = loadKoffi('linux', 'koffi-that-is-not-installed');
    await expect(failure).rejects.toMatchObject({ missing: 'ffi' });
    await expect(failure).rejects.toThrow(/npm install koffi-that-is-not-installed/);
  });

  it('does not take another package for it', async () => {
    await expect(loadKoffi('linux', 'node:path')).rejects.toMatchObject({ missing: 'ffi' });
  });
});

describe.skipIf(reason !== '')(`system calls${reason}`, () => {
  it('answers -errno', () => {
    expect(libc.open('/nowhere/at/all', O_RDONLY)).toBe(-ENOENT);
    expect(libc.close(999_999)).toBe(-EBADF);
    expect(libc.eventfdRead(999_999)).toBe(0);
    expect(libc.mapFile(999_999, 0, 4096, false)).toBe(-EBADF);
    expect(libc.allocate(0)).toBe(-EINVAL);
  });

  it('reads at an offset', () => {
    const fd = libc.open(new URL(import.meta.url).pathname, O_RDONLY);
    const bytes = new Uint8Array(20);
    expect(libc.pread(fd, bytes, 7)).toBe(20);
    expect(Buffer.from(bytes).toString()).toBe(readFileSync(new URL(import.meta.url), 'utf8').slice(7, 27));
    expect(libc.close(fd)).toBe(0);
  });

  it('takes offsets beyond 2^32, as VFIO regions have', () => {
    const fd = libc.memfd('sparse', 2 ** 40 + 8);
    expect(libc.pwrite(fd, new Uint8Array([1, 2, 3]), 2 ** 40)).toBe(3);
    const bytes = new Uint8Array(4);
    expect(libc.pread(fd, bytes, 2 ** 40)).toBe(4);
    expect([...bytes]).toEqual([1, 2, 3, 0]);
    libc.close(fd);
  });

  it('makes requests with a struct and with an integer', () => {
    const fd = libc.eventfd(0);
    expect(libc.ioctl(fd, FIONREAD, new Uint8Array(4))).toBe(-ENOTTY);
    expect(libc.ioctl(fd, 0x3b64, 0)).toBe(-ENOTTY);
    expect(libc.ioctl(fd, 0x3b64, 2n ** 64n - 1n)).toBe(-ENOTTY);
    libc.close(fd);
    const file = libc.memfd('count', 0);
    libc.write(file, new Uint8Array(11));
    const again = libc.open(`/proc/self/fd/${file}`, O_RDONLY);
    const answer = new Int32Array(1);
    expect(libc.ioctl(again, FIONREAD, new Uint8Array(answer.buffer))).toBe(0);
    expect(answer[0]).toBe(11);
    libc.close(again);
    libc.close(file);
  });

  it('counts on an eventfd, exactly, and never waits', () => {
    const fd = libc.eventfd(2);
    expect(libc.eventfdWrite(fd, 3)).toBe(8);
    expect(libc.eventfdRead(fd)).toBe(5);
    expect(libc.eventfdRead(fd)).toBe(0);
    expect(libc.eventfdWrite(fd, 2 ** 40 + 1)).toBe(8);
    expect(libc.eventfdRead(fd)).toBe(2 ** 40 + 1);
    libc.close(fd);
  });
});

describe.skipIf(reason !== '')(`memory${reason}`, () => {
  it('is shared between two mappings of a file', () => {
    const fd = libc.memfd('shared', 8192);
    const one = memory(libc.mapFile(fd, 0, 8192, true));
    const two = memory(libc.mapFile(fd, 4096, 4096, false));
    new Uint32Array(one.view())[1025] = 0xdead_beef;
    expect(new Uint32Array(two.view())[1]).toBe(0xdead_beef);
    one.unmap();
    two.unmap();
    libc.close(fd);
  });

  it('is zeroed, and aligned as asked', () => {
    const block = memory(libc.allocate(5000, 2 ** 21));
    expect(block.address % 2 ** 21).toBe(0);
    expect(block.length).toBe(5000);
    expect(new Uint8Array(block.view()).every((byte) => byte === 0)).toBe(true);
    block.unmap();
  });

  it('leaves arrays that somebody kept harmless', () => {
    const fd = libc.memfd('kept', 4096);
    const mapping = memory(libc.mapFile(fd, 0, 4096, true));
    const kept = new Uint32Array(mapping.view());
    kept[0] = 7;
    mapping.unmap();
    expect(kept[0]).toBe(0);
    kept[0] = 9; // neither a crash nor a write to the file
    const bytes = new Uint8Array(4);
    libc.pread(fd, bytes, 0);
    expect(bytes[0]).toBe(7);
    expect(() => mapping.view()).toThrow(RangeError);
    libc.close(fd);
  });

  it('is gone from the address space once nobody holds a view', () => {
    const block = memory(libc.allocate(4096));
    const { address } = block;
    block.unmap();
    const line = new RegExp(`^0*${address.toString(16)}-`, 'm');
    expect(readFileSync('/proc/self/maps', 'utf8')).not.toMatch(line);
  });
});

describe.skipIf(reason !== '')(`watching${reason}`, () => {
  it('calls back when an eventfd is readable, and again', async () => {
    const fd = libc.eventfd(0);
    const seen: number[] = [];
    const stop = libc.poller.watch(fd, () => seen.push(libc.eventfdRead(fd)));
    if (typeof stop === 'number') throw new Error(`errno ${-stop}`);
    libc.eventfdWrite(fd, 2);
    await until(() => seen.length === 1);
    libc.eventfdWrite(fd, 5);
    await until(() => seen.length === 2);
    expect(seen).toEqual([2, 5]);
    stop();
    libc.eventfdWrite(fd, 1);
    await sleep(10);
    expect(seen).toEqual([2, 5]);
    libc.close(fd);
  });

  it('runs promises that a watcher resolves without waiting for another event', async () => {
    const fd = libc.eventfd(1);
    await new Promise<void>((resolve) => {
      libc.poller.watch(fd, () => {
        libc.eventfdRead(fd);
        queueMicrotask(resolve);
      });
    });
    libc.close(fd);
  });

  it('serves several watchers of one descriptor, and drops them when it is closed', async () => {
    const before = libc.poller.size;
    const fd = libc.eventfd(0);
    const seen: string[] = [];
    libc.poller.watch(fd, () => seen.push('a'));
    const stop = libc.poller.watch(fd, () => {
      seen.push('b');
      libc.eventfdRead(fd);
    });
    libc.eventfdWrite(fd, 1);
    await until(() => seen.length > 0);
    expect(seen).toEqual(['a', 'b']);
    expect(libc.poller.size).toBe(before + 1);
    libc.close(fd);
    expect(libc.poller.size).toBe(before);
    if (typeof stop !== 'number') stop();
  });

  it('refuses what cannot be polled', () => {
    const file = libc.open(new URL(import.meta.url).pathname, O_RDONLY);
    expect(libc.poller.watch(file, () => {})).toBe(-EPERM);
    libc.close(file);
    expect(libc.poller.watch(999_999, () => {})).toBe(-EBADF);
  });
});

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !condition(); i++) await sleep(5);
  expect(condition()).toBe(true);
}
