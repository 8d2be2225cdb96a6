import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeClear, encodeDiscard, encodeInv, GICR_CTLR, GITS_CTLR } from '../../arch/gic/index.ts';
import type { EventFdHandle } from '../../ports/kernel.ts';
import { Count } from '../../ports/ledger.ts';
import * as uapi from '../../uapi/kvm.ts';
import { GICD, GICR, ITS, msi, TestGuest, TestVm } from './test-vm.ts';

const EVENTS = 4;
const words = (): Int32Array => new Int32Array(8);

type Step =
  | {
      readonly kind: 'signal' | 'drop' | 'map' | 'clear' | 'disable' | 'enable' | 'deassign' | 'assign';
      readonly event: number;
    }
  | { readonly kind: 'distributor' | 'its' | 'lpis'; readonly on: boolean }
  | { readonly kind: 'acknowledge' | 'eoi' | 'unroute' | 'route' };

const onEvent = fc.record({
  kind: fc.constantFrom(
    'drop' as const,
    'map' as const,
    'clear' as const,
    'disable' as const,
    'enable' as const,
    'deassign' as const,
    'assign' as const,
  ),
  event: fc.nat(EVENTS - 1),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('signal' as const), event: fc.nat(EVENTS - 1) }) },
  { weight: 4, arbitrary: onEvent },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constantFrom('distributor' as const, 'its' as const, 'lpis' as const),
      on: fc.boolean(),
    }),
  },
  { weight: 6, arbitrary: fc.record({ kind: fc.constantFrom('acknowledge' as const, 'eoi' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('unroute' as const, 'route' as const) }) },
);

/** One VM for all programs; `reset` brings it back to where each of them starts. */
class Bench {
  readonly vm = new TestVm().boot();
  readonly guest = new TestGuest(this.vm, this.vm.attach()).start();
  readonly eventfds: EventFdHandle[] = Array.from({ length: EVENTS }, () => this.vm.eventfd());
  readonly assigned = new Array<boolean>(EVENTS).fill(false);
  readonly running: number[] = [];
  /** Signals of a vector that no acknowledge has answered yet. */
  readonly owed = new Array<boolean>(EVENTS).fill(false);
  /** Signals that wait in an eventfd without an irqfd: owed from the moment that one is assigned. */
  readonly waiting = new Array<boolean>(EVENTS).fill(false);
  served = 0;

  constructor() {
    this.guest.mapDevice(8, 4);
  }

  reset(): void {
    for (const kind of ['distributor', 'its', 'lpis'] as const) this.run({ kind, on: true });
    this.run({ kind: 'route' });
    for (let event = 0; event < EVENTS; event += 1) {
      for (const kind of ['enable', 'map', 'clear', 'assign'] as const) this.run({ kind, event });
    }
    while (this.running.length > 0) this.run({ kind: 'eoi' });
    for (let intid = this.guest.cpu.acknowledge(); intid !== 1023; intid = this.guest.cpu.acknowledge()) {
      this.guest.cpu.endOfInterrupt(intid);
    }
    this.owed.fill(false);
  }

  run(step: Step): void {
    if ('event' in step) this.runEvent(step.kind, step.event);
    else if ('on' in step) this.runSwitch(step.kind, step.on);
    else if (step.kind === 'acknowledge') this.acknowledge();
    else if (step.kind === 'eoi') {
      const intid = this.running.pop();
      if (intid !== undefined) this.guest.cpu.endOfInterrupt(intid);
    } else this.vm.route(step.kind === 'route' ? Array.from({ length: EVENTS }, (_, e) => msi(100 + e, e)) : []);
  }

  private acknowledge(): void {
    const intid = this.guest.cpu.acknowledge();
    if (intid === 1023) return;
    this.running.push(intid);
    this.served += 1;
    // Nothing is acknowledged that nobody sent.
    expect(this.owed[intid - 8192]).toBe(true);
    this.owed[intid - 8192] = false;
  }

  private runSwitch(kind: 'distributor' | 'its' | 'lpis', on: boolean): void {
    const { cpu } = this.guest;
    if (kind === 'distributor') cpu.mmioWrite(GICD, 4, on ? 0x12 : 0x10);
    else if (kind === 'its') cpu.mmioWrite(ITS + GITS_CTLR, 4, on ? 1 : 0);
    else cpu.mmioWrite(GICR + GICR_CTLR, 4, on ? 1 : 0);
  }

  private runEvent(kind: Extract<Step, { event: number }>['kind'], event: number): void {
    const { vm, guest } = this;
    if (kind === 'signal') {
      if (this.assigned[event]) this.owed[event] = true;
      else this.waiting[event] = true;
      // Without an irqfd the count waits for one: a device's signal, as vfio-pci makes it.
      vm.ledger[Count.SENT]! += 1;
      vm.client.process.file(this.eventfds[event].fd)?.eventfd?.signal();
    } else if (kind === 'drop') guest.command(encodeDiscard(words(), 8, event));
    else if (kind === 'map') guest.mapEvent(8, event, 8192 + event);
    else if (kind === 'clear') guest.command(encodeClear(words(), 8, event));
    else if (kind === 'assign' || kind === 'deassign') {
      if (kind === 'assign' && this.waiting[event]) {
        this.owed[event] = true;
        this.waiting[event] = false;
      }
      const flags = kind === 'assign' ? 0 : uapi.KVM_IRQFD_FLAG_DEASSIGN;
      const result = vm.irqfd(this.eventfds[event].fd, 100 + event, flags);
      expect(result).toBe(kind === 'assign' && this.assigned[event] ? -16 : 0);
      this.assigned[event] = kind === 'assign';
    } else {
      guest.property(8192 + event, kind === 'enable' ? 0xa1 : 0xa0);
      guest.command(encodeInv(words(), 8, event));
    }
  }
}

describe('random programs of signals and a guest', () => {
  it('a signal that waited in the eventfd is served besides one that was pending already', () => {
    const bench = new Bench();
    bench.reset();
    const steps: Step[] = [
      { kind: 'signal', event: 2 },
      { kind: 'deassign', event: 2 },
      { kind: 'signal', event: 2 },
      { kind: 'acknowledge' },
      { kind: 'assign', event: 2 },
      { kind: 'eoi' },
      { kind: 'acknowledge' },
    ];
    for (const each of steps) bench.run(each);
    expect(bench.served).toBe(2);
  });

  it('sent = delivered + coalesced + pending + lost, and nothing is acknowledged that was not sent', () => {
    const bench = new Bench();
    const { ledger } = bench.vm;
    fc.assert(
      fc.property(fc.array(step, { maxLength: 50, size: 'max' }), (steps) => {
        bench.reset();
        for (const each of steps) {
          bench.run(each);
          const lost = ledger.subarray(Count.LOST).reduce((sum, count) => sum + count, 0);
          expect(ledger[Count.DELIVERED] + ledger[Count.COALESCED] + ledger[Count.PENDING] + lost).toBe(
            ledger[Count.SENT],
          );
          expect(ledger[Count.PENDING]).toBeGreaterThanOrEqual(0);
        }
        bench.reset();
        expect(ledger[Count.PENDING]).toBe(0);
      }),
      { numRuns: 1000 },
    );
    // The programs do get interrupts through.
    expect(bench.served).toBeGreaterThan(250);
  });
});
