import { describe, expect, it } from 'vitest';
import { Count, Loss } from '../../ports/ledger.ts';
import type { Hop } from '../../ports/tap.ts';
import { testContext } from '../test-context.ts';
import { IRQ_TYPE, type IrqChip } from './irq-chip.ts';
import { IrqCore } from './irq-core.ts';
import type { IrqLine } from './irq-line.ts';
import type { IrqHandler } from './pci-irqs.ts';

class Edge implements IrqLine {
  readonly chip = 'ITS-PCI-MSIX-0000:00:01.0';
  readonly hwirq = 3;
  readonly level = false;
  masked = true;
  mask(): void {
    this.masked = true;
  }
  unmask(): void {
    this.masked = false;
  }
}

class Counter implements IrqHandler {
  count = 0;
  handleIrq(): void {
    this.count++;
  }
}

/** A controller with one wire that its device holds until `quiet`. */
class Wire implements IrqChip {
  readonly name = 'GICv3';
  readonly core: IrqCore;
  asserted = false;
  masked = true;
  constructor(core: IrqCore) {
    this.core = core;
  }
  mask(): void {
    this.masked = true;
  }
  unmask(hwirq: number): void {
    this.masked = false;
    if (this.asserted) this.core.interrupt(hwirq, 0);
  }
  assert(hwirq: number): void {
    this.asserted = true;
    if (!this.masked) this.core.interrupt(hwirq, 0);
  }
}

function edge(core: IrqCore, intid = 8192): { irq: number; line: Edge } {
  const irq = core.allocate();
  const line = new Edge();
  core.setLine(irq, line);
  core.associate(intid, irq);
  return { irq, line };
}

describe('irq numbers', () => {
  it('takes the lowest free ones, and blocks that follow each other', () => {
    const core = new IrqCore(testContext());
    expect([core.allocate(), core.allocate(), core.allocate()]).toEqual([1, 2, 3]);
    core.setLine(2, new Edge());
    core.release(2);
    expect(core.allocate(2)).toBe(4);
    expect(core.allocate()).toBe(2);
    expect(core.allocate()).toBe(6);
  });

  it('grows past its first arrays without losing what they held', () => {
    const core = new IrqCore(testContext());
    const { irq } = edge(core, 100_000);
    const handler = new Counter();
    core.requestIrq(irq, handler, 'first');
    core.allocate(2000);
    core.interrupt(100_000, 0);
    expect(handler.count).toBe(1);
  });
});

describe('delivery', () => {
  it('counts by CPU, and lists as /proc/interrupts does', () => {
    const core = new IrqCore(testContext(), 2);
    const { irq } = edge(core);
    core.requestIrq(irq, new Counter(), 'vfio-msix[3](0000:00:01.0)');
    core.interrupt(8192, 0);
    core.interrupt(8192, 1);
    core.interrupt(8192, 1);
    expect(core.interrupts()).toEqual([
      {
        irq,
        counts: [1, 2],
        chip: 'ITS-PCI-MSIX-0000:00:01.0',
        hwirq: 3,
        trigger: 'Edge',
        action: 'vfio-msix[3](0000:00:01.0)',
      },
    ]);
  });

  it('is lost for NO_HANDLER without one, and when the number belongs to no irq', () => {
    const context = testContext();
    const core = new IrqCore(context);
    edge(core);
    core.interrupt(8192, 0);
    core.interrupt(77, 0);
    core.interrupt(5_000_000, 0);
    expect(context.tap.ledger[Count.LOST + Loss.NO_HANDLER]).toBe(3);
  });

  it('tells an observer the hop, and only then', () => {
    const context = testContext();
    const core = new IrqCore(context);
    const { irq } = edge(core);
    core.requestIrq(irq, new Counter(), 'bell');
    const hops: Hop[] = [];
    context.tap.observer = { hop: (hop) => hops.push(hop) };
    core.interrupt(8192, 0);
    core.interrupt(9, 0);
    expect(hops[0]).toEqual({ at: 'irq', intid: 8192, irq, action: 'bell' });
    expect(hops[1]).toMatchObject({ at: 'lost', loss: Loss.NO_HANDLER });
  });

  it('reaches nobody once the number was dissociated or the irq released', () => {
    const context = testContext();
    const core = new IrqCore(context);
    const { irq } = edge(core);
    const handler = new Counter();
    core.requestIrq(irq, handler, 'bell');
    core.dissociate(8192);
    core.interrupt(8192, 0);
    core.associate(8192, irq);
    core.release(irq);
    core.interrupt(8192, 0);
    expect(handler.count).toBe(0);
    expect(context.tap.ledger[Count.LOST + Loss.NO_HANDLER]).toBe(2);
  });
});

describe('request, free, enable, disable', () => {
  it('unmasks with the handler, and masks before it goes', () => {
    const core = new IrqCore(testContext());
    const { irq, line } = edge(core);
    expect(line.masked).toBe(true);
    core.requestIrq(irq, new Counter(), 'bell');
    expect(line.masked).toBe(false);
    core.freeIrq(irq);
    expect(line.masked).toBe(true);
  });

  it('refuses an irq that does not exist and a second handler', () => {
    const context = testContext();
    const core = new IrqCore(context);
    const { irq } = edge(core);
    expect(core.requestIrq(99, new Counter(), 'x')).toBe(-22);
    core.requestIrq(irq, new Counter(), 'bell');
    context.refusals.last = null;
    expect(core.requestIrq(irq, new Counter(), 'x')).toBe(-16);
    expect(context.refusals.last).toMatchObject({ code: 'EBUSY', field: 'irq' });
  });

  it('needs as many enables as disables', () => {
    const core = new IrqCore(testContext());
    const { irq, line } = edge(core);
    core.requestIrq(irq, new Counter(), 'bell');
    core.disableIrq(irq);
    core.disableIrq(irq);
    core.enableIrq(irq);
    expect(line.masked).toBe(true);
    core.enableIrq(irq);
    expect(line.masked).toBe(false);
  });

  it('warns of an enable too many and changes nothing', () => {
    const context = testContext();
    const core = new IrqCore(context);
    const { irq } = edge(core);
    core.requestIrq(irq, new Counter(), 'bell');
    core.enableIrq(irq);
    expect(context.lines).toEqual([`Unbalanced enable for IRQ ${irq}`]);
  });

  it('keeps one edge that came while disabled, merges further ones, and serves it when enabled', () => {
    const context = testContext();
    const core = new IrqCore(context);
    const { irq } = edge(core);
    const handler = new Counter();
    core.requestIrq(irq, handler, 'bell');
    core.disableIrq(irq);
    core.interrupt(8192, 0);
    core.interrupt(8192, 0);
    expect([context.tap.ledger[Count.PENDING], context.tap.ledger[Count.COALESCED]]).toEqual([1, 1]);
    core.enableIrq(irq);
    expect([handler.count, context.tap.ledger[Count.PENDING]]).toEqual([1, 0]);
  });

  it('loses a pending edge as TORN_DOWN when the handler goes', () => {
    const context = testContext();
    const core = new IrqCore(context);
    const { irq } = edge(core);
    core.requestIrq(irq, new Counter(), 'bell');
    core.disableIrq(irq);
    core.interrupt(8192, 0);
    core.freeIrq(irq);
    expect(context.tap.ledger[Count.PENDING]).toBe(0);
    expect(context.tap.ledger[Count.LOST + Loss.TORN_DOWN]).toBe(1);
  });
});

describe('wires', () => {
  it('are one irq for all functions that share them', () => {
    const core = new IrqCore(testContext());
    const wire = new Wire(core);
    expect(core.mapWire(wire, 36, IRQ_TYPE.LEVEL_HIGH)).toBe(core.mapWire(wire, 36, IRQ_TYPE.LEVEL_HIGH));
  });

  it('come again while the line is asserted, until the handler quiets it', () => {
    const core = new IrqCore(testContext());
    const wire = new Wire(core);
    const irq = core.mapWire(wire, 36, IRQ_TYPE.LEVEL_HIGH);
    let turns = 0;
    const handler = {
      handleIrq: () => {
        if (++turns === 3) wire.asserted = false;
      },
    };
    core.requestIrq(irq, handler, 'pin');
    wire.assert(36);
    expect(turns).toBe(3);
    expect(wire.masked).toBe(false);
  });

  it('stay masked when the handler disables them, and come again with enable_irq', () => {
    const core = new IrqCore(testContext());
    const wire = new Wire(core);
    const irq = core.mapWire(wire, 36, IRQ_TYPE.LEVEL_HIGH);
    let turns = 0;
    core.requestIrq(irq, { handleIrq: () => [turns++, core.disableIrq(irq)] }, 'vfio-intx');
    wire.assert(36);
    expect([turns, wire.masked]).toEqual([1, true]);
    core.enableIrq(irq);
    expect([turns, wire.masked]).toEqual([2, true]);
    wire.asserted = false;
    core.enableIrq(irq);
    expect([turns, wire.masked]).toEqual([2, false]);
  });

  it('are given up when nobody quiets them, instead of running for ever', () => {
    const context = testContext();
    const core = new IrqCore(context);
    const wire = new Wire(core);
    const irq = core.mapWire(wire, 36, IRQ_TYPE.LEVEL_HIGH);
    const handler = new Counter();
    core.requestIrq(irq, handler, 'pin');
    wire.assert(36);
    expect(handler.count).toBe(99_900);
    expect(context.lines).toEqual([`irq ${irq}: nobody cared`]);
    expect(wire.masked).toBe(true);
  });

  it('ask every handler of a shared line, and free one without the other', () => {
    const core = new IrqCore(testContext());
    const wire = new Wire(core);
    const irq = core.mapWire(wire, 36, IRQ_TYPE.LEVEL_HIGH);
    const [a, b] = [new Counter(), new Counter()];
    expect(core.requestIrq(irq, a, 'a', true)).toBe(0);
    expect(core.requestIrq(irq, b, 'b', true)).toBe(0);
    expect(core.requestIrq(irq, new Counter(), 'alone')).toBe(-16);
    expect(core.interrupts()[0]?.action).toBe('a, b');
    core.interrupt(36, 0);
    core.freeIrq(irq, a);
    core.interrupt(36, 0);
    expect([a.count, b.count]).toEqual([1, 2]);
    core.freeIrq(irq, b);
    expect(wire.masked).toBe(true);
  });
});
