/** INTx: vfio_pci_intrs.c. */
import { describe, expect, it } from 'vitest';
import { ENDPOINT, INTX_IRQ, Rig } from './testing/rig.ts';

const NONE = 1;
const BOOL = 2;
const EVENTFD = 4;
const MASK = 8;
const UNMASK = 16;
const TRIGGER = 32;
const INTX = 0;
const INTX_DISABLE = 0x400;

/** A device whose line the test drives; the interrupt arrives when it rises. */
function enabled(): { rig: Rig; eventfd: ReturnType<Rig['eventfd']>['eventfd']; assert: (level: boolean) => void } {
  const rig = new Rig().open();
  const { fd, eventfd } = rig.eventfd();
  expect(rig.setIrqs(EVENTFD | TRIGGER, INTX, 0, [fd])).toBe(0);
  const assert = (level: boolean): void => {
    rig.model.port?.setInterruptLine(level);
    if (level) rig.irqs.fire(INTX_IRQ);
  };
  return { rig, eventfd, assert };
}

const disintx = (rig: Rig): boolean => (rig.dev.configRead(4, 2) & INTX_DISABLE) !== 0;

describe('INTx', () => {
  it('more than the one that exists: EINVAL', () => {
    expect(new Rig().open().setIrqs(EVENTFD | TRIGGER, INTX, 0, [1, -1])).toBe('EINVAL');
  });

  it('count 0 with EVENTFD: EINVAL; so is a disable while nothing is enabled', () => {
    const rig = new Rig().open();
    expect(rig.setIrqs(EVENTFD | TRIGGER, INTX, 0, [])).toBe('EINVAL');
    expect(rig.setIrqs(NONE | TRIGGER, INTX, 0, 0)).toBe('EINVAL');
    expect(rig.setIrqs(NONE | TRIGGER, INTX, 0, 1)).toBe('EINVAL');
    expect(rig.setIrqs(NONE | MASK, INTX, 0, 1)).toBe('EINVAL');
    expect(rig.setIrqs(EVENTFD | UNMASK, INTX, 0, [9999])).toBe('EINVAL');
  });

  it('EBADF before ENODEV: the descriptor is looked up before the line is asked for', () => {
    const rig = new Rig().open();
    rig.dev.irq = 0;
    expect(rig.setIrqs(EVENTFD | TRIGGER, INTX, 0, [9999])).toBe('EBADF');
    expect(rig.setIrqs(EVENTFD | TRIGGER, INTX, 0, [-1])).toBe('ENODEV');
  });

  it('a device opened without a host interrupt has no INTx at all', () => {
    const rig = new Rig();
    rig.dev.irq = 0;
    rig.open();
    expect(rig.config(0x3d, 1)).toBe(0);
    expect(rig.setIrqs(EVENTFD | TRIGGER, INTX, 0, [-1])).toBe('EINVAL');
  });

  it('the request is shared and named, and its failure leaves nothing active', () => {
    const rig = new Rig().open();
    rig.irqs.requestErrors.set(INTX_IRQ, -16);
    expect(rig.setIrqs(EVENTFD | TRIGGER, INTX, 0, [-1])).toBe('EBUSY');
    expect(rig.irqs.calls).toEqual([`request ${INTX_IRQ} vfio-intx(0000:00:05.0) shared`]);
    expect(rig.core.state.irqType).toBe(5);
  });

  it('masks with each interrupt, and unmasking lets the next one through', () => {
    const { rig, eventfd, assert } = enabled();
    assert(true);
    expect(eventfd.drain()).toBe(1);
    expect(disintx(rig)).toBe(true);
    rig.irqs.fire(INTX_IRQ);
    expect(eventfd.count).toBe(0);
    assert(false);
    expect(rig.setIrqs(NONE | UNMASK, INTX, 0, 1)).toBe(0);
    expect(disintx(rig)).toBe(false);
    assert(true);
    expect(eventfd.drain()).toBe(1);
  });

  it('unmasking while the line is still asserted signals at once and stays masked', () => {
    const { rig, eventfd, assert } = enabled();
    assert(true);
    eventfd.drain();
    expect(rig.setIrqs(BOOL | UNMASK, INTX, 0, new Uint8Array([0]))).toBe(0);
    expect(eventfd.count).toBe(0);
    expect(rig.setIrqs(BOOL | UNMASK, INTX, 0, new Uint8Array([1]))).toBe(0);
    expect(eventfd.drain()).toBe(1);
    expect(disintx(rig)).toBe(true);
  });

  it('an interrupt of another function on the shared line is not this one', () => {
    const { rig, eventfd } = enabled();
    rig.irqs.fire(INTX_IRQ);
    expect(eventfd.count).toBe(0);
    expect(disintx(rig)).toBe(false);
  });

  it('MASK through NONE and BOOL; through an eventfd ENOTTY', () => {
    const { rig } = enabled();
    expect(rig.setIrqs(EVENTFD | MASK, INTX, 0, [-1])).toBe('ENOTTY');
    expect(rig.setIrqs(BOOL | MASK, INTX, 0, new Uint8Array([0]))).toBe(0);
    expect(disintx(rig)).toBe(false);
    expect(rig.setIrqs(NONE | MASK, INTX, 0, 1)).toBe(0);
    expect(disintx(rig)).toBe(true);
  });

  it('a new eventfd is swapped in without giving the line up; -1 leaves it without a trigger', () => {
    const { rig, eventfd, assert } = enabled();
    const next = rig.eventfd();
    rig.irqs.calls.length = 0;
    expect(rig.setIrqs(EVENTFD | TRIGGER, INTX, 0, [next.fd])).toBe(0);
    expect(rig.irqs.calls).toEqual([]);
    assert(true);
    expect([eventfd.count, next.eventfd.drain()]).toEqual([0, 1]);
    expect(rig.setIrqs(EVENTFD | TRIGGER, INTX, 0, [-1])).toBe(0);
    expect(rig.setIrqs(NONE | TRIGGER, INTX, 0, 1)).toBe(0);
    expect(next.eventfd.count).toBe(0);
  });

  it('loopback, disable, second disable', () => {
    const { rig, eventfd } = enabled();
    expect(rig.setIrqs(NONE | TRIGGER, INTX, 0, 1)).toBe(0);
    expect(rig.setIrqs(BOOL | TRIGGER, INTX, 0, new Uint8Array([0]))).toBe(0);
    expect(eventfd.drain()).toBe(1);
    expect(rig.setIrqs(NONE | TRIGGER, INTX, 0, 0)).toBe(0);
    expect(rig.irqs.calls.at(-1)).toBe(`release ${INTX_IRQ}`);
    expect(rig.setIrqs(NONE | TRIGGER, INTX, 0, 0)).toBe('EINVAL');
  });

  it('the guest masks through COMMAND.INTX_DISABLE: the virtual bit, and the same path', () => {
    const { rig, eventfd, assert } = enabled();
    expect(rig.setConfig(4, 2, 0x406)).toBe(2);
    expect(rig.config(4, 2)).toBe(0x406);
    expect(disintx(rig)).toBe(true);
    assert(true);
    expect(eventfd.count).toBe(0);
    // UNMASK cannot override the guest's own mask.
    rig.setIrqs(NONE | UNMASK, INTX, 0, 1);
    expect([eventfd.count, disintx(rig)]).toEqual([0, true]);
    // The byte alone does it too, and the line that waited is told.
    rig.setConfig(5, 1, 0);
    expect(eventfd.drain()).toBe(1);
  });

  it('while the guest masks, neither UNMASK nor a loopback gets through', () => {
    const { rig, eventfd } = enabled();
    rig.setConfig(4, 2, 0x406);
    expect(rig.setIrqs(NONE | UNMASK, INTX, 0, 1)).toBe(0);
    expect(disintx(rig)).toBe(true);
    expect(rig.setIrqs(NONE | TRIGGER, INTX, 0, 1)).toBe(0);
    expect(eventfd.count).toBe(0);
  });

  it('without INTx in use the real bit follows the virtual one', () => {
    const rig = new Rig().open();
    rig.setConfig(4, 2, 0x400);
    expect(disintx(rig)).toBe(true);
    rig.setConfig(4, 2, 0);
    expect(disintx(rig)).toBe(false);
  });

  it('a function that is opened with the bit set enables masked', () => {
    const rig = new Rig().open();
    rig.setConfig(4, 2, 0x400);
    const { fd } = rig.eventfd();
    rig.setIrqs(EVENTFD | TRIGGER, INTX, 0, [fd]);
    expect(rig.core.irqControl.intx.masked).toBe(true);
    expect(disintx(rig)).toBe(true);
  });

  it('without DisINTx (nointxmask) the controller masks, exclusively', () => {
    const rig = new Rig(ENDPOINT);
    rig.context.modules.vfio_pci.nointxmask = true;
    rig.open();
    const { fd, eventfd } = rig.eventfd();
    rig.setIrqs(EVENTFD | TRIGGER, INTX, 0, [fd]);
    expect(rig.irqs.calls.at(-1)).toBe(`request ${INTX_IRQ} vfio-intx(0000:00:05.0)`);
    rig.irqs.fire(INTX_IRQ);
    expect([eventfd.drain(), rig.irqs.depth(INTX_IRQ)]).toEqual([1, 1]);
    rig.setIrqs(NONE | UNMASK, INTX, 0, 1);
    expect(rig.irqs.depth(INTX_IRQ)).toBe(0);
  });
});

describe('the unmask eventfd (virqfd)', () => {
  it('EBADF and EINVAL of the descriptor before EBUSY; -1 disarms', () => {
    const { rig } = enabled();
    const a = rig.eventfd();
    const b = rig.eventfd();
    const other = rig.process.install({ name: '/dev/null', release: () => {} });
    expect(rig.setIrqs(EVENTFD | UNMASK, INTX, 0, [a.fd])).toBe(0);
    expect(rig.setIrqs(EVENTFD | UNMASK, INTX, 0, [9999])).toBe('EBADF');
    expect(rig.setIrqs(EVENTFD | UNMASK, INTX, 0, [other])).toBe('EINVAL');
    expect(rig.setIrqs(EVENTFD | UNMASK, INTX, 0, [b.fd])).toBe('EBUSY');
    expect(rig.setIrqs(EVENTFD | UNMASK, INTX, 0, [-1])).toBe(0);
    expect(rig.setIrqs(EVENTFD | UNMASK, INTX, 0, [b.fd])).toBe(0);
  });

  it('unmasks when signalled, and resends when the line is still asserted', () => {
    const { rig, eventfd, assert } = enabled();
    const unmask = rig.eventfd();
    rig.setIrqs(EVENTFD | UNMASK, INTX, 0, [unmask.fd]);
    assert(true);
    expect(eventfd.drain()).toBe(1);
    unmask.eventfd.signal();
    rig.context.work.drain();
    expect(eventfd.drain()).toBe(1);
    assert(false);
    unmask.eventfd.signal();
    rig.context.work.drain();
    expect([eventfd.count, disintx(rig)]).toEqual([0, false]);
  });

  it('an event that was pending when it was armed fires', () => {
    const { rig, assert } = enabled();
    assert(true);
    assert(false);
    const unmask = rig.eventfd(1);
    expect(disintx(rig)).toBe(true);
    rig.setIrqs(EVENTFD | UNMASK, INTX, 0, [unmask.fd]);
    expect(disintx(rig)).toBe(false);
  });

  it('closing the eventfd disarms, so that another can be armed', () => {
    const { rig } = enabled();
    const a = rig.eventfd();
    const b = rig.eventfd();
    rig.setIrqs(EVENTFD | UNMASK, INTX, 0, [a.fd]);
    rig.process.close(a.fd);
    expect(rig.setIrqs(EVENTFD | UNMASK, INTX, 0, [b.fd])).toBe(0);
  });
});
