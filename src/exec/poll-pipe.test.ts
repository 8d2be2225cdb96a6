import { describe, expect, it } from 'vitest';
import { Libc, LibcUnavailable } from '../libc/index.ts';
import { cLibrary } from '../libc/library.ts';
import { PollPipe } from './poll-pipe.ts';

const libc = await Libc.load().catch((error: unknown) => {
  if (error instanceof LibcUnavailable) return null;
  throw error;
});

const EPOLLIN = 1;
const EPOLLOUT = 4;

describe.skipIf(libc === null)('a pipe in place of a file that programs wait for', () => {
  /** struct pollfd: fd@0, events@4, revents@6. */
  const poll = (fd: number): number => {
    if (libc === null) return -1;
    const bytes = new Uint8Array(new ArrayBuffer(64), 0, 8);
    const view = new DataView(bytes.buffer);
    view.setInt32(0, fd, true);
    view.setInt16(4, EPOLLIN | EPOLLOUT, true);
    cLibrary(libc.koffi).func('int poll(void *fds, unsigned long count, int timeout)')(bytes, 1, 0);
    return view.getInt16(6, true);
  };
  const made = (writable: boolean): PollPipe => {
    const pipe = libc === null ? -1 : PollPipe.open(libc, writable);
    if (typeof pipe === 'number') throw new Error(`no pipe: ${pipe}`);
    return pipe;
  };
  const close = ({ fd, backing }: PollPipe): void => {
    for (const each of [fd, backing]) libc?.close(each);
  };

  it('is readable while the file is, and never writable unless the file is', () => {
    const pipe = made(false);
    expect(poll(pipe.fd)).toBe(0);
    pipe.follow(EPOLLIN | 0x40);
    pipe.follow(EPOLLIN);
    expect(poll(pipe.fd)).toBe(EPOLLIN);
    pipe.follow(0);
    expect(poll(pipe.fd)).toBe(0);
    close(pipe);
  });

  it('is writable from the start where the file takes writes', () => {
    const pipe = made(true);
    expect(poll(pipe.fd)).toBe(EPOLLOUT);
    pipe.follow(EPOLLIN | EPOLLOUT);
    expect(poll(pipe.fd)).toBe(EPOLLIN | EPOLLOUT);
    close(pipe);
  });

  it('does not make a read wait', () => {
    const pipe = made(false);
    expect(libc?.read(pipe.fd, new Uint8Array(8))).toBeLessThan(0);
    close(pipe);
  });
});
