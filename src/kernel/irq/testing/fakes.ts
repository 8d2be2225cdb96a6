/** The smallest host on which MSIs mean something: functions with real capabilities, a domain over a map, a controller with doorbells. */
import { CapabilityId } from '../../../arch/pci/capability.ts';
import type { DoorbellPage } from '../../../ports/bus.ts';
import type { IommuDomain, ReservedRegion } from '../../../ports/iommu.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import type { IommuGroup } from '../../iommu/iommu-group.ts';
import { FixtureFunction } from '../../pci/config-fixture.ts';
import type { PciDev, PciResource } from '../../pci/pci-dev.ts';
import type { MsiDesc, MsiMessage } from '../msi-desc.ts';
import { type MsiParent, type PrepareMsi, setMessageAddress } from '../msi-parent.ts';

/** A page table as a map of its smallest pages. */
export class FakeDomain implements IommuDomain {
  readonly type: IommuDomain['type'];
  readonly apertureStart = 0;
  apertureEnd = 2 ** 48 - 1;
  readonly pageSizes: readonly number[];
  readonly pages = new Map<number, { pa: number; prot: number }>();
  /** Unmapped, but perhaps still cached: `sync` empties it. */
  readonly stale = new Set<number>();
  /** Called before pages go. */
  onUnmap: (iova: number, size: number) => void = () => {};
  /** What the next `map` answers instead of mapping. */
  failNext = 0;
  mapped = 0;
  unmapped = 0;

  constructor(type: IommuDomain['type'] = 'unmanaged', pageSizes: readonly number[] = [4096, 2 ** 21]) {
    this.type = type;
    this.pageSizes = pageSizes;
  }

  map(iova: number, pa: number, size: number, prot: number): number {
    if (this.failNext !== 0) {
      const error = this.failNext;
      this.failNext = 0;
      return error;
    }
    const [page] = this.pageSizes;
    if (iova % page !== 0 || pa % page !== 0 || size % page !== 0) return -ERRNO.EINVAL;
    for (let at = 0; at < size; at += page) {
      if (this.pages.has(iova + at)) throw new Error(`mapping over 0x${(iova + at).toString(16)}`);
      this.pages.set(iova + at, { pa: pa + at, prot });
    }
    this.mapped++;
    return 0;
  }

  unmap(iova: number, size: number): number {
    this.onUnmap(iova, size);
    this.unmapped++;
    for (let at = iova; at < iova + size; at += this.pageSizes[0]) {
      if (!this.pages.delete(at)) return at - iova;
      this.stale.add(at);
    }
    return size;
  }

  sync(): void {
    this.stale.clear();
  }

  lookup(iova: number): number {
    const [page] = this.pageSizes;
    const entry = this.pages.get(iova - (iova % page));
    return entry === undefined ? -1 : entry.pa + (iova % page);
  }

  enforceCoherency(): boolean {
    return true;
  }

  free(): void {
    this.pages.clear();
  }
}

export const SW_MSI: ReservedRegion = { start: 0x800_0000, end: 0x80f_ffff, type: 'sw-msi' };

export class FakeGroup implements IommuGroup {
  readonly id: number;
  readonly devices: PciDev[] = [];
  readonly defaultDomain = new FakeDomain('dma');
  readonly blockingDomain = new FakeDomain('blocked');
  domain: IommuDomain = this.blockingDomain;
  regions: readonly ReservedRegion[] = [SW_MSI];
  dmaOwner: object | null = null;

  constructor(id: number) {
    this.id = id;
  }

  reservedRegions(): readonly ReservedRegion[] {
    return this.regions;
  }
  hasIsolatedMsi(): boolean {
    return true;
  }
  allocateDomain(): FakeDomain {
    return new FakeDomain();
  }
  claimDmaOwner(): number {
    return 0;
  }
  releaseDmaOwner(): void {}
  claimDeviceDmaOwner(): number {
    return 0;
  }
  releaseDeviceDmaOwner(): void {}
  attach(domain: IommuDomain): number {
    this.domain = domain;
    return 0;
  }
  detach(): void {
    this.domain = this.blockingDomain;
  }
  replace(domain: IommuDomain): number {
    this.domain = domain;
    return 0;
  }
  canShare(): boolean {
    return true;
  }
}

/** Vectors in powers of two for MSI; 0 leaves the capability out. */
export interface FakeDevOptions {
  readonly msix?: number;
  readonly msi?: number;
  readonly address64?: boolean;
  readonly perVectorMask?: boolean;
}

const PM = 0x50;
const MSI = 0x60;
const MSIX = 0x80;

export class FakeDev implements PciDev {
  readonly address;
  readonly name: string;
  readonly requester: number;
  readonly parent = null;
  readonly vendorId = 0x1b36;
  readonly deviceId = 0xbe11;
  readonly classCode = 0xff_0000;
  readonly configSize = 4096;
  readonly isBridge = false;
  readonly resources: readonly PciResource[];
  readonly config = new FixtureFunction(0x1b36, 0xbe11);
  irq = 0;
  driver: string | null = 'vfio-pci';
  driverOverride: string | null = null;
  iommuGroup: IommuGroup | null;
  readonly canReset = false;
  restoreMsiState: (() => void) | null = null;
  /** Host-physical address of the MSI-X table, in RAM. */
  readonly table: number;

  constructor(number: number, group: IommuGroup | null, table: number, options: FakeDevOptions) {
    this.address = { segment: 0, bus: 0, device: number, function: 0 };
    this.name = `0000:00:${number.toString(16).padStart(2, '0')}.0`;
    this.requester = number << 3;
    this.iommuGroup = group;
    this.table = table;
    this.resources = [{ index: 0, kind: 'memory', base: table, size: 0x1_0000, is64: true, prefetchable: false }];
    this.addCapabilities(options);
  }

  private addCapabilities({ msix = 0, msi = 0, address64 = true, perVectorMask = false }: FakeDevOptions): void {
    const { config } = this;
    config.capability(0x34, PM, CapabilityId.POWER_MANAGEMENT).allow(PM + 4, 2, 3);
    let link = PM + 1;
    if (msi > 0) {
      const flags = (Math.log2(msi) << 1) | (address64 ? 0x80 : 0) | (perVectorMask ? 0x100 : 0);
      config
        .capability(link, MSI, CapabilityId.MSI)
        .put(MSI + 2, 2, flags)
        .allow(MSI + 2, 2, 0x71);
      config
        .allow(MSI + 4, 4, 0xffff_fffc)
        .allow(MSI + 8, 4, 0xffff_ffff)
        .allow(MSI + 12, 4, 0xffff_ffff);
      config.allow(MSI + 16, 4, 0xffff_ffff);
      link = MSI + 1;
    }
    if (msix > 0) {
      config
        .capability(link, MSIX, CapabilityId.MSIX)
        .put(MSIX + 2, 2, msix - 1)
        .allow(MSIX + 2, 2, 0xc000);
      config.put(MSIX + 4, 4, 0).put(MSIX + 8, 4, 0x8000);
    }
  }

  configRead(offset: number, size: number): number {
    return this.config.read(offset, size);
  }
  configWrite(offset: number, size: number, value: number): void {
    this.config.write(offset, size, value);
  }
  capability(id: number): number {
    if (id === CapabilityId.POWER_MANAGEMENT) return PM;
    if (id === CapabilityId.MSI && this.config.read(MSI, 1) === id) return MSI;
    return id === CapabilityId.MSIX && this.config.read(MSIX, 1) === id ? MSIX : 0;
  }
  extendedCapability(): number {
    return 0;
  }
  enable(): number {
    return 0;
  }
  disable(): void {}
  setMaster(): void {}
  clearMaster(): void {}
  tryReset(): number {
    return -ERRNO.ENOTTY;
  }
}

export const ITS_FRAME: DoorbellPage = { base: 0x809_0000, size: 0x1_0000, register: 0x40, isolated: true };

/** An interrupt controller with one doorbell per device, or the first of its frames for all. */
export class FakeParent implements MsiParent {
  readonly name = 'ITS';
  isolated = true;
  msix = true;
  multiMsi = true;
  dynamicMsix = false;
  doorbells: readonly DoorbellPage[] = [ITS_FRAME];
  /** Which frame takes a vector's messages; default the first. */
  frameOf: (desc: MsiDesc) => DoorbellPage = () => this.doorbells[0]!;
  /** Vectors that can be had in all; `prepare` is not reached beyond. */
  capacity = Number.POSITIVE_INFINITY;
  /** False: a platform that never prepares (x86). */
  prepares = true;
  failDevice = 0;
  readonly allocated = new Set<MsiDesc>();
  readonly active = new Set<MsiDesc>();
  readonly devices = new Map<PciDev, number>();
  readonly masked = new Map<MsiDesc, boolean>();
  /** Data is the event id, from 0 in each device, plus this: an affinity change of x86 moves it. */
  shift = 0;
  readonly log: string[] = [];
  private nextHwirq = 8192;

  prepareDevice(dev: PciDev, vectors: number): number {
    if (this.failDevice !== 0) return this.failDevice;
    this.devices.set(dev, vectors);
    return 0;
  }
  releaseDevice(dev: PciDev): void {
    this.devices.delete(dev);
  }
  allocate(_dev: PciDev, descs: readonly MsiDesc[], prepare: PrepareMsi): number {
    if (this.allocated.size + descs.length > this.capacity) return -ERRNO.ENOSPC;
    for (const desc of descs) {
      const frame = this.frameOf(desc);
      const error = this.prepares ? prepare(desc, frame.base + frame.register) : 0;
      if (error < 0) return error;
      desc.hwirq = this.nextHwirq++;
    }
    for (const desc of descs) this.allocated.add(desc);
    return 0;
  }
  free(_dev: PciDev, descs: readonly MsiDesc[]): void {
    for (const desc of descs) {
      this.log.push(`free ${desc.index}`);
      this.allocated.delete(desc);
    }
  }
  activate(desc: MsiDesc): void {
    this.active.add(desc);
  }
  deactivate(desc: MsiDesc): void {
    this.log.push(`deactivate ${desc.index}`);
    this.active.delete(desc);
  }
  compose(desc: MsiDesc, into: MsiMessage): void {
    const frame = this.frameOf(desc);
    setMessageAddress(desc, frame.base + frame.register, into);
    into.data = desc.index + this.shift;
  }
  mask(desc: MsiDesc): void {
    this.masked.set(desc, true);
  }
  unmask(desc: MsiDesc): void {
    this.masked.set(desc, false);
  }
}
