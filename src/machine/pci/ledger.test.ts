import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CapabilityId } from '../../arch/pci/index.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import { ALL_ON, BELL, capabilityOf, enableMsix, single, tableAddress } from './testing/rig.ts';

const VECTORS = 5;

/** A program for one function, and what a person would expect of it: a model of five vectors with no code of the simulator. */
type Step =
  | { readonly kind: 'raise'; readonly vector: number }
  | { readonly kind: 'mask'; readonly vector: number; readonly on: boolean }
  | { readonly kind: 'functionMask'; readonly on: boolean }
  | { readonly kind: 'enable'; readonly on: boolean }
  | { readonly kind: 'busMaster'; readonly on: boolean }
  | { readonly kind: 'reset' };

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ kind: fc.constant('raise' as const), vector: fc.integer({ min: 0, max: VECTORS }) }),
    },
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constant('mask' as const),
        vector: fc.integer({ min: 0, max: VECTORS - 1 }),
        on: fc.boolean(),
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('functionMask' as const), on: fc.boolean() }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('enable' as const), on: fc.boolean() }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('busMaster' as const), on: fc.boolean() }) },
    { weight: 1, arbitrary: fc.constant({ kind: 'reset' as const }) },
  ),
  { maxLength: 60 },
);

interface Tally {
  sent: number;
  arrived: number[];
  coalesced: number;
  pending: Set<number>;
  torn: number;
  off: number;
  disabled: number;
}

/** The reference: PCIe 6.1.4.2 to 6.1.4.5 in words. */
class Reference {
  readonly tally: Tally = { sent: 0, arrived: [], coalesced: 0, pending: new Set(), torn: 0, off: 0, disabled: 0 };
  private masked = new Set<number>();
  private functionMask = false;
  private enabled = true;
  private master = true;

  take(step: Step): void {
    const { tally } = this;
    if (step.kind === 'raise') this.raise(step.vector);
    else if (step.kind === 'reset') {
      tally.torn += tally.pending.size;
      tally.pending.clear();
      // The test's driver then enables everything again with empty masks.
      this.masked = new Set();
      [this.functionMask, this.enabled, this.master] = [false, true, true];
    } else {
      if (step.kind === 'mask') this.masked[step.on ? 'add' : 'delete'](step.vector);
      if (step.kind === 'functionMask') this.functionMask = step.on;
      if (step.kind === 'enable') this.enabled = step.on;
      if (step.kind === 'busMaster') this.master = step.on;
      if (step.kind !== 'busMaster') this.letGo();
    }
  }

  private raise(vector: number): void {
    const { tally } = this;
    tally.sent++;
    if (!this.master) tally.off++;
    else if (!this.enabled || vector >= VECTORS) tally.disabled++;
    else if (!this.functionMask && !this.masked.has(vector)) tally.arrived.push(vector);
    else if (tally.pending.has(vector)) tally.coalesced++;
    else tally.pending.add(vector);
  }

  private letGo(): void {
    if (!this.enabled || this.functionMask) return;
    for (const vector of [...this.tally.pending].sort()) {
      if (this.masked.has(vector)) continue;
      this.tally.pending.delete(vector);
      if (this.master) this.tally.arrived.push(vector);
      else this.tally.off++;
    }
  }
}

/** The two flavours, driven by what software can do: writes to configuration space and to the table. */
interface Driver {
  set(step: Exclude<Step, { kind: 'raise' | 'reset' }>): void;
  start(): void;
}

function msixRig() {
  const made = single({
    bars: [{ type: 'memory32', size: 0x1000 }],
    msix: { vectors: VECTORS, table: { bar: 0, offset: 0 }, pba: { bar: 0, offset: 0x800 } },
  });
  const { fn, bus } = made;
  const base = fn.configRead(0x10, 4);
  let control = 0x8000;
  const driver: Driver = {
    start() {
      fn.configWrite(0x10, 4, base);
      fn.configWrite(0x04, 2, ALL_ON);
      control = 0x8000;
      enableMsix(fn, control);
      for (let vector = 0; vector < VECTORS; vector++) {
        bus.write32(tableAddress(fn, vector), BELL + 0x40);
        bus.write32(tableAddress(fn, vector) + 8, vector);
        bus.write32(tableAddress(fn, vector) + 12, 0);
      }
    },
    set(step) {
      if (step.kind === 'mask') bus.write32(tableAddress(fn, step.vector) + 12, step.on ? 1 : 0);
      else if (step.kind === 'busMaster') fn.configWrite(0x04, 2, step.on ? 7 : 3);
      else {
        const bit = step.kind === 'enable' ? 0x8000 : 0x4000;
        control = step.on ? control | bit : control & ~bit;
        enableMsix(fn, control);
      }
    },
  };
  return { made, driver };
}

function check(program: readonly Step[]): void {
  const { made, driver } = msixRig();
  const { fn, bell, ledger, lost, allLost } = made;
  const reference = new Reference();
  driver.start();
  for (const step of program) {
    if (step.kind === 'raise') fn.raise(step.vector);
    else if (step.kind === 'reset') {
      fn.reset();
      driver.start();
    } else driver.set(step);
    reference.take(step);
    const { tally } = reference;
    expect(bell.arrivals.map(({ data }) => data)).toEqual(tally.arrived);
    expect(ledger[Count.PENDING]).toBe(tally.pending.size);
    // Sent = delivered + coalesced + pending + lost, at every step.
    expect(ledger[Count.SENT]).toBe(bell.arrivals.length + ledger[Count.COALESCED] + ledger[Count.PENDING] + allLost());
  }
  const { tally } = reference;
  expect({
    sent: ledger[Count.SENT],
    coalesced: ledger[Count.COALESCED],
    torn: lost(Loss.TORN_DOWN),
    off: lost(Loss.BUS_MASTER_OFF),
    disabled: lost(Loss.NOT_ENABLED),
  }).toEqual({
    sent: tally.sent,
    coalesced: tally.coalesced,
    torn: tally.torn,
    off: tally.off,
    disabled: tally.disabled,
  });
}

describe('sent = delivered + coalesced + pending + lost', () => {
  it('for random programs of raise, mask, enable, bus master and reset with MSI-X', () => {
    fc.assert(fc.property(steps, check), { numRuns: 1500, verbose: 1 });
  });

  it('for random programs with 32 MSI messages, masks written as one word', () => {
    const word = fc.integer({ min: 0, max: 0xffff_ffff });
    const program = fc.array(
      fc.oneof(
        fc.record({ raise: fc.integer({ min: 0, max: 33 }) }),
        fc.record({ mask: word }),
        fc.record({ reset: fc.constant(true) }),
      ),
      { maxLength: 50 },
    );
    fc.assert(
      fc.property(program, (list) => {
        const { fn, bell, ledger, allLost } = single({ msi: { vectors: 32, address64: true, perVectorMask: true } });
        const at = capabilityOf(fn, CapabilityId.MSI);
        const start = (): void => {
          fn.configWrite(0x04, 2, ALL_ON);
          fn.configWrite(at + 4, 4, BELL + 0x40);
          fn.configWrite(at + 16, 4, 0);
          fn.configWrite(at + 2, 2, 1 | (5 << 4));
        };
        start();
        let mask = 0;
        let pending = 0;
        for (const step of list) {
          if ('raise' in step) {
            fn.raise(step.raise);
            if (step.raise < 32) pending |= mask & (1 << step.raise);
          } else if ('mask' in step) {
            fn.configWrite(at + 16, 4, step.mask);
            mask = step.mask;
            pending &= mask;
          } else {
            fn.reset();
            start();
            mask = pending = 0;
          }
          expect(fn.configRead(at + 20, 4)).toBe(pending >>> 0);
          expect(ledger[Count.SENT]).toBe(
            bell.arrivals.length + ledger[Count.COALESCED] + ledger[Count.PENDING] + allLost(),
          );
        }
      }),
      { numRuns: 1000, verbose: 1 },
    );
  });
});
