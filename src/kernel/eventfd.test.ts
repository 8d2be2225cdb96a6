import { describe, expect, it } from 'vitest';
import { Count, Loss } from '../ports/ledger.ts';
import { SimKernelClient } from './client.ts';
import { eventfdCtxFdget } from './eventfd.ts';
import type { EventFdContext } from './files.ts';
import { SimKernel } from './kernel.ts';
import { testContext } from './test-context.ts';

function setUp() {
  const context = testContext();
  const client = new SimKernelClient(new SimKernel(context));
  const handle = client.eventfd();
  if (typeof handle === 'number') throw new Error('no eventfd');
  const kernelSide = eventfdCtxFdget(client.process, handle.fd, context.refusals) as EventFdContext;
  const ledger = (slot: number) => context.tap.ledger[slot];
  return { context, client, handle, kernelSide, ledger };
}

describe('eventfd', () => {
  it('keeps the first signal as pending and counts further ones as coalesced', () => {
    const { kernelSide, handle, ledger } = setUp();
    kernelSide.signal();
    kernelSide.signal();
    kernelSide.signal();
    expect([ledger(Count.PENDING), ledger(Count.COALESCED), ledger(Count.DELIVERED)]).toEqual([1, 2, 0]);
    expect(handle.drain()).toBe(3);
    expect([ledger(Count.PENDING), ledger(Count.COALESCED), ledger(Count.DELIVERED)]).toEqual([0, 2, 1]);
    expect(handle.drain()).toBe(0);
    expect(ledger(Count.DELIVERED)).toBe(1);
  });

  it('does not account what user space writes', () => {
    const { client, handle, context } = setUp();
    handle.signal();
    const two = new Uint8Array(8);
    two[0] = 2;
    expect(client.pwrite(handle.fd, two, 0)).toBe(8);
    const into = new Uint8Array(8);
    expect(client.pread(handle.fd, into, 0)).toBe(8);
    expect([...into]).toEqual([3, 0, 0, 0, 0, 0, 0, 0]);
    expect(context.tap.ledger.every((value) => value === 0)).toBe(true);
  });

  it('EAGAIN: reads of an empty counter never wait; EINVAL for less than 8 bytes comes first', () => {
    const { client, handle } = setUp();
    expect(client.pread(handle.fd, new Uint8Array(4), 0)).toBe(-22);
    expect(client.pread(handle.fd, new Uint8Array(8), 0)).toBe(-11);
    expect(client.refusal()).toMatchObject({ code: 'EAGAIN', request: 'read' });
  });

  it('runs watchers after the walk, once for each walk, and not when the counter was drained meanwhile', () => {
    const { client, handle, kernelSide } = setUp();
    let seen = 0;
    const stop = handle.watch(() => {
      seen += 1;
    });
    kernelSide.signal();
    kernelSide.signal();
    expect(seen).toBe(0);
    client.settle();
    expect(seen).toBe(1);
    kernelSide.signal();
    client.settle();
    expect(seen).toBe(2);
    kernelSide.signal();
    handle.drain();
    client.settle();
    expect(seen).toBe(2);
    stop();
    kernelSide.signal();
    client.settle();
    expect(seen).toBe(2);
  });

  it('gives signals to the one consumer at once; watchers and the counter see nothing', () => {
    const { handle, kernelSide, ledger } = setUp();
    let taken = 0;
    const consumer = { signalled: () => (taken += 1) };
    expect(handle.setConsumer(consumer)).toBe(true);
    expect(handle.setConsumer({ signalled: () => {} })).toBe(false);
    kernelSide.signal();
    kernelSide.signal();
    expect([taken, handle.count]).toEqual([2, 0]);
    expect([ledger(Count.PENDING), ledger(Count.COALESCED)]).toEqual([0, 0]);
    handle.setConsumer(null);
    kernelSide.signal();
    expect([taken, handle.count]).toEqual([2, 1]);
  });

  it('hands a waiting count to a new consumer as one signal and no longer holds it as pending', () => {
    const { handle, kernelSide, ledger } = setUp();
    kernelSide.signal();
    kernelSide.signal();
    let taken = 0;
    handle.setConsumer({ signalled: () => (taken += 1) });
    expect([taken, handle.count, ledger(Count.PENDING), ledger(Count.COALESCED)]).toEqual([1, 0, 0, 1]);
  });

  it('counts a user write that goes to a consumer as an interrupt sent by user space', () => {
    const { handle, ledger } = setUp();
    handle.setConsumer({ signalled: () => {} });
    handle.signal();
    expect(ledger(Count.SENT)).toBe(1);
  });

  it('hangs up with the last descriptor, and lives on while the kernel keeps it', () => {
    const { client, handle, kernelSide, ledger } = setUp();
    const copy = client.process.dup(handle.fd);
    let hungUp = 0;
    kernelSide.onHangUp(() => {
      hungUp += 1;
    });
    client.close(handle.fd);
    expect(hungUp).toBe(0);
    client.close(copy);
    expect(hungUp).toBe(1);
    kernelSide.signal();
    expect([ledger(Count.PENDING), ledger(Count.LOST + Loss.EVENTFD_CLOSED)]).toEqual([1, 0]);
    kernelSide.put();
    expect([ledger(Count.PENDING), ledger(Count.LOST + Loss.EVENTFD_CLOSED)]).toEqual([0, 1]);
  });

  it('shows each signal to an observer', () => {
    const { context, kernelSide } = setUp();
    const hops: unknown[] = [];
    context.tap.observer = { hop: (hop) => hops.push(hop) };
    kernelSide.signal();
    kernelSide.signal();
    expect(hops).toEqual([
      { at: 'eventfd', id: kernelSide.id, count: 1 },
      { at: 'eventfd', id: kernelSide.id, count: 2 },
    ]);
  });

  it('EBADF before EINVAL: a closed descriptor, then one that is no eventfd', () => {
    const { client, context } = setUp();
    client.kernel.mount('/sys/text', { kind: 'file', mode: 0o444, read: () => 'x' });
    const fd = client.open('/sys/text', 'r');
    expect(eventfdCtxFdget(client.process, 99, context.refusals)).toBe(-9);
    expect(eventfdCtxFdget(client.process, fd, context.refusals)).toBe(-22);
  });
});
