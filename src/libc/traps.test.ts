/** What ends a process, or makes it deaf, without a word, when views and poll handles are used as their documentation suggests. */
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { Libc, LibcUnavailable } from './index.ts';

const available = await Libc.load().catch((error: unknown) => {
  if (error instanceof LibcUnavailable) return error;
  throw error;
});
const reason = available instanceof Libc ? '' : ` (skipped: ${available.message})`;
const libc = available instanceof Libc ? available : (null as never);

function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  const collect: unknown = runInNewContext('gc');
  if (typeof collect !== 'function') throw new Error('this Node does not let its collector be called');
  collect();
}

describe.skipIf(reason !== '')(`traps${reason}`, () => {
  it('a poll that nobody but the library holds survives the collector', async () => {
    const fd = libc.eventfd(0);
    let seen = 0;
    libc.poller.watch(fd, () => {
      seen += libc.eventfdRead(fd);
    });
    for (let i = 0; i < 3; i++) {
      collectGarbage();
      await sleep(1);
    }
    libc.eventfdWrite(fd, 1);
    for (let i = 0; i < 200 && seen === 0; i++) await sleep(5);
    expect(seen).toBe(1);
    libc.close(fd);
  });

  it('memory stays where it is while its address is all that the kernel has, and is given back after its last view', async () => {
    const block = libc.allocate(4096);
    if (typeof block === 'number') throw new Error(`errno ${-block}`);
    const fd = libc.memfd('source', 4096);
    libc.pwrite(fd, Uint8Array.of(42), 0);
    const view = new Uint8Array(block.view());
    collectGarbage();
    expect(libc.pread(fd, view, 0)).toBe(4096);
    expect(view[0]).toBe(42);
    libc.close(fd);
    block.unmap();
    expect(view[0]).toBe(0);
  });

  it('a view beyond 4 GiB is an error where Node would end the process, and memory elsewhere', () => {
    const size = 5 * 2 ** 30;
    const block = libc.allocate(size);
    if (typeof block === 'number') return; // no room for it here
    const large = Number(process.versions.node.split('.')[0]) >= 22;
    if (large) expect(block.view().byteLength).toBe(size);
    else expect(() => block.view()).toThrow(/needs Node.js 22/);
    block.unmap();
  });
});
