/** vfio-pci on a whole host: SMMUv3, GICv3 with an ITS, the real interrupt and MSI cores. Expected values: what real Linux showed, and vfio_pci_intrs.c.3, 3c.4. */
import { describe, expect, it } from 'vitest';
import { Machine } from '../../machine/machine.ts';
import { TestModel } from '../../machine/pci/testing/rig.ts';
import { preset } from '../../machine/presets.ts';
import { Count, LEDGER_SIZE } from '../../ports/ledger.ts';
import { errnoName } from '../../uapi/errno.ts';
import { VFIO_DEVICE_RESET } from '../../uapi/vfio.ts';
import { bootLinux, type Host } from '../boot/boot.ts';
import { EventFdFile, SimEventFd } from '../eventfd.ts';
import { setMsiCookie } from '../irq/msi-cookie.ts';
import { Type1WindowCookie } from '../irq/type1-cookie.ts';
import type { PciDevice } from '../pci/pci-device.ts';
import type { Process } from '../process.ts';
import { VfioPciCore } from './core.ts';
import { ENDPOINT } from './testing/rig.ts';

const NONE_TRIGGER = 0x21;
const EVENTFD_TRIGGER = 0x24;
const NONE_UNMASK = 0x11;
const MSIX = 2;
const OWNER = {};

class Booted {
  readonly model = new TestModel(ENDPOINT);
  readonly host: Host;
  readonly dev: PciDevice;
  readonly core: VfioPciCore;
  readonly process: Process;
  private next = 1000;

  constructor() {
    const machine = new Machine(preset('arm-its'), () => this.model);
    this.host = bootLinux(machine);
    this.dev = this.host.pciDevices.find(({ name }) => name === '0000:01:00.0')!;
    this.core = new VfioPciCore(this.host.context, this.dev, this.host.msi, { devices: this.host.pciDevices });
    this.process = this.host.process().process;
  }

  /** What type1's SET_IOMMU leaves: the group attached to a domain with the kernel's window. */
  attach(): this {
    const group = this.dev.iommuGroup!;
    expect(group.claimDmaOwner(OWNER)).toBe(0);
    const domain = group.allocateDomain();
    if (typeof domain === 'number') throw new Error(errnoName(domain));
    setMsiCookie(domain, new Type1WindowCookie(this.host.context, domain, 0x0800_0000, null));
    expect(group.attach(domain)).toBe(0);
    return this;
  }

  open(): this {
    expect(this.core.openDevice(this.process)).toBe(0);
    this.dev.setMaster();
    return this;
  }

  eventfd(): { fd: number; eventfd: SimEventFd } {
    const { tap, work, refusals } = this.host.context;
    const eventfd = new SimEventFd(this.next, 0, tap, work);
    this.next += 1;
    return { fd: this.process.install(new EventFdFile(eventfd, refusals)), eventfd };
  }

  setIrqs(flags: number, index: number, start: number, fds: readonly number[], count = fds.length): number {
    const data = new Uint8Array(Int32Array.from(fds).buffer);
    return this.core.irqControl.apply({ process: this.process, flags, index, start, count, data });
  }

  entry(vector: number): [address: number, high: number, data: number, control: number] {
    const table = this.dev.resources[0]!.base + 0x2000 + 16 * vector;
    const { bus } = this.host.context;
    return [bus.read32(table) >>> 0, bus.read32(table + 4), bus.read32(table + 8), bus.read32(table + 12)];
  }

  raise(vector: number): void {
    this.model.port?.raise(vector);
  }

  /** sent - delivered - coalesced - pending - lost: 0 when every interrupt is accounted for. */
  get imbalance(): number {
    const { ledger } = this.host.context.tap;
    const lost = ledger.slice(Count.LOST, LEDGER_SIZE).reduce((sum, each) => sum + each, 0);
    return ledger[Count.SENT]! - ledger[Count.DELIVERED]! - ledger[Count.COALESCED]! - ledger[Count.PENDING]! - lost;
  }
}

describe('vfio-pci on an Arm host', () => {
  it('G5: four vectors hold the window page + 0x40, data 0 to 3, unmasked; each reaches its own eventfd', () => {
    const host = new Booted().attach().open();
    const fds = Array.from({ length: 4 }, () => host.eventfd());
    expect(
      host.setIrqs(
        EVENTFD_TRIGGER,
        MSIX,
        0,
        fds.map(({ fd }) => fd),
      ),
    ).toBe(0);
    for (let vector = 0; vector < 4; vector += 1) expect(host.entry(vector)).toEqual([0x0800_0040, 0, vector, 0]);
    for (let vector = 0; vector < 4; vector += 1) for (let i = 0; i <= vector; i += 1) host.raise(vector);
    expect(fds.map(({ eventfd }) => eventfd.drain())).toEqual([1, 2, 3, 4]);
    expect(host.imbalance).toBe(0);
  });

  it('G9: a group that is claimed but not attached has no doorbell: ENOSPC', () => {
    const host = new Booted();
    expect(host.dev.iommuGroup!.claimDmaOwner(OWNER)).toBe(0);
    host.open();
    const { fd } = host.eventfd();
    expect(errnoName(host.setIrqs(EVENTFD_TRIGGER, MSIX, 0, [fd]))).toBe('ENOSPC');
  });

  it('ERANGE for 0 vectors comes from the allocation itself', () => {
    const host = new Booted().attach().open();
    expect(errnoName(host.setIrqs(EVENTFD_TRIGGER, MSIX, 0, []))).toBe('ERANGE');
  });

  it('edges between two eventfds wait in the pending bits and reach the second', () => {
    const host = new Booted().attach().open();
    const [a, b] = [host.eventfd(), host.eventfd()];
    host.setIrqs(EVENTFD_TRIGGER, MSIX, 0, [a.fd]);
    // The handler goes first, so the entry is masked; the edge comes before the new eventfd is there.
    expect(host.setIrqs(EVENTFD_TRIGGER, MSIX, 0, [-1])).toBe(0);
    expect(host.entry(0)[3] & 1).toBe(1);
    host.raise(0);
    host.raise(0);
    const pba = host.dev.resources[0]!.base + 0x3000;
    expect(host.host.context.bus.read32(pba) & 1).toBe(1);
    expect(host.setIrqs(EVENTFD_TRIGGER, MSIX, 0, [b.fd])).toBe(0);
    expect([a.eventfd.count, b.eventfd.drain()]).toEqual([0, 1]);
    expect(host.host.context.bus.read32(pba) & 1).toBe(0);
    expect(host.imbalance).toBe(0);
  });

  it('a reset keeps the messages: the vectors work again', () => {
    const host = new Booted().attach().open();
    const [a, b] = [host.eventfd(), host.eventfd()];
    host.setIrqs(EVENTFD_TRIGGER, MSIX, 0, [a.fd, b.fd]);
    expect(host.core.ioctl(host.process, VFIO_DEVICE_RESET, 0n)).toBe(0);
    expect([host.entry(0), host.entry(1)]).toEqual([
      [0x0800_0040, 0, 0, 0],
      [0x0800_0040, 0, 1, 0],
    ]);
    host.raise(1);
    expect([a.eventfd.count, b.eventfd.drain()]).toEqual([0, 1]);
  });

  it('a message wiped through the mapped table comes back with the next eventfd', () => {
    const host = new Booted().attach().open();
    const a = host.eventfd();
    host.setIrqs(EVENTFD_TRIGGER, MSIX, 0, [a.fd]);
    const table = host.dev.resources[0]!.base + 0x2000;
    host.host.context.bus.write32(table, 0);
    expect(host.setIrqs(EVENTFD_TRIGGER, MSIX, 0, [a.fd])).toBe(0);
    expect(host.entry(0)).toEqual([0x0800_0040, 0, 0, 0]);
  });

  it('closing leaves no handler, no enabled vector, no bus master', () => {
    const host = new Booted().attach().open();
    const a = host.eventfd();
    host.setIrqs(EVENTFD_TRIGGER, MSIX, 0, [a.fd]);
    expect(host.host.irqs.interrupts().some(({ action }) => action === 'vfio-msix[0](0000:01:00.0)')).toBe(true);
    host.core.closeDevice();
    expect(host.host.irqs.interrupts().some(({ action }) => action.startsWith('vfio-msi'))).toBe(false);
    expect(host.dev.configRead(4, 2) & 4).toBe(0);
    host.raise(0);
    expect(a.eventfd.count).toBe(0);
    expect(host.imbalance).toBe(0);
  });

  it('INTx through the GIC: a level, masked with each interrupt, resent while it stays asserted', () => {
    const host = new Booted().attach().open();
    const { fd, eventfd } = host.eventfd();
    expect(host.dev.irq).toBeGreaterThan(0);
    expect(host.setIrqs(EVENTFD_TRIGGER, 0, 0, [fd])).toBe(0);
    host.model.port?.setInterruptLine(true);
    expect(eventfd.drain()).toBe(1);
    expect(host.setIrqs(NONE_UNMASK, 0, 0, [], 1)).toBe(0);
    expect(eventfd.drain()).toBe(1);
    host.model.port?.setInterruptLine(false);
    expect(host.setIrqs(NONE_UNMASK, 0, 0, [], 1)).toBe(0);
    expect(eventfd.count).toBe(0);
    host.model.port?.setInterruptLine(true);
    expect(eventfd.drain()).toBe(1);
    expect(host.setIrqs(NONE_TRIGGER, 0, 0, [], 0)).toBe(0);
    expect(host.imbalance).toBe(0);
  });

  it('INTx that was asserted before it was enabled arrives at once', () => {
    const host = new Booted().attach().open();
    const { fd, eventfd } = host.eventfd();
    host.model.port?.setInterruptLine(true);
    expect(host.setIrqs(EVENTFD_TRIGGER, 0, 0, [fd])).toBe(0);
    expect(eventfd.drain()).toBe(1);
  });
});
