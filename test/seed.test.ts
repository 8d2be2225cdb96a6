/**
 * The RFC "VFIO: Add virtual MSI doorbell support" (July 2015), sentence by sentence: what it says of the problem, and the two
 * things that it asks for, each as a test on a whole host.
 */
import { describe, expect, it } from 'vitest';
import { CapabilityId } from '../src/arch/pci/index.ts';
import { Reg } from '../src/arch/smmuv3/index.ts';
import { remappableAddress } from '../src/arch/x86/index.ts';
import type { Host } from '../src/kernel/boot/boot.ts';
import { openDevice, VfioError } from '../src/vfio/index.ts';
import { virtMap } from '../src/vmm/index.ts';
import { countsOf, during } from './support/counts.ts';
import { GuestRig } from './support/guest-rig.ts';
import { DEVICE, testHost } from './support/host.ts';
import { msiMessage, msixEntry } from './support/messages.ts';
import { smmuBase, walk, word } from './support/walk.ts';

/** The requester id of 01:00.0. */
const SID = 0x100;
/** GITS_TRANSLATER and MSI_SETSPI_NS of the presets. */
const TRANSLATER = 0x5081_0040;
const SETSPI = 0x5090_0040;
const MiB = 0x10_0000;

const theDevice = (host: Host) => host.pciDevices.find(({ name }) => name === DEVICE)!;
const code = (act: () => void): string => {
  try {
    act();
  } catch (error) {
    if (error instanceof VfioError) return error.code;
    throw error;
  }
  return 'no error';
};

/** The record at the reader's place in the event queue, as software finds it in memory; null when the queue is empty. */
function firstEvent(host: Host): bigint[] | null {
  const base = smmuBase(host);
  const { bus } = host.machine;
  const low = bus.read32(base + Reg.EVTQ_BASE);
  const queue = (bus.read32(base + Reg.EVTQ_BASE + 4) & 0xfffff) * 2 ** 32 + ((low & ~0x1f) >>> 0);
  const mask = 2 ** ((low & 0x1f) + 1) - 1;
  const cons = bus.read32(base + Reg.EVTQ_CONS) & mask;
  if (cons === (bus.read32(base + Reg.EVTQ_PROD) & mask)) return null;
  return [0, 8, 16, 24].map((at) => word(host, queue + (cons & (mask >> 1)) * 32 + at));
}

describe('the host driver allocates vectors with pci_enable_msi_range or pci_enable_msix_range', () => {
  it('MSI: the vector carries the physical address of the controller, as the RFC found it', () => {
    for (const [name, doorbell] of [
      ['arm-its', TRANSLATER],
      ['arm-v2m', SETSPI],
    ] as const) {
      const host = testHost(name, { doorbellPolicy: 'none', options: { msix: 0, msi: 4 } });
      const dev = theDevice(host);
      expect(host.msi.allocIrqVectors(dev, 1, 4, 'msi')).toBe(4);
      expect(msiMessage(dev)).toMatchObject({ address: doorbell, vectors: 4, enabled: true });
      host.msi.freeIrqVectors(dev);
      expect(msiMessage(dev).enabled).toBe(false);
    }
  });

  it('MSI-X: every entry carries the physical address of the controller', () => {
    for (const [name, doorbell] of [
      ['arm-its', TRANSLATER],
      ['arm-v2m', SETSPI],
    ] as const) {
      const host = testHost(name, { doorbellPolicy: 'none', options: { msix: 8 } });
      const dev = theDevice(host);
      dev.configWrite(4, 2, 6);
      expect(host.msi.allocIrqVectors(dev, 1, 3, 'msix')).toBe(3);
      const entries = [0, 1, 2].map((index) => msixEntry(host, dev, index));
      expect(entries.map(({ address }) => address)).toEqual([doorbell, doorbell, doorbell]);
      // ITS: the event id; GICv2m: the SPI, and the frame's first is 64.
      const first = name === 'arm-its' ? 0 : 64;
      expect(entries.map(({ data }) => data)).toEqual([first, first + 1, first + 2]);
      host.msi.freeIrqVectors(dev);
    }
  });

  it('x86: the address is that of the reserved MSI range, in the remappable format', () => {
    const host = testHost('x86', { options: { msix: 8 } });
    const dev = theDevice(host);
    dev.configWrite(4, 2, 6);
    expect(host.msi.allocIrqVectors(dev, 1, 3, 'msix')).toBe(3);
    for (const index of [0, 1, 2]) {
      const { address } = msixEntry(host, dev, index);
      // Handles begin behind the 16 of the I/O APIC (Intel VT-d 5.1.2.2 for the format).
      expect(address & ~(1 << 3)).toBe(remappableAddress(16 + index, false) | 0);
      expect(address).toBeGreaterThanOrEqual(0xfee0_0000);
      expect(address).toBeLessThan(0xfef0_0000);
    }
    host.msi.freeIrqVectors(dev);
  });
});

describe('VFIO signals an eventfd for each vector, and irqfd injects it into the guest', () => {
  it.each(['arm-its', 'arm-v2m', 'x86'] as const)('%s: three vectors, three eventfds', (name) => {
    const host = testHost(name, { allowUnsafeInterrupts: true, options: { msix: 3 } });
    const { kernel } = host.process();
    using device = openDevice(kernel, DEVICE);
    device.config.busMaster = true;
    const { vectors, granted } = device.msix.enable(3);
    expect(granted).toBe(3);
    const fn = host.machine.pci.function(DEVICE)!;
    for (const vector of [2, 0, 0, 1]) fn.raise(vector);
    expect(vectors.map(({ eventfd }) => eventfd.count)).toEqual([2, 1, 1]);
    expect(vectors.map((vector) => vector.take())).toEqual([2, 1, 1]);
  });

  it.each(['arm-its', 'arm-v2m', 'x86'] as const)('%s: the irqfd takes the eventfd to the guest', (name) => {
    const host = testHost(name, { allowUnsafeInterrupts: true, options: { msix: 3 } });
    const map = name === 'arm-v2m' ? { map: virtMap({ ram: 4 * MiB, gic: 2, msi: 'v2m' }) } : {};
    const rig = new GuestRig(host, map);
    const served: number[] = [];
    rig.enable(3, (vector) => served.push(vector));
    const counts = during(host.machine.tap, () => {
      for (const vector of [1, 0, 2, 1]) rig.ring(vector);
    });
    expect(served).toEqual([1, 0, 2, 1]);
    expect(counts).toEqual({ sent: 4, delivered: 4, coalesced: 0, pending: 0, lost: {} });
    rig.close();
  });
});

describe('the guest sees an MSI controller that is emulated', () => {
  it("an ITS: the guest's own address stands in the guest's entry, and never the host's", () => {
    const host = testHost('arm-its', { options: { msix: 3 } });
    const rig = new GuestRig(host, { doorbell: 'window' });
    const { interrupts } = rig.enable(3);
    expect(interrupts.map(({ message }) => message)).toEqual([
      { address: 0x0809_0040, data: 0 },
      { address: 0x0809_0040, data: 1 },
      { address: 0x0809_0040, data: 2 },
    ]);
    const { msix, device, bars } = rig.assignment.device;
    for (let index = 0; index < 3; index++) {
      const words = [0, 4, 8].map((at) => msix!.readTable(index * 16 + at, 4));
      expect(words).toEqual([0x0809_0040, 0, index]);
      // The function itself has another address, which no register of the guest shows.
      expect(msixEntry(host, rig.dev, index)).toEqual({ address: 0x0800_0040, data: index, masked: false });
    }
    const seen: number[] = [];
    for (let at = 0; at < 256; at += 4) seen.push(rig.vm.configRead(rig.assignment.device.guestId, at, 4));
    const table = bars.find(0x1000_0000);
    expect(table).not.toBeNull();
    expect(device.config.find(CapabilityId.MSIX)).not.toBeNull();
    for (const address of [TRANSLATER, 0x0800_0040]) expect(seen).not.toContain(address);
    rig.close();
  });

  it('a GICv2m frame of the VMM: SPIs of the guest, at the address of its own frame', () => {
    const host = testHost('arm-v2m', { allowUnsafeInterrupts: true, options: { msix: 3 } });
    const rig = new GuestRig(host, { doorbell: 'window', map: virtMap({ ram: 4 * MiB, gic: 2, msi: 'v2m' }) });
    const { interrupts } = rig.enable(3);
    // An aligned block of four within the frame's SPIs from 80 on.
    expect(interrupts.map(({ message }) => message)).toEqual([
      { address: 0x0802_0040, data: 80 },
      { address: 0x0802_0040, data: 81 },
      { address: 0x0802_0040, data: 82 },
    ]);
    expect(msixEntry(host, rig.dev, 0)).toEqual({ address: 0x0800_0040, data: 64, masked: false });
    rig.close();
  });
});

describe('on x86 the IOMMU reserves the MSI range and does not translate it', () => {
  it('the range is reserved, has no page table entry, and still the interrupt is delivered', () => {
    const host = testHost('x86', { options: { msix: 3 } });
    const rig = new GuestRig(host);
    const served: number[] = [];
    rig.enable(3, (vector) => served.push(vector));
    const group = rig.dev.iommuGroup!;
    expect(rig.kernel.readText(`/sys/kernel/iommu_groups/${group.id}/reserved_regions`)).toBe(
      '0x00000000fee00000 0x00000000feefffff msi\n',
    );
    const { address } = msixEntry(host, rig.dev, 0);
    expect(address).toBeGreaterThanOrEqual(0xfee0_0000);
    for (let page = 0xfee0_0000; page < 0xfef0_0000; page += 0x1000) expect(group.domain!.lookup(page)).toBe(-1);
    for (const vector of [0, 1, 2]) rig.ring(vector);
    expect(served).toEqual([0, 1, 2]);
    expect(countsOf(host.machine.tap)).toEqual({ sent: 3, delivered: 3, coalesced: 0, pending: 0, lost: {} });
    rig.close();
  });

  it('EINVAL: MAP_DMA over the reserved range is refused', () => {
    const { kernel } = testHost('x86').process();
    using device = openDevice(kernel, DEVICE);
    expect(code(() => device.container.mapDma({ length: 0x1000, iova: 0xfee0_0000 }).close())).toBe('EINVAL');
    expect(code(() => device.container.mapDma({ length: 0x1000, iova: 0xfef0_0000 }).close())).toBe('no error');
  });
});

describe('on Arm the write to the doorbell is translated like any other', () => {
  it.each([
    ['arm-its', 'MSI-X', TRANSLATER, { msix: 3 }],
    ['arm-its', 'MSI', TRANSLATER, { msix: 0, msi: 1 }],
    ['arm-v2m', 'MSI-X', SETSPI, { msix: 3 }],
  ] as const)('%s, %s: it faults, and the record holds the physical doorbell', (name, _kind, doorbell, options) => {
    const host = testHost(name, { doorbellPolicy: 'none', allowUnsafeInterrupts: true, options });
    host.consumesIommuEvents = false;
    const map = name === 'arm-v2m' ? { map: virtMap({ ram: 4 * MiB, gic: 2, msi: 'v2m' }) } : {};
    const rig = new GuestRig(host, { ...map, doorbell: 'none' });
    rig.enable(1);
    expect(walk(host, SID, doorbell).pa).toBeNull();
    expect(firstEvent(host)).toBeNull();
    const counts = during(host.machine.tap, () => rig.ring(0));
    expect(counts).toEqual({ sent: 1, delivered: 0, coalesced: 0, pending: 0, lost: { IOMMU_FAULT: 1 } });
    // F_TRANSLATION (0x10) of stream 0x100; a write, class IN; the doorbell's address; no IPA (IHI 0070 7.3.12).
    expect(firstEvent(host)).toEqual([0x0000_0100_0000_0010n, 0x0000_0200_0000_0000n, BigInt(doorbell), 0n]);
    rig.close();
  });

  it('the kernel logs the fault, and tells nobody else', () => {
    const host = testHost('arm-its', { doorbellPolicy: 'none', options: { msix: 1 } });
    const rig = new GuestRig(host, { doorbell: 'none' });
    rig.enable(1);
    rig.ring(0);
    const log = host.log.lines.join('\n');
    expect(log).toContain('event: F_TRANSLATION client: 0000:01:00.0 sid: 0x100 ssid: 0x0 iova: 0x50810040 ipa: 0x0');
    rig.close();
  });
});

describe('requirement 1: user space provides the IOVA, and the host programs it into the vectors', () => {
  it.each([
    ['the MSI address that the guest was given (0x0809_0040)', 'auto', 0x0809_0040],
    ['any other address: the page is given, the low bits are the doorbell register', 0x1234_5000, 0x1234_5040],
    ['an address above 4 GiB', 0x12_3456_7000, 0x12_3456_7040],
  ] as const)('MSI-X, %s', (_what, doorbell, address) => {
    const host = testHost('arm-its', { options: { msix: 4 } });
    const rig = new GuestRig(host, { doorbell });
    const served: number[] = [];
    rig.enable(3, (vector) => served.push(vector));
    for (let index = 0; index < 3; index++) {
      expect(msixEntry(host, rig.dev, index)).toEqual({ address, data: index, masked: false });
    }
    for (const vector of [0, 1, 2]) rig.ring(vector);
    expect(served).toEqual([0, 1, 2]);
    rig.close();
  });

  it.each([
    [1, 'auto', 0x0809_0040],
    [32, 'auto', 0x0809_0040],
    [8, 0x1234_5000, 0x1234_5040],
  ] as const)('MSI with %i messages: one address for all of them', (msi, doorbell, address) => {
    const host = testHost('arm-its', { options: { msix: 0, msi } });
    const rig = new GuestRig(host, { doorbell });
    const served: number[] = [];
    rig.enable(msi, (vector) => served.push(vector));
    expect(msiMessage(rig.dev)).toEqual({ address, data: 0, vectors: msi, enabled: true });
    for (let vector = 0; vector < msi; vector++) rig.ring(vector);
    expect(served).toEqual(Array.from({ length: msi }, (_, vector) => vector));
    rig.close();
  });

  it('user space can ask which IOVA a vector got', () => {
    const { kernel } = testHost('arm-its').process();
    using device = openDevice(kernel, DEVICE);
    device.doorbell.set({ iova: 0x0809_0040 });
    expect(device.doorbell.get(0)).toEqual({ address: 0x0809_0000, size: 0x1000, active: false, bypass: false });
    device.msix.enable(1);
    expect(device.doorbell.get(0)).toEqual({ address: 0x0809_0040, size: 0x1000, active: true, bypass: false });
  });
});

describe('requirement 2: the host maps that IOVA to the physical doorbell of the vector', () => {
  it.each([
    ['arm-its', TRANSLATER],
    ['arm-v2m', SETSPI],
  ] as const)(
    '%s: the tables in memory lead from the IOVA to the doorbell, for as long as vectors need it',
    (name, pa) => {
      const host = testHost(name, { allowUnsafeInterrupts: true, options: { msix: 4 } });
      const { kernel } = host.process();
      using device = openDevice(kernel, DEVICE);
      device.doorbell.set({ iova: 0x0809_0040 });
      expect(walk(host, SID, 0x0809_0040).pa).toBeNull();
      device.msix.enable(2);
      const found = walk(host, SID, 0x0809_0040);
      expect(found.pa).toBe(pa);
      // One page of 4 KiB at level 3 of 48-bit tables, writable, not executable, device memory: AttrIndx 2, AP[2] 0, XN and PXN.
      expect(found.steps.map(({ level }) => level)).toEqual([0, 1, 2, 3]);
      const leaf = found.steps.at(-1)!.descriptor;
      expect({
        type: leaf & 3n,
        attribute: (leaf >> 2n) & 7n,
        readOnly: (leaf >> 7n) & 1n,
        xn: (leaf >> 53n) & 3n,
      }).toEqual({
        type: 3n,
        attribute: 2n,
        readOnly: 0n,
        xn: 3n,
      });
      expect(walk(host, SID, 0x0809_1040).pa).toBeNull();
      expect(walk(host, SID, 0x0808_f040).pa).toBeNull();
      device.msix.disable();
      expect(walk(host, SID, 0x0809_0040).pa).toBeNull();
      device.msix.enable(1);
      expect(walk(host, SID, 0x0809_0040).pa).toBe(pa);
    },
  );

  it('the mapping is gone before the interrupt can be: a write to the IOVA of freed vectors faults again', () => {
    const host = testHost('arm-its', { options: { msix: 1 } });
    host.consumesIommuEvents = false;
    const { kernel } = host.process();
    using device = openDevice(kernel, DEVICE);
    device.config.busMaster = true;
    device.config.memoryEnabled = true;
    device.doorbell.set({ iova: 0x0809_0040 });
    device.msix.enable(1);
    host.machine.pci.function(DEVICE)!.raise(0);
    device.msix.disable();
    expect(firstEvent(host)).toBeNull();
    let done: boolean | null = null;
    host.machine.pci.function(DEVICE)!.dmaWrite(0x0809_0040, new Uint8Array(4), (ok) => {
      done = ok;
    });
    host.machine.work.drain();
    expect(done).toBe(false);
    expect(firstEvent(host)).toEqual([0x0000_0100_0000_0010n, 0x0000_0200_0000_0000n, 0x0809_0040n, 0n]);
  });
});

describe('x86 keeps working by bypass', () => {
  it('EOPNOTSUPP: SET of a doorbell has nothing to map, and GET says BYPASS without an address', () => {
    const host = testHost('x86');
    const { kernel } = host.process();
    using device = openDevice(kernel, DEVICE);
    expect(device.doorbell.probe()).toBe(true);
    expect(code(() => device.doorbell.set({ iova: 0x0809_0040 }))).toBe('EOPNOTSUPP');
    expect(device.doorbell.get(0)).toMatchObject({ address: 0, active: false, bypass: true });
    device.config.busMaster = true;
    const { vectors } = device.msix.enable(2);
    host.machine.pci.function(DEVICE)!.raise(1);
    expect(vectors.map((vector) => vector.take())).toEqual([0, 1]);
  });

  it('ENOTTY: with the ABI of Linux 7.2 there is no such request on any host', () => {
    for (const name of ['arm-its', 'x86'] as const) {
      const { kernel } = testHost(name, { abi: 'linux-7.2' }).process();
      using device = openDevice(kernel, DEVICE);
      expect(device.doorbell.probe()).toBe(false);
      expect(code(() => device.doorbell.set({ iova: 0x0809_0040 }))).toBe('ENOTTY');
    }
  });
});
