import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MsixEntry, MsixFlags } from '../arch/pci/msix.ts';
import type { GuestCpu } from '../ports/guest.ts';
import { Count } from '../ports/ledger.ts';
import { type GuestController, startController } from './guest-controller.ts';
import { type GuestMap, q35Map, virtMap } from './guest-map.ts';
import { MsixEmulation } from './msix-emulation.ts';
import { balance, FakeHost } from './testing/fake-host.ts';
import { testVm } from './testing/test-guest.ts';

const RAM = 0x20_0000;
const DEVICE = 8;

interface Bench {
  readonly msix: MsixEmulation;
  readonly host: FakeHost;
  readonly cpu: GuestCpu;
  readonly controller: GuestController;
  readonly ledger: Float64Array;
  readonly warnings: string[];
  readonly modes: boolean[];
  readonly intids: readonly number[];
  /** Served interrupts by vector. */
  readonly served: number[];
  serve(): void;
  setMask(vector: number, masked: boolean): void;
  /** Writes the messages into the table. */
  program(): void;
  close(): void;
}

/** Vectors 0 to count - 1 have their message in the table and are masked; MSI-X is off. */
function bench(map: GuestMap, count: number, options: { resizable?: boolean; available?: number } = {}): Bench {
  const { vm, client, ledger } = testVm(map);
  const host = new FakeHost(client.process, ledger, count, options.resizable ?? false, options.available);
  const warnings: string[] = [];
  const modes: boolean[] = [];
  const cpu = vm.attachCpu(0, () => {});
  const controller = startController(vm, [cpu]);
  const msix = new MsixEmulation({
    kvm: vm.kvm,
    routes: vm.routes,
    host,
    vectors: count,
    devid: DEVICE,
    onMode: (enabled) => modes.push(enabled),
    hostPending: (offset) => host.pendingBits(offset),
    warn: (text) => warnings.push(text),
  });
  const interrupts = controller.allocateMsis(DEVICE, count);
  const program = (): void => {
    for (const [i, { message }] of interrupts.entries()) {
      msix.writeTable(i * MsixEntry.SIZE, 4, message.address);
      msix.writeTable(i * MsixEntry.SIZE + MsixEntry.DATA, 4, message.data);
    }
  };
  program();
  const intids = interrupts.map(({ intid }) => intid);
  const served = new Array<number>(count).fill(0);
  const serve = (): void => {
    for (let intid = cpu.acknowledge(); intid !== 1023; intid = cpu.acknowledge()) {
      served[intids.indexOf(intid)]++;
      cpu.endOfInterrupt(intid);
    }
  };
  const setMask = (vector: number, masked: boolean): void =>
    msix.writeTable(vector * MsixEntry.SIZE + MsixEntry.CONTROL, 4, masked ? 1 : 0);
  return {
    msix,
    host,
    cpu,
    controller,
    ledger,
    warnings,
    modes,
    intids,
    served,
    serve,
    setMask,
    program,
    close: () => vm.close(),
  };
}

const maps: [string, GuestMap][] = [
  ['ITS', virtMap({ ram: RAM })],
  ['GICv2m', virtMap({ ram: RAM, msi: 'v2m' })],
  ['GICv2 with v2m', virtMap({ ram: RAM, gic: 2, msi: 'v2m' })],
  ['x86', q35Map({ ram: RAM })],
];

describe.each(maps)('MSI-X of a guest with %s', (_, map) => {
  it('a vector reaches the guest by its irqfd; masked it waits in the pending bits; unmasked it comes', () => {
    const { msix, host, served, serve, setMask, ledger, modes, close } = bench(map, 4);
    setMask(1, false);
    msix.writeFlags(MsixFlags.ENABLE);
    expect(modes).toEqual([true]);
    host.fire(1);
    serve();
    expect(served).toEqual([0, 1, 0, 0]);
    setMask(1, true);
    host.fire(1);
    host.fire(1);
    serve();
    expect(served[1]).toBe(1);
    expect(msix.readPending(0, 4)).toBe(2);
    setMask(1, false);
    serve();
    expect(served[1]).toBe(2);
    expect(msix.readPending(0, 4)).toBe(0);
    expect(balance(ledger).sent).toBe(balance(ledger).ended);
    close();
  });

  it('a vector that was never unmasked waits in the device, and comes with the first unmask', () => {
    const { msix, host, served, serve, setMask, close } = bench(map, 4);
    msix.writeFlags(MsixFlags.ENABLE);
    host.fire(3);
    expect(msix.readPending(0, 1)).toBe(8);
    setMask(3, false);
    serve();
    expect(served).toEqual([0, 0, 0, 1]);
    close();
  });

  it('the function mask holds all, and lets all go', () => {
    const { msix, host, served, serve, setMask, close } = bench(map, 3);
    for (let i = 0; i < 3; i++) setMask(i, false);
    msix.writeFlags(MsixFlags.ENABLE | MsixFlags.FUNCTION_MASK);
    for (let i = 0; i < 3; i++) host.fire(i);
    serve();
    expect(served).toEqual([0, 0, 0]);
    msix.writeFlags(MsixFlags.ENABLE);
    serve();
    expect(served).toEqual([1, 1, 1]);
    close();
  });

  it('off and on again', () => {
    const { msix, host, served, serve, setMask, modes, ledger, close } = bench(map, 2);
    setMask(0, false);
    for (let round = 0; round < 3; round++) {
      msix.writeFlags(MsixFlags.ENABLE);
      host.fire(0);
      serve();
      msix.writeFlags(0);
      host.fire(0);
    }
    expect(served[0]).toBe(3);
    expect(modes).toEqual([true, false, true, false, true, false]);
    expect(balance(ledger).sent).toBe(balance(ledger).ended);
    close();
  });
});

describe('what the host is asked', () => {
  it('where vectors cannot be added, all are allocated at once and never again', () => {
    const { msix, host, setMask, close } = bench(virtMap({ ram: RAM }), 4);
    msix.writeFlags(MsixFlags.ENABLE);
    setMask(2, false);
    setMask(2, true);
    expect(host.log).toEqual(['program 0 [----]', 'program 2 [e]', 'program 2 [e]']);
    close();
  });

  it('where they can, as the guest unmasks them', () => {
    const { msix, host, setMask, close } = bench(q35Map({ ram: RAM }), 4, { resizable: true });
    msix.writeFlags(MsixFlags.ENABLE);
    setMask(2, false);
    expect(host.log).toEqual(['program 0 [-]', 'program 2 [e]']);
    close();
  });

  it('a short answer is taken, and the vectors beyond are told to people, not to the guest', () => {
    const { msix, host, served, serve, setMask, warnings, close } = bench(virtMap({ ram: RAM }), 4, { available: 2 });
    for (let i = 0; i < 4; i++) setMask(i, false);
    msix.writeFlags(MsixFlags.ENABLE);
    expect(host.log).toEqual(['program 0 [eeee]', 'program 0 [ee]']);
    expect(warnings).toEqual(['MSI-X: the host has 2 of 4 vectors; vectors 2 to 3 of the guest cannot fire']);
    expect(msix.flags).toBe(MsixFlags.ENABLE | 3);
    host.fire(1);
    serve();
    setMask(3, true);
    setMask(3, false);
    expect(served).toEqual([0, 1, 0, 0]);
    close();
  });

  it('the routes of all vectors are one table, given before any irqfd', () => {
    const { vm, client, ledger } = testVm(virtMap({ ram: RAM }));
    const host = new FakeHost(client.process, ledger, 64, false);
    const msix = new MsixEmulation({
      kvm: vm.kvm,
      routes: vm.routes,
      host,
      vectors: 64,
      devid: DEVICE,
      onMode: () => {},
      warn: () => {},
    });
    for (let i = 0; i < 64; i++) msix.writeTable(i * 16 + 12, 4, 0);
    msix.writeFlags(MsixFlags.ENABLE);
    expect(vm.routes.commits).toBe(1);
    vm.close();
  });
});

type Step =
  | { kind: 'fire' | 'mask' | 'unmask'; vector: number }
  | { kind: 'function'; on: boolean }
  | { kind: 'enable'; on: boolean }
  | { kind: 'serve' };

const vectors = 5;
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom('fire' as const, 'mask' as const, 'unmask' as const),
      vector: fc.nat(vectors - 1),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('function' as const), on: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('enable' as const), on: fc.boolean() }) },
  { weight: 2, arbitrary: fc.constant({ kind: 'serve' as const }) },
);

describe('random programs of a guest and a device', () => {
  it.each(maps)('%s: nothing is lost but while MSI-X is off, and the ledger balances', (_, map) => {
    const bed = bench(map, vectors);
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40, size: 'max' }), (steps) => {
        run(bed, steps);
        const { sent, ended } = balance(bed.ledger);
        expect(ended).toBe(sent);
        expect(bed.ledger[Count.PENDING]).toBe(0);
      }),
      { numRuns: 1000 },
    );
    bed.close();
  });
});

/** After the program everything is unmasked and served: then each vector that fired while MSI-X was on must have been served. */
function run(bed: Bench, steps: readonly Step[]): void {
  const { msix, host, setMask, serve, served } = bed;
  msix.reset();
  serve();
  bed.program();
  const owed = new Array<boolean>(vectors).fill(false);
  const before = [...served];
  const settle = (): void => {
    serve();
    for (let i = 0; i < vectors; i++) if (served[i] > before[i]) owed[i] = false;
    for (let i = 0; i < vectors; i++) before[i] = served[i];
  };
  for (const step of steps) {
    if (step.kind === 'serve') settle();
    else if (step.kind === 'function')
      msix.writeFlags((msix.enabled ? MsixFlags.ENABLE : 0) | (step.on ? MsixFlags.FUNCTION_MASK : 0));
    else if (step.kind === 'enable') {
      msix.writeFlags((msix.flags & MsixFlags.FUNCTION_MASK) | (step.on ? MsixFlags.ENABLE : 0));
      settle();
      // What the device held itself goes when MSI-X goes off.
      if (!step.on) owed.fill(false);
    } else if (step.kind === 'fire') {
      host.fire(step.vector);
      if (msix.enabled) owed[step.vector] = true;
    } else setMask(step.vector, step.kind === 'mask');
  }
  if (!msix.enabled) owed.fill(false);
  msix.writeFlags(MsixFlags.ENABLE);
  for (let i = 0; i < vectors; i++) setMask(i, false);
  settle();
  expect(owed).toEqual(new Array<boolean>(vectors).fill(false));
}
