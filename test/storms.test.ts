/** Storms: 20,000 interrupts each, on every kind of host. `npm run smoke` sends a million of each through the command. */
import { describe, expect, it } from 'vitest';
import { QUEUE_OVERFLOW, Reg } from '../src/arch/smmuv3/index.ts';
import type { Host } from '../src/kernel/boot/boot.ts';
import type { PresetName } from '../src/machine/presets.ts';
import { Count } from '../src/ports/ledger.ts';
import { openDevice, VfioError } from '../src/vfio/index.ts';
import { virtMap } from '../src/vmm/index.ts';
import { countsOf } from './support/counts.ts';
import { GuestRig } from './support/guest-rig.ts';
import { DEVICE, testHost } from './support/host.ts';
import { msiMessage } from './support/messages.ts';
import { smmuBase } from './support/walk.ts';

const STORM = 20_000;
const MiB = 0x10_0000;
const ram = { ram: 16 * MiB };

interface Served {
  readonly total: number;
  /** Interrupts that were not served at once, or served as another vector, or twice. */
  readonly astray: number;
  readonly perVector: Int32Array;
}

/** Rings the vectors in turn; each must be served before the next. */
function storm(rig: GuestRig, vectors: number): Served {
  const perVector = new Int32Array(vectors);
  let [total, astray, expected] = [0, 0, -1];
  rig.enable(vectors, (vector) => {
    perVector[vector]!++;
    total++;
    if (vector !== expected) astray++;
    expected = -1;
  });
  const { function: device } = rig;
  const { work } = rig.host.machine;
  let vector = 0;
  for (let i = 0; i < STORM; i++) {
    expected = vector;
    device.raise(vector);
    work.drain();
    if (expected !== -1) astray++;
    vector = vector + 1 === vectors ? 0 : vector + 1;
  }
  return { total, astray, perVector };
}

const bell = (kind: 'MSI' | 'MSI-X', vectors: number) =>
  kind === 'MSI' ? { msix: 0, msi: vectors } : { msix: vectors, msi: 0 };

describe('20,000 interrupts are delivered, in order, none twice', () => {
  it.each([
    ['arm-its', 'MSI', 1],
    ['arm-its', 'MSI', 32],
    ['arm-its', 'MSI-X', 1],
    ['arm-its', 'MSI-X', 3],
    ['arm-its', 'MSI-X', 2048],
    ['arm-v2m', 'MSI', 1],
    ['arm-v2m', 'MSI-X', 3],
    ['arm-v2m', 'MSI-X', 512],
    ['x86', 'MSI', 1],
    ['x86', 'MSI-X', 1],
    ['x86', 'MSI-X', 3],
    ['x86', 'MSI-X', 512],
  ] as const)('%s, %s, %i', (name, kind, vectors) => {
    const host = testHost(name, { allowUnsafeInterrupts: name === 'arm-v2m', options: bell(kind, vectors) });
    const rig = new GuestRig(host, name === 'x86' ? {} : { map: virtMap(ram) });
    const { total, astray, perVector } = storm(rig, vectors);
    expect({ total, astray }).toEqual({ total: STORM, astray: 0 });
    // Every vector in turn: counts differ by one at the most.
    expect(Math.max(...perVector) - Math.min(...perVector)).toBeLessThanOrEqual(1);
    expect(countsOf(host.machine.tap)).toEqual({ sent: STORM, delivered: STORM, coalesced: 0, pending: 0, lost: {} });
    expect(host.machine.tap.ledger[Count.FAULTS]).toBe(0);
    if (kind === 'MSI') expect(msiMessage(rig.dev)).toMatchObject({ vectors, enabled: true });
    rig.close();
    expect(countsOf(host.machine.tap).pending).toBe(0);
  });
});

describe('a host whose MSIs are not isolated', () => {
  it('EPERM: VFIO refuses the device, and says what would allow it', () => {
    const { kernel } = testHost('arm-v2m').process();
    let refused: unknown = null;
    try {
      openDevice(kernel, DEVICE);
    } catch (error) {
      refused = error;
    }
    expect(refused).toBeInstanceOf(VfioError);
    expect(refused).toMatchObject({ code: 'EPERM', errno: 1 });
    expect((refused as VfioError).message).toMatch(/allow_unsafe_interrupts/);
  });

  it('956: SET_IRQS for 2,048 vectors answers how many SPIs there are, and enables none', () => {
    const host = testHost('arm-v2m', { allowUnsafeInterrupts: true, options: { msix: 2048 } });
    const { kernel } = host.process({ limits: { nofile: 4096 } });
    using device = openDevice(kernel, DEVICE);
    const fds = Array.from({ length: 2048 }, () => {
      const eventfd = kernel.eventfd();
      return typeof eventfd === 'number' ? eventfd : eventfd.fd;
    });
    expect(Math.min(...fds)).toBeGreaterThan(0);
    expect(device.msix.program(0, fds)).toBe(956);
    expect(host.msi.mode(host.pciDevices.find(({ name }) => name === DEVICE)!)).toBeNull();
    // QEMU retries with the number that it was given.
    expect(device.msix.program(0, fds.slice(0, 956))).toBe(0);
    device.msix.disable();
  });
});

describe('20,000 interrupts that nobody acknowledges', () => {
  it.each(['arm-its', 'arm-v2m', 'x86'] as const)('%s: one of each vector is pending, the others coalesce', (name) => {
    const host = testHost(name, { allowUnsafeInterrupts: true, options: bell('MSI-X', 3) });
    const rig = new GuestRig(host, name === 'x86' ? {} : { map: virtMap(ram) });
    const served: number[] = [];
    rig.enable(3, (vector) => served.push(vector));
    rig.guest.paused = true;
    for (let i = 0; i < STORM; i++) rig.ring(i % 3);
    expect(countsOf(host.machine.tap)).toEqual({
      sent: STORM,
      delivered: 0,
      coalesced: STORM - 3,
      pending: 3,
      lost: {},
    });
    rig.guest.paused = false;
    rig.guest.serve();
    expect(served.toSorted()).toEqual([0, 1, 2]);
    expect(countsOf(host.machine.tap)).toMatchObject({ delivered: 3, coalesced: STORM - 3, pending: 0 });
    rig.close();
  });

  it('in eventfds that nobody reads: the counters hold all of them', () => {
    const host = testHost('arm-its', { options: bell('MSI-X', 2) });
    const { kernel } = host.process();
    using device = openDevice(kernel, DEVICE);
    device.config.busMaster = true;
    const { vectors } = device.msix.enable(2);
    const fn = host.machine.pci.function(DEVICE)!;
    for (let i = 0; i < STORM; i++) fn.raise(i & 1);
    expect(countsOf(host.machine.tap)).toMatchObject({ sent: STORM, coalesced: STORM - 2, pending: 2 });
    expect(vectors.map((vector) => vector.take())).toEqual([STORM / 2, STORM / 2]);
    expect(countsOf(host.machine.tap)).toMatchObject({ delivered: 2, pending: 0 });
  });
});

describe('the kernel before the RFC, on Arm', () => {
  it.each(['arm-its', 'arm-v2m'] as const)('%s: 20,000 are sent, none is delivered, each has a record', (name) => {
    const host = testHost(name, { doorbellPolicy: 'none', allowUnsafeInterrupts: true, options: bell('MSI-X', 3) });
    const rig = new GuestRig(host, { map: virtMap(ram), doorbell: 'none' });
    rig.enable(3, () => expect.unreachable());
    for (let i = 0; i < STORM; i++) rig.ring(i % 3);
    const lost = { IOMMU_FAULT: STORM };
    expect(countsOf(host.machine.tap)).toEqual({ sent: STORM, delivered: 0, coalesced: 0, pending: 0, lost });
    expect(host.machine.tap.ledger[Count.FAULTS]).toBe(STORM);
    expect(host.machine.tap.ledger[Count.FAULTS_OVERFLOWED]).toBe(0);
    rig.close();
  });

  it('x86: the same kernel delivers all of them', () => {
    const host = testHost('x86', { doorbellPolicy: 'none', options: bell('MSI-X', 3) });
    const rig = new GuestRig(host);
    expect(storm(rig, 3)).toMatchObject({ total: STORM, astray: 0 });
    rig.close();
  });
});

describe('an event queue whose consumer is stopped', () => {
  const registers = (host: Host) => {
    const base = smmuBase(host);
    return { prod: host.machine.bus.read32(base + Reg.EVTQ_PROD), cons: host.machine.bus.read32(base + Reg.EVTQ_CONS) };
  };
  const flooded = (name: PresetName, eventQueueLog2: number) => {
    const iommu = { type: 'smmuv3', base: 0x5200_0000, eventQueueLog2 } as const;
    const host = testHost(name, { doorbellPolicy: 'none', input: { iommu }, options: bell('MSI-X', 1) });
    host.consumesIommuEvents = false;
    const rig = new GuestRig(host, { doorbell: 'none' });
    rig.enable(1);
    return { host, rig };
  };

  it.each([1, 3, 7])(
    'of 2^%i entries: it takes exactly so many records, toggles OVFLG once, and counts the others',
    (n) => {
      const { host, rig } = flooded('arm-its', n);
      const { ledger } = host.machine.tap;
      for (let i = 1; i <= 2 ** n; i++) {
        rig.ring(0);
        // Index and wrap bit: n + 1 bits.
        expect(registers(host)).toEqual({ prod: i, cons: 0 });
      }
      for (let i = 0; i < 1000; i++) rig.ring(0);
      expect(registers(host)).toEqual({ prod: (2 ** n) | QUEUE_OVERFLOW, cons: 0 });
      expect([ledger[Count.FAULTS], ledger[Count.FAULTS_OVERFLOWED]]).toEqual([2 ** n, 1000]);
      expect(countsOf(host.machine.tap).lost).toEqual({ IOMMU_FAULT: 2 ** n + 1000 });
      rig.close();
    },
  );

  it('goes on when it is emptied, with the overflow acknowledged and logged', () => {
    const { host, rig } = flooded('arm-its', 3);
    const { ledger } = host.machine.tap;
    for (let i = 0; i < 20; i++) rig.ring(0);
    host.consumesIommuEvents = true;
    host.machine.work.drain();
    const overflow = (8 | QUEUE_OVERFLOW) as number;
    expect(registers(host)).toEqual({ prod: overflow, cons: overflow });
    expect(host.log.lines.join('\n')).toContain('EVTQ overflow detected -- events lost');
    for (let i = 0; i < 20; i++) rig.ring(0);
    expect([ledger[Count.FAULTS], ledger[Count.FAULTS_OVERFLOWED]]).toEqual([28, 12]);
    rig.close();
  });
});
