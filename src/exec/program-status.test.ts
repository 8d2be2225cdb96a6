import { describe, expect, it } from 'vitest';
import { statusOf, withPages } from './program-status.ts';

describe('the status of a program', () => {
  it('is found under every name that it has', () => {
    expect(statusOf('/proc/self/status', 7)).toBe(7);
    expect(statusOf('/proc/thread-self/status', 7)).toBe(7);
    expect(statusOf('/proc/4711/status', 7)).toBe(4711);
    expect(statusOf('/proc/4711/task/4712/status', 7)).toBe(4711);
    for (const other of ['/proc/self/stat', '/proc/self/fd/status', '/tmp/proc/1/status', '/proc/status']) {
      expect(statusOf(other, 7)).toBe(null);
    }
  });

  it('counts the pages of both kernels', () => {
    const text = 'Name:\tcat\nVmPeak:\t    5616 kB\nVmLck:\t      12 kB\nVmPin:\t       0 kB\nVmHWM:\t    1536 kB\n';
    expect(withPages(text, { lockedPages: 0, pinnedPages: 0 })).toBe(text);
    expect(withPages(text, { lockedPages: 2, pinnedPages: 1 })).toBe(
      'Name:\tcat\nVmPeak:\t    5616 kB\nVmLck:\t      20 kB\nVmPin:\t       4 kB\nVmHWM:\t    1536 kB\n',
    );
  });

  it('of a kernel thread has no such lines, and gets none', () => {
    expect(withPages('Name:\tkthreadd\n', { lockedPages: 1, pinnedPages: 1 })).toBe('Name:\tkthreadd\n');
  });
});
