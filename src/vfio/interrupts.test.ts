import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Device } from './device.ts';
import type { Interrupt } from './interrupt.ts';
import { caught } from './testing/caught.ts';
import { hexBytes, openScripted, scriptedHost } from './testing/scripted-host.ts';
import type { ScriptedEventFd, ScriptedKernel } from './testing/scripted-kernel.ts';

/** The eventfds of the device start at descriptor 6: container 3, group 4, device 5. */
const FIRST = 6;
const SET = 'VFIO_DEVICE_SET_IRQS';

function setup(): { kernel: ScriptedKernel; device: Device } {
  const kernel = scriptedHost();
  return { kernel, device: openScripted(kernel) };
}

function one(): { kernel: ScriptedKernel; interrupt: Interrupt; eventfd: ScriptedEventFd } {
  const { kernel, device } = setup();
  const [interrupt] = device.msix.enable(1).vectors;
  kernel.log.length = 0;
  return { kernel, interrupt: interrupt!, eventfd: kernel.eventfds.get(FIRST)! };
}

describe('a number of vectors that is none', () => {
  it.each([1.5, -1, Number.NaN, 2 ** 60 * 1.5e300])('EINVAL for %d, before anything is made', (count) => {
    const { kernel, device } = setup();
    expect(caught(() => device.msix.enable(count))).toMatchObject({ code: 'EINVAL', field: 'count' });
    expect(kernel.eventfds.size).toBe(0);
  });
});

describe('information', () => {
  it('reads counts and flags', () => {
    const { kernel, device } = setup();
    kernel.on('VFIO_DEVICE_GET_IRQ_INFO', (bytes) => {
      bytes.set(
        hexBytes(bytes[8] === 2 ? '10000000 01000000 02000000 10000000' : '10000000 07000000 00000000 01000000'),
      );
      return 0;
    });
    expect(device.msix.info()).toEqual({
      count: 16,
      eventfd: true,
      maskable: false,
      automasked: false,
      resizable: true,
    });
    expect(device.intx.info()).toEqual({ count: 1, eventfd: true, maskable: true, automasked: true, resizable: true });
    expect(kernel.log[0]).toBe('VFIO_DEVICE_GET_IRQ_INFO 10000000000000000200000000000000');
  });
});

describe('enabling', () => {
  it('hands over an eventfd for each vector, in one request', () => {
    const { kernel, device } = setup();
    const { requested, granted, vectors } = device.msix.enable(2);
    expect([requested, granted, vectors.map(({ vector }) => vector)]).toEqual([2, 2, [0, 1]]);
    // argsz 28, EVENTFD|TRIGGER, index 2, start 0, count 2, fds 6 and 7.
    expect(kernel.log).toEqual([`${SET} 1c000000240000000200000000000000020000000600000007000000`]);
  });

  it('enables what the kernel grants, and says so', () => {
    const { kernel, device } = setup();
    kernel.on(SET, (bytes) => (bytes[16]! > 3 ? 3 : 0));
    const { requested, granted, vectors } = device.msix.enable(8);
    expect([requested, granted, vectors.length]).toEqual([8, 3, 3]);
    expect(kernel.log.filter((line) => line.startsWith(SET)).map((line) => line.slice(21 + 32, 21 + 40))).toEqual([
      '08000000',
      '03000000',
    ]);
    expect(kernel.openPaths.filter((path) => path.startsWith('eventfd'))).toEqual([
      'eventfd 6',
      'eventfd 7',
      'eventfd 8',
    ]);
  });

  it('enables nothing below the minimum, and still says how many there are', () => {
    const { kernel, device } = setup();
    kernel.on(SET, () => 3);
    expect(device.msix.enable(8, { minimum: 4 })).toEqual({ requested: 8, granted: 3, vectors: [] });
    expect(device.msix.enabled).toBe(false);
    expect(kernel.openPaths.some((path) => path.startsWith('eventfd'))).toBe(false);
  });

  it('follows a number that keeps falling, and refuses one that does not', () => {
    const { kernel, device } = setup();
    const offers = [5, 2, 0];
    kernel.on(SET, () => offers.shift() ?? 0);
    expect(device.msix.enable(8).granted).toBe(2);
    device.msix.disable();
    kernel.on(SET, () => 8);
    expect(caught(() => device.msix.enable(8)).code).toBe('EIO');
  });

  it('leaves no eventfd behind when it fails', () => {
    const { kernel, device } = setup();
    kernel.on(SET, () => 'ENOSPC');
    expect(caught(() => device.msix.enable(4)).message).toContain(
      'VFIO_DEVICE_SET_IRQS: ENOSPC: the host has no interrupts left for msix, or the group has no domain',
    );
    kernel.eventfds.clear();
    kernel.eventfdLimit = 2;
    expect(caught(() => device.msix.enable(4)).message).toContain('no file descriptor is left for vector 2 of 4');
    expect(kernel.openPaths.some((path) => path.startsWith('eventfd'))).toBe(false);
  });

  it('is not done twice', () => {
    const { device } = setup();
    device.msix.enable(1);
    expect(caught(() => device.msix.enable(2))).toMatchObject({ code: 'EBUSY', hint: 'disable it first' });
  });

  it('disables with count 0, once', () => {
    const { kernel, device } = setup();
    device.msix.enable(1);
    kernel.log.length = 0;
    device.msix.disable();
    device.msix.disable();
    expect(kernel.log).toEqual([`${SET} 1400000021000000020000000000000000000000`, 'close(eventfd 6)']);
  });

  it('is undone when the device closes, before its file does', () => {
    const { kernel, device } = setup();
    device.msix.enable(2);
    kernel.log.length = 0;
    device.close();
    expect(kernel.log.slice(0, 4)).toEqual([
      `${SET} 1400000021000000020000000000000000000000`,
      'close(eventfd 7)',
      'close(eventfd 6)',
      'close(device)',
    ]);
    expect(kernel.openPaths).toEqual([]);
  });
});

describe('arrivals', () => {
  it('calls every listener with what arrived', () => {
    const { interrupt, eventfd } = one();
    const seen: string[] = [];
    const stop = interrupt.onInterrupt((count) => seen.push(`a${count}`));
    interrupt.onInterrupt((count) => seen.push(`b${count}`));
    eventfd.signal();
    stop();
    eventfd.signal();
    expect(seen).toEqual(['a1', 'b1', 'b1']);
  });

  it('tells of what arrived before anybody looked', async () => {
    const { interrupt, eventfd } = one();
    eventfd.signalUnseen();
    eventfd.signalUnseen();
    expect(await interrupt.next()).toBe(2);
  });

  it('iterates, and merges what arrives in between', async () => {
    const { interrupt, eventfd } = one();
    const stream = interrupt[Symbol.asyncIterator]();
    const first = stream.next();
    eventfd.signal();
    expect(await first).toEqual({ done: false, value: 1 });
    eventfd.signal();
    eventfd.signal();
    expect(await stream.next()).toEqual({ done: false, value: 2 });
    await stream.return?.();
    expect(await stream.next()).toEqual({ done: true, value: undefined });
    expect(eventfd.watched).toBe(false);
  });

  it('ends the iteration when it is disabled', async () => {
    const { kernel, device } = setup();
    const [interrupt] = device.msix.enable(1).vectors;
    const counts: number[] = [];
    const done = (async () => {
      for await (const count of interrupt!) counts.push(count);
    })();
    kernel.eventfds.get(FIRST)!.signal();
    device.msix.disable();
    await done;
    expect(counts).toEqual([1]);
    await expect(interrupt!.next()).rejects.toMatchObject({ code: 'EBADF' });
    expect(caught(() => interrupt!.onInterrupt(() => {})).code).toBe('EBADF');
  });

  it('can be taken without waiting', () => {
    const { interrupt, eventfd } = one();
    eventfd.signalUnseen();
    expect([interrupt.take(), interrupt.take()]).toEqual([1, 0]);
    interrupt.close();
    expect(caught(() => interrupt.take()).code).toBe('EBADF');
  });

  it('loses none, whenever readers come and go', async () => {
    const step = fc.constantFrom('signal', 'next', 'pause', 'start', 'leave');
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 24 }), async (steps) => {
        const { interrupt, eventfd } = one();
        let signalled = 0;
        let taken = 0;
        let stream: AsyncIterator<number> | null = null;
        const asked: Promise<void>[] = [];
        const run: Record<string, () => unknown> = {
          signal: () => {
            signalled++;
            eventfd.signal();
          },
          start: () => {
            stream ??= interrupt[Symbol.asyncIterator]();
          },
          next: () => {
            const result = stream?.next().then(({ done, value }) => {
              taken += done === true ? 0 : value;
            });
            if (result !== undefined) asked.push(result);
          },
          leave: () => {
            void stream?.return?.();
            stream = null;
          },
          pause: () => Promise.resolve(),
        };
        for (const name of steps) await run[name]!();
        run['leave']!();
        await Promise.all(asked);
        expect(taken + interrupt.take()).toBe(signalled);
      }),
      { numRuns: 1000 },
    );
  });

  it('goes back to sleep when the last listener left', () => {
    const { interrupt, eventfd } = one();
    const stop = interrupt.onInterrupt(() => {});
    expect(eventfd.watched).toBe(true);
    stop();
    stop();
    expect(eventfd.watched).toBe(false);
  });
});

describe('single vectors', () => {
  it('swaps the eventfd of one, and back', () => {
    const { kernel, interrupt } = one();
    interrupt.redirect(42);
    expect(interrupt.target).toBe(42);
    interrupt.redirect(null);
    interrupt.restore();
    const head = `${SET} 1800000024000000020000000000000001000000`;
    expect(kernel.log).toEqual([`${head}2a000000`, `${head}ffffffff`, `${head}06000000`]);
    expect(interrupt.target).toBe(FIRST);
  });

  it('has no target after a swap that failed', () => {
    const { kernel, interrupt } = one();
    kernel.on(SET, () => 'EBADF');
    expect(() => interrupt.redirect(99)).toThrow('EBADF: a file descriptor is not open');
    expect(interrupt.target).toBe(-1);
  });

  it('loops back', () => {
    const { kernel, device } = setup();
    const { msix } = device;
    const { vectors } = msix.enable(3);
    kernel.log.length = 0;
    vectors[1]!.trigger();
    msix.trigger(0, 3);
    msix.triggerSome(0, [true, false, true]);
    expect(kernel.log).toEqual([
      `${SET} 1400000021000000020000000100000001000000`,
      `${SET} 1400000021000000020000000000000003000000`,
      `${SET} 1700000022000000020000000000000003000000010001`,
    ]);
  });

  it('programs descriptors of a VMM, -1 among them', () => {
    const { kernel, device } = setup();
    expect(device.msix.program(2, [-1, 9])).toBe(0);
    expect(device.msix.enabled).toBe(true);
    expect(kernel.log).toEqual([`${SET} 1c00000024000000020000000200000002000000ffffffff09000000`]);
    kernel.on(SET, () => 1);
    device.msi.program(0, [1, 2]);
    expect(device.msi.enabled).toBe(false);
  });
});

describe('INTx', () => {
  it('masks, unmasks, and unmasks by eventfd', () => {
    const { kernel, device } = setup();
    device.intx.mask();
    device.intx.unmask();
    device.intx.resample(7);
    device.intx.resample(null);
    expect(kernel.log).toEqual([
      `${SET} 1400000009000000000000000000000001000000`,
      `${SET} 1400000011000000000000000000000001000000`,
      `${SET} 180000001400000000000000000000000100000007000000`,
      `${SET} 1800000014000000000000000000000001000000ffffffff`,
    ]);
  });

  it('says that MSI-X has no mask here', () => {
    const { kernel, device } = setup();
    kernel.on(SET, () => 'ENOTTY');
    expect(() => device.msix.mask()).toThrow('ENOTTY: mask is not a thing that msix can do; mask in the device');
  });
});
