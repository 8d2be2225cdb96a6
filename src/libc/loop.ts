/** The descriptor behind Node's own loop: readable when the loop has something to do. For who waits in another way, and must not miss that. */
import { isMainThread } from 'node:worker_threads';
import type { Libc } from './libc.ts';

/** -1: not on this thread, or Node hides libuv's functions. */
export function loopDescriptor(libc: Libc): number {
  if (!isMainThread) return -1;
  try {
    const node = libc.koffi.load(null);
    const loop = node.func('uint64_t uv_default_loop()')();
    return Number(node.func('int uv_backend_fd(uint64_t loop)')(loop));
  } catch {
    return -1;
  }
}

/** Timers that keep the loop alive: its descriptor says nothing of them. Those that do not (`unref`) are not seen. */
export const hasTimers = (): boolean => process.getActiveResourcesInfo().includes('Timeout');
