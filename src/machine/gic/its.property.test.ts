import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  encodeDiscard,
  encodeInt,
  encodeInv,
  encodeInvall,
  encodeMapc,
  encodeMapd,
  encodeMapti,
  encodeMovall,
  encodeMovi,
} from '../../arch/gic/index.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import { ItsBench } from './testing/its-bench.ts';

const DEVICES = 2;
const EVENTS = 4;
const COLLECTIONS = 3;
const CPUS = 2;
/** Each (device, event) has an LPI of its own, as software must see to. */
const lpiOf = (device: number, event: number): number => 8192 + device * 16 + event;

type Step =
  | { readonly kind: 'mapd'; readonly device: number; readonly bits: number; readonly valid: boolean }
  | { readonly kind: 'mapc'; readonly collection: number; readonly cpu: number; readonly valid: boolean }
  | { readonly kind: 'mapti' | 'movi'; readonly device: number; readonly event: number; readonly collection: number }
  | { readonly kind: 'discard' | 'inv' | 'int' | 'send'; readonly device: number; readonly event: number }
  | { readonly kind: 'enable'; readonly device: number; readonly event: number; readonly on: boolean }
  | { readonly kind: 'invall'; readonly collection: number }
  | { readonly kind: 'movall'; readonly from: number; readonly to: number };

const device = fc.nat(DEVICES - 1);
/** Now and then one beyond the ITT. */
const event = fc.oneof({ weight: 15, arbitrary: fc.nat(EVENTS - 1) }, { weight: 1, arbitrary: fc.constant(EVENTS) });
const collection = fc.nat(COLLECTIONS - 1);
const cpu = fc.nat(CPUS - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('mapd'),
      device,
      bits: fc.integer({ min: 1, max: 2 }),
      valid: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('mapc'), collection, cpu, valid: fc.boolean() }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constantFrom('mapti', 'movi'), device, event, collection }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('discard', 'inv', 'int'), device, event }) },
  { weight: 10, arbitrary: fc.record({ kind: fc.constant('send'), device, event }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('enable'), device, event, on: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('invall'), collection }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('movall'), from: cpu, to: cpu }) },
) as fc.Arbitrary<Step>;

/** Every event mapped, those of collection 0 enabled: so that most messages go somewhere. */
const PRELUDE: readonly Step[] = [0, 1].flatMap((device): Step[] => [
  { kind: 'mapd', device, bits: 2, valid: true },
  ...[0, 1, 2, 3].flatMap((event): Step[] => [
    { kind: 'mapti', device, event, collection: event & 1 },
    { kind: 'enable', device, event, on: (event & 1) === 0 },
  ]),
]);

/** What the architecture says, without tables, caches or a queue. */
class Model {
  readonly devices = new Map<number, { limit: number; events: Map<number, number> }>();
  readonly collections = new Map<number, number>([
    [0, 0],
    [1, 1],
  ]);
  readonly enabled = new Set<number>();
  /** `cpu * 65536 + lpi`. */
  readonly pending = new Set<number>();
  fired: [number, number][] = [];
  delivered = 0;
  coalesced = 0;
  lost = 0;

  /** CPU of a mapped event, or why there is none. */
  cpuOf(device: number, event: number): number | 'device' | 'event' | 'collection' {
    const found = this.devices.get(device);
    if (found === undefined) return 'device';
    const collection = found.events.get(event);
    if (collection === undefined) return 'event';
    return this.collections.get(collection) ?? 'collection';
  }

  /** `int` of what is not mapped does not count at all. */
  message(device: number, event: number, isInt: boolean): boolean {
    const cpu = this.cpuOf(device, event);
    if (typeof cpu !== 'number') {
      if (!isInt) this.lost++;
      return false;
    }
    const lpi = lpiOf(device, event);
    const key = cpu * 65536 + lpi;
    if (this.pending.has(key)) this.coalesced++;
    else this.pending.add(key);
    this.release(key);
    return true;
  }

  release(key: number): void {
    const lpi = key % 65536;
    if (!this.pending.has(key) || !this.enabled.has(lpi)) return;
    this.pending.delete(key);
    this.fired.push([lpi, Math.floor(key / 65536)]);
    this.delivered++;
  }

  move(from: number, to: number): void {
    if (from === to || !this.pending.delete(from)) return;
    if (this.pending.has(to)) this.coalesced++;
    this.pending.add(to);
    this.release(to);
  }

  releaseCpu(cpu: number): void {
    for (const key of [...this.pending]) if (Math.floor(key / 65536) === cpu) this.release(key);
  }
}

/** Does a step to both; answers the messages that were sent. */
function apply(bench: ItsBench, model: Model, step: Step): number {
  switch (step.kind) {
    case 'mapd': {
      const itt = step.valid ? bench.allocate(4096) : 0;
      bench.command((words) => encodeMapd(words, step.device, step.bits, itt, step.valid));
      model.devices.delete(step.device);
      if (step.valid) model.devices.set(step.device, { limit: 2 ** step.bits, events: new Map() });
      return 0;
    }
    case 'mapc':
      bench.command((words) => encodeMapc(words, step.collection, step.cpu << 16, step.valid));
      if (step.valid) model.collections.set(step.collection, step.cpu);
      else model.collections.delete(step.collection);
      return 0;
    case 'mapti': {
      const lpi = lpiOf(step.device, step.event);
      bench.command((words) => encodeMapti(words, step.device, step.event, lpi, step.collection));
      const found = model.devices.get(step.device);
      if (found === undefined || step.event >= found.limit) return 0;
      found.events.set(step.event, step.collection);
      const cpu = model.collections.get(step.collection);
      if (cpu !== undefined) model.release(cpu * 65536 + lpi);
      return 0;
    }
    case 'movi': {
      bench.command((words) => encodeMovi(words, step.device, step.event, step.collection));
      const before = model.cpuOf(step.device, step.event);
      const after = model.collections.get(step.collection);
      if (before === 'device' || before === 'event' || after === undefined) return 0;
      model.devices.get(step.device)?.events.set(step.event, step.collection);
      const lpi = lpiOf(step.device, step.event);
      if (before !== 'collection') model.move(before * 65536 + lpi, after * 65536 + lpi);
      return 0;
    }
    case 'discard': {
      bench.command((words) => encodeDiscard(words, step.device, step.event));
      const cpu = model.cpuOf(step.device, step.event);
      model.devices.get(step.device)?.events.delete(step.event);
      if (typeof cpu === 'number' && model.pending.delete(cpu * 65536 + lpiOf(step.device, step.event))) model.lost++;
      return 0;
    }
    case 'int':
      bench.command((words) => encodeInt(words, step.device, step.event));
      return model.message(step.device, step.event, true) ? 1 : 0;
    case 'send':
      bench.store(step.device, step.event);
      model.message(step.device, step.event, false);
      return 1;
    case 'invall': {
      bench.command((words) => encodeInvall(words, step.collection));
      const cpu = model.collections.get(step.collection);
      if (cpu !== undefined) model.releaseCpu(cpu);
      return 0;
    }
    case 'movall':
      bench.command((words) => encodeMovall(words, step.from << 16, step.to << 16));
      if (step.from === step.to) return 0;
      for (const key of [...model.pending]) {
        if (Math.floor(key / 65536) === step.from) model.move(key, step.to * 65536 + (key % 65536));
      }
      return 0;
    default:
      return invalidate(bench, model, step);
  }
}

/** INV, alone or behind a change of the property byte. */
function invalidate(bench: ItsBench, model: Model, step: Extract<Step, { kind: 'enable' | 'inv' | string }>): number {
  if (step.kind !== 'enable' && step.kind !== 'inv') return 0;
  const lpi = lpiOf(step.device, step.event);
  if (step.kind === 'enable') {
    bench.setEnabled(lpi, step.on);
    if (step.on) model.enabled.add(lpi);
    else model.enabled.delete(lpi);
  }
  bench.command((words) => encodeInv(words, step.device, step.event));
  const cpu = model.cpuOf(step.device, step.event);
  if (typeof cpu === 'number') model.release(cpu * 65536 + lpi);
  return 0;
}

const byNumber = (seen: readonly [number, number][]): number[] =>
  seen.map(([lpi, cpu]) => cpu * 65536 + lpi).sort((a, b) => a - b);

describe('random programs of ITS commands', () => {
  it('one that MOVALL left waiting at an enabled LPI merges with the next message', () => {
    reset(shared);
    const model = new Model();
    const { ledger } = shared.tap;
    for (const one of PRELUDE) apply(shared, model, one);
    const steps: Step[] = [
      { kind: 'send', device: 0, event: 1 },
      { kind: 'movall', from: 1, to: 0 },
      { kind: 'enable', device: 0, event: 1, on: true },
      { kind: 'mapc', collection: 1, cpu: 0, valid: true },
    ];
    for (const one of steps) apply(shared, model, one);
    expect([shared.sink.take(), ledger[Count.PENDING]]).toEqual([[], 1]);
    apply(shared, model, { kind: 'send', device: 0, event: 1 });
    expect(shared.sink.take()).toEqual([[lpiOf(0, 1), 0]]);
    expect([ledger[Count.PENDING], ledger[Count.COALESCED]]).toEqual([0, 1]);
  });

  it('do what the architecture says, and the ledger is even after each step', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 5, maxLength: 60 }), (steps) => {
        const bench = shared;
        reset(bench);
        const model = new Model();
        const { ledger } = bench.tap;
        let sent = 0;
        for (const one of PRELUDE) apply(bench, model, one);
        bench.sink.take();
        for (const one of steps) {
          model.fired = [];
          sent += apply(bench, model, one);
          expect(byNumber(bench.sink.take())).toEqual(byNumber(model.fired));
          expect(ledger[Count.PENDING]).toBe(model.pending.size);
        }
        const lost = [Loss.ITS_NO_DEVICE, Loss.ITS_NO_EVENT, Loss.ITS_NO_COLLECTION, Loss.TORN_DOWN]
          .map((loss) => ledger[Count.LOST + loss])
          .reduce((sum, count) => sum + count, 0);
        expect(lost).toBe(model.lost);
        expect(ledger[Count.COALESCED]).toBe(model.coalesced);
        expect(sent).toBe(model.delivered + model.coalesced + model.pending.size + model.lost);
      }),
      { numRuns: 1200 },
    );
  });
});

const shared = new ItsBench({ cpus: CPUS });
const baseline = shared.memory.allocated;

/** A bench as new: nothing mapped but the collections of CPU 0 and 1, nothing pending, every LPI disabled. */
function reset(bench: ItsBench): void {
  for (let id = 0; id < DEVICES; id++) bench.command((words) => encodeMapd(words, id, 1, 0, false));
  for (let id = 0; id < COLLECTIONS; id++) bench.command((words) => encodeMapc(words, id, id << 16, id < CPUS));
  for (let at = 0; at < 64; at += 4) bench.memory.write32(bench.properties + at, 0);
  for (let cpu = 0; cpu < CPUS; cpu++) {
    for (let at = 1024; at < 1024 + 16; at += 4) bench.memory.write32(bench.pending[cpu] + at, 0);
    bench.gic.redistributors[cpu].pendingCount = 0;
  }
  bench.tap.ledger.fill(0);
  bench.sink.take();
  bench.its.cache.flush();
  bench.freeAbove(baseline);
}
