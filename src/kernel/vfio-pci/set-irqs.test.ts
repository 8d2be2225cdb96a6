/** VFIO_DEVICE_SET_IRQS: each case breaks two neighbouring checks of vfio_main.c vfio_set_irqs_validate_and_prepare and expects the first. */
import { describe, expect, it } from 'vitest';
import { VFIO_DEVICE_SET_IRQS, vfio_irq_set } from '../../uapi/vfio.ts';
import { EDU, Rig } from './testing/rig.ts';

const NONE = 1;
const BOOL = 2;
const EVENTFD = 4;
const MASK = 8;
const UNMASK = 16;
const TRIGGER = 32;
const INTX = 0;
const MSI = 1;
const MSIX = 2;
const ERR = 3;
const REQ = 4;

function header(
  rig: Rig,
  fields: { argsz?: number; flags: number; index: number; start?: number; count?: number },
): string | number {
  return rig.ioctl(VFIO_DEVICE_SET_IRQS, vfio_irq_set.bytes({ argsz: 20, start: 0, count: 0, ...fields })).result;
}

describe('SET_IRQS, checks in order', () => {
  it('step 1 EFAULT before argsz', () => {
    const rig = new Rig().open();
    expect(rig.core.ioctl(rig.process, VFIO_DEVICE_SET_IRQS, 0x1234n)).toBe(-14);
    expect(rig.core.ioctl(rig.process, VFIO_DEVICE_SET_IRQS, 0xffff_ffff_ffff_f000n)).toBe(-14);
  });

  it.each([
    ['argsz before index', { argsz: 19, flags: NONE | TRIGGER, index: 5 }, /argsz 19/],
    ['index before wrap', { flags: NONE | TRIGGER, index: 5, start: 0xffff_ffff, count: 1 }, /index 5/],
    ['wrap before flags', { flags: 0x40 | NONE | TRIGGER, index: MSIX, start: 0xffff_ffff, count: 0 }, /wraps/],
    ['flags before range', { flags: 0x40 | NONE | TRIGGER, index: MSIX, start: 8, count: 1 }, /flags 0x61/],
    [
      'range (start) before data flags',
      { flags: NONE | BOOL | TRIGGER, index: MSIX, start: 8, count: 0 },
      /which has 8/,
    ],
    ['range (count) before data flags', { flags: TRIGGER, index: MSIX, start: 4, count: 5 }, /which has 8/],
    [
      'data flags before size',
      { flags: BOOL | EVENTFD | TRIGGER, index: MSIX, start: 0, count: 1 },
      /exactly one of DATA/,
    ],
    ['no data flag', { flags: TRIGGER, index: MSIX, start: 0, count: 0 }, /exactly one of DATA/],
    ['size before action', { flags: EVENTFD, index: MSIX, start: 0, count: 1 }, /leaves 0 bytes for 4/],
  ])('step 2 to 5 EINVAL: %s', (_name, fields, why) => {
    const rig = new Rig().open();
    expect(header(rig, fields)).toBe('EINVAL');
    expect(rig.why()).toMatch(why);
  });

  it('count one below the wrap is a range error, not a wrap', () => {
    const rig = new Rig().open();
    expect(header(rig, { flags: NONE | TRIGGER, index: MSIX, start: 0, count: 0xffff_fffe })).toBe('EINVAL');
    expect(rig.why()).toMatch(/which has 8/);
  });

  it('the range applies to count 0 too: MSI on a device without MSI', () => {
    const rig = new Rig().open();
    expect(header(rig, { flags: NONE | TRIGGER, index: MSI })).toBe('EINVAL');
    expect(rig.why()).toMatch(/which has 0/);
  });

  it('step 6 EFAULT of the payload before ENOTTY of the action', () => {
    const rig = new Rig().open();
    // The header ends exactly at the end of the mapping, so the payload is not there.
    const page = rig.process.memory.allocate(4096);
    const at = page + 4096 - vfio_irq_set.size;
    rig.process.memory.copyOut(at, vfio_irq_set.bytes({ argsz: 24, flags: EVENTFD, index: MSIX, start: 0, count: 1 }));
    expect(rig.core.ioctl(rig.process, VFIO_DEVICE_SET_IRQS, BigInt(at))).toBe(-14);
  });

  it('step 6: EVENTFD with count 0 needs no payload', () => {
    const rig = new Rig().open();
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 3, [])).toBe(0);
    expect(rig.irqs.calls).toEqual(['alloc msix 1..3']);
  });

  it.each([
    ['no action', EVENTFD, MSIX],
    ['two actions', NONE | MASK | UNMASK, INTX],
    ['three actions', NONE | MASK | UNMASK | TRIGGER, INTX],
    ['MSI-X mask', NONE | MASK, MSIX],
    ['MSI-X unmask', NONE | UNMASK, MSIX],
    ['ERR mask', NONE | MASK, ERR],
    ['REQ unmask', NONE | UNMASK, REQ],
  ])('step 7 ENOTTY before the handler EINVAL: %s', (_name, flags, index) => {
    const rig = new Rig().open();
    expect(rig.setIrqs(flags, index, 0, (flags & EVENTFD) !== 0 ? [-1] : 1)).toBe('ENOTTY');
  });

  it('ERR does not exist without PCIe: its count is 0, which the range check sees first', () => {
    const rig = new Rig(EDU).open();
    expect(rig.setIrqs(NONE | TRIGGER, ERR, 0, 1)).toBe('EINVAL');
    expect(
      rig.core.irqControl.apply({
        process: rig.process,
        flags: NONE | TRIGGER,
        index: ERR,
        start: 0,
        count: 1,
        data: new Uint8Array(0),
      }),
    ).toBe(-25);
  });
});

describe('MSI-X trigger (vfio_pci_intrs.c vfio_pci_set_msi_trigger)', () => {
  it('ERANGE for 0 vectors', () => {
    const rig = new Rig().open();
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [])).toBe('ERANGE');
    expect(rig.core.state.irqType).toBe(5);
  });

  it('enables start + count vectors, programs the block, and delivers', () => {
    const rig = new Rig().open();
    const a = rig.eventfd();
    const b = rig.eventfd();
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 2, [a.fd, b.fd])).toBe(0);
    expect(rig.irqs.calls).toEqual([
      'alloc msix 1..4',
      'rewrite 102',
      'request 102 vfio-msix[2](0000:00:05.0)',
      'rewrite 103',
      'request 103 vfio-msix[3](0000:00:05.0)',
    ]);
    rig.irqs.fire(103);
    rig.irqs.fire(103);
    expect([a.eventfd.drain(), b.eventfd.drain()]).toEqual([0, 2]);
  });

  it('MSI is not rewritten, and is named without the x', () => {
    const rig = new Rig(EDU).open();
    const { fd } = rig.eventfd();
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSI, 0, [fd])).toBe(0);
    expect(rig.irqs.calls).toEqual(['alloc msi 1..1', 'request 100 vfio-msi[0](0000:00:05.0)']);
  });

  it('fewer vectors than asked: all are freed and their positive number is the answer', () => {
    const rig = new Rig().open();
    rig.irqs.available = 3;
    const fds = Array.from({ length: 5 }, () => rig.eventfd().fd);
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, fds)).toBe(3);
    expect(rig.irqs.calls).toEqual(['alloc msix 1..5', 'free']);
    expect(rig.core.state.irqType).toBe(5);
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, fds.slice(0, 3))).toBe(0);
  });

  it('the allocation errno is the answer: ENOSPC, and 524 as it is', () => {
    const rig = new Rig().open();
    rig.irqs.allocError = -28;
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [-1])).toBe('ENOSPC');
    rig.irqs.allocError = -524;
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [-1])).toBe('ENOTSUPP');
  });

  it('memory decoding is on while vectors are allocated, and then as it was', () => {
    const rig = new Rig().open();
    rig.setConfig(4, 2, 0);
    let during = -1;
    const alloc = rig.irqs.allocIrqVectors.bind(rig.irqs);
    rig.irqs.allocIrqVectors = (...args) => {
      during = rig.dev.configRead(4, 2);
      return alloc(...args);
    };
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [-1])).toBe(0);
    expect(during & 2).toBe(2);
    expect(rig.dev.configRead(4, 2) & 2).toBe(0);
  });

  it('disable; a second disable is EINVAL, and so is a trigger while nothing is active', () => {
    const rig = new Rig().open();
    const { fd } = rig.eventfd();
    rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [fd]);
    expect(rig.setIrqs(NONE | TRIGGER, MSIX, 0, 0)).toBe(0);
    expect(rig.irqs.calls.slice(-2)).toEqual(['release 100', 'free']);
    expect(rig.setIrqs(NONE | TRIGGER, MSIX, 0, 0)).toBe('EINVAL');
    expect(rig.setIrqs(NONE | TRIGGER, MSIX, 0, 1)).toBe('EINVAL');
    expect(rig.setIrqs(BOOL | TRIGGER, MSIX, 0, new Uint8Array([1]))).toBe('EINVAL');
  });

  it('disable works with any start, as the check of Linux looks at count alone', () => {
    const rig = new Rig().open();
    rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [-1]);
    expect(rig.setIrqs(NONE | TRIGGER, MSIX, 7, 0)).toBe(0);
  });

  it('another index active: EINVAL before anything is looked at', () => {
    const rig = new Rig().open();
    const { fd } = rig.eventfd();
    rig.setIrqs(EVENTFD | TRIGGER, INTX, 0, [fd]);
    rig.irqs.calls.length = 0;
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [9999])).toBe('EINVAL');
    expect(rig.why()).toMatch(/index 0 is enabled/);
    expect(rig.irqs.calls).toEqual([]);
  });

  it('loopback: NONE signals each vector with an eventfd, BOOL those with a non-zero byte', () => {
    const rig = new Rig().open();
    const a = rig.eventfd();
    const b = rig.eventfd();
    rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [a.fd, -1, b.fd]);
    expect(rig.setIrqs(NONE | TRIGGER, MSIX, 0, 3)).toBe(0);
    expect([a.eventfd.drain(), b.eventfd.drain()]).toEqual([1, 1]);
    expect(rig.setIrqs(BOOL | TRIGGER, MSIX, 0, new Uint8Array([0, 1, 7]))).toBe(0);
    expect([a.eventfd.drain(), b.eventfd.drain()]).toEqual([0, 1]);
    expect(rig.sent).toBe(3);
  });

  it('fd -1 everywhere keeps the vectors allocated and the index active', () => {
    const rig = new Rig().open();
    const { fd, eventfd } = rig.eventfd();
    rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [fd]);
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [-7])).toBe(0);
    expect(rig.irqs.allocated).toBe(1);
    rig.irqs.fire(100);
    expect(eventfd.count).toBe(0);
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [fd])).toBe(0);
    rig.irqs.fire(100);
    expect(eventfd.count).toBe(1);
  });

  it('swapping an eventfd removes the old handler before the new one is looked up', () => {
    const rig = new Rig().open();
    const a = rig.eventfd();
    const b = rig.eventfd();
    rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [a.fd]);
    rig.irqs.calls.length = 0;
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [b.fd])).toBe(0);
    expect(rig.irqs.calls).toEqual(['release 100', 'rewrite 100', 'request 100 vfio-msix[0](0000:00:05.0)']);
    rig.irqs.fire(100);
    expect([a.eventfd.count, b.eventfd.count]).toEqual([0, 1]);
  });

  it('a vector beyond the allocated ones: EINVAL before EBADF, without dynamic MSI-X', () => {
    const rig = new Rig().open();
    rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [-1]);
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 1, [9999])).toBe('EINVAL');
    expect(rig.why()).toMatch(/beyond those that were enabled/);
  });

  it('dynamic MSI-X allocates the vector, and its errno is the answer before EBADF', () => {
    const rig = new Rig();
    rig.irqs.dynamic = true;
    rig.open();
    const { fd, eventfd } = rig.eventfd();
    rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [-1]);
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 5, [fd])).toBe(0);
    expect(rig.irqs.calls).toContain('alloc at 5');
    rig.irqs.fire(105);
    expect(eventfd.count).toBe(1);
    rig.irqs.allocError = -28;
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 6, [9999])).toBe('ENOSPC');
  });

  it('EBADF, EINVAL of a file that is no eventfd, and the errno of request_irq', () => {
    const rig = new Rig().open();
    const { fd } = rig.eventfd();
    const other = rig.process.install({ name: '/dev/null', release: () => {} });
    rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [-1, -1]);
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [9999])).toBe('EBADF');
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [other])).toBe('EINVAL');
    rig.irqs.requestErrors.set(101, -16);
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 1, [fd])).toBe('EBUSY');
    // There was never a handler to release, and MSI-X stays enabled: this was not the enabling call.
    expect(rig.irqs.calls.at(-1)).toMatch(/^request 101/);
    expect(rig.core.state.irqType).toBe(MSIX);
  });

  it('a failure tears the block down up to the failing vector, and leaves the rest', () => {
    const rig = new Rig().open();
    const fds = Array.from({ length: 4 }, () => rig.eventfd());
    rig.setIrqs(
      EVENTFD | TRIGGER,
      MSIX,
      0,
      fds.map(({ fd }) => fd),
    );
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 1, [fds[1]!.fd, 9999, fds[3]!.fd])).toBe('EBADF');
    for (let irq = 100; irq < 104; irq += 1) rig.irqs.fire(irq);
    expect(fds.map(({ eventfd }) => eventfd.count)).toEqual([1, 0, 0, 1]);
  });

  it('a failure of the enabling call disables everything', () => {
    const rig = new Rig().open();
    const { fd } = rig.eventfd();
    expect(rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [fd, 9999])).toBe('EBADF');
    expect(rig.core.state.irqType).toBe(5);
    expect(rig.irqs.allocated).toBe(0);
    expect(rig.irqs.handlers.size).toBe(0);
  });

  it('closing the descriptor does not take the vector away', () => {
    const rig = new Rig().open();
    const { fd, eventfd } = rig.eventfd();
    rig.setIrqs(EVENTFD | TRIGGER, MSIX, 0, [fd]);
    rig.process.close(fd);
    rig.irqs.fire(100);
    expect(eventfd.count).toBe(1);
  });
});

describe('ERR and REQ (vfio_pci_intrs.c)', () => {
  it.each([ERR, REQ])('index %i: set, loop back, remove', (index) => {
    const rig = new Rig().open();
    const { fd, eventfd } = rig.eventfd();
    expect(rig.setIrqs(NONE | TRIGGER, index, 0, 1)).toBe('EINVAL');
    expect(rig.setIrqs(NONE | TRIGGER, index, 0, 0)).toBe('EINVAL');
    expect(rig.setIrqs(BOOL | TRIGGER, index, 0, new Uint8Array(0))).toBe('EINVAL');
    expect(rig.setIrqs(EVENTFD | TRIGGER, index, 0, [])).toBe('EINVAL');
    expect(rig.setIrqs(BOOL | TRIGGER, index, 0, new Uint8Array([1]))).toBe(0);
    expect(rig.setIrqs(EVENTFD | TRIGGER, index, 0, [9999])).toBe('EBADF');
    expect(rig.setIrqs(EVENTFD | TRIGGER, index, 0, [-2])).toBe('EINVAL');
    expect(rig.setIrqs(EVENTFD | TRIGGER, index, 0, [fd])).toBe(0);
    expect(rig.setIrqs(NONE | TRIGGER, index, 0, 1)).toBe(0);
    expect(rig.setIrqs(BOOL | TRIGGER, index, 0, new Uint8Array([0]))).toBe(0);
    expect(eventfd.drain()).toBe(1);
    expect(rig.setIrqs(EVENTFD | TRIGGER, index, 0, [-1])).toBe(0);
    expect(rig.setIrqs(NONE | TRIGGER, index, 0, 1)).toBe('EINVAL');
  });

  it('REQ is signalled when the host wants the device, ERR when an error is reported', () => {
    const rig = new Rig().open();
    const req = rig.eventfd();
    const err = rig.eventfd();
    rig.core.request(0);
    expect(rig.context.lines.at(-1)).toMatch(/No device request channel registered/);
    rig.setIrqs(EVENTFD | TRIGGER, REQ, 0, [req.fd]);
    rig.setIrqs(EVENTFD | TRIGGER, ERR, 0, [err.fd]);
    rig.core.request(1);
    rig.core.errorDetected();
    expect([req.eventfd.drain(), err.eventfd.drain()]).toEqual([1, 1]);
    rig.core.closeDevice();
    rig.core.request(2);
    expect(req.eventfd.count).toBe(0);
  });
});
