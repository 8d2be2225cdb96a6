/** A host for the tests of the VFIO core: groups whose IOMMU is a Map, and devices that only note what happens to them. */
import type { IommuDomain, ReservedRegion } from '../../ports/iommu.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { SimKernelClient } from '../client.ts';
import type { IommuGroup } from '../iommu/iommu-group.ts';
import type { IommuOps } from '../iommufd/iommu-ops.ts';
import { SimKernel } from '../kernel.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { ProcessOptions } from '../process.ts';
import { type TestContext, type TestContextOptions, testContext } from '../test-context.ts';
import type { VfioDeviceOps } from './device-ops.ts';
import { vfioCheckFeature } from './feature.ts';
import { Vfio } from './vfio-main.ts';

/** The SW_MSI window of Linux's Arm drivers. */
export const ARM_WINDOW: ReservedRegion = { start: 0x800_0000, end: 0x80f_ffff, type: 'sw-msi' };

export class MapDomain implements IommuDomain {
  readonly type: IommuDomain['type'];
  readonly apertureStart: number;
  readonly apertureEnd: number;
  readonly pageSizes: readonly number[];
  /** 4 KiB pages by IOVA. */
  readonly pages = new Map<number, { readonly pa: number; readonly prot: number }>();
  readonly unit: TestUnit;
  /** What `map` answers from now on, when not 0. */
  refuseMaps = 0;
  freed = false;
  /** Pages that `unmap` took and no `sync` made certain yet. */
  stale = 0;

  constructor(unit: TestUnit, type: IommuDomain['type'] = 'unmanaged') {
    this.unit = unit;
    this.type = type;
    this.apertureStart = unit.aperture[0];
    this.apertureEnd = unit.aperture[1];
    this.pageSizes = unit.pageSizes;
  }

  map(iova: number, pa: number, size: number, prot: number): number {
    if (this.freed) throw new Error('map of a freed domain');
    if (this.refuseMaps < 0) return this.refuseMaps;
    for (let at = 0; at < size; at += 4096) if (this.pages.has(iova + at)) return -ERRNO.EEXIST;
    for (let at = 0; at < size; at += 4096) this.pages.set(iova + at, { pa: pa + at, prot });
    return 0;
  }

  unmap(iova: number, size: number): number {
    let at = 0;
    while (at < size && this.pages.delete(iova + at)) at += 4096;
    this.stale += at / 4096;
    return at;
  }

  sync(): void {
    this.stale = 0;
  }

  lookup(iova: number): number {
    const page = this.pages.get(iova - (iova % 4096));
    return page === undefined ? -1 : page.pa + (iova % 4096);
  }

  enforceCoherency(): boolean {
    return this.unit.coherent;
  }

  free(): void {
    this.freed = true;
    this.pages.clear();
  }
}

/** One IOMMU of the host. */
export interface TestUnit {
  readonly aperture: readonly [number, number];
  readonly pageSizes: readonly number[];
  readonly coherent: boolean;
}

export const testUnit = (changes: Partial<TestUnit> = {}): TestUnit => ({
  aperture: [0, 2 ** 48 - 1],
  pageSizes: [4096, 2 ** 21, 2 ** 30],
  coherent: true,
  ...changes,
});

export class TestGroup implements IommuGroup {
  readonly id: number;
  readonly devices: PciDev[] = [];
  readonly unit: TestUnit;
  readonly defaultDomain: IommuDomain;
  readonly blockingDomain: IommuDomain;
  domain: IommuDomain;
  dmaOwner: object | null = null;
  isolated = true;
  /** A driver that is not built in, when a test gives one. */
  ops?: IommuOps;
  regions: ReservedRegion[] = [ARM_WINDOW];
  /** What the next attach answers, when not 0 (a device in reset, firmware's 1:1 map). */
  refuseAttach = 0;
  /** What claimDmaOwner answers, when not 0. */
  refuseClaim = 0;
  readonly made: MapDomain[] = [];
  /** Every switch, in order, for the order of teardown. */
  readonly events: string[];

  constructor(id: number, unit: TestUnit, events: string[]) {
    this.id = id;
    this.unit = unit;
    this.events = events;
    this.defaultDomain = new MapDomain(unit, 'dma');
    this.blockingDomain = new MapDomain(unit, 'blocked');
    this.domain = this.defaultDomain;
  }

  reservedRegions(): readonly ReservedRegion[] {
    return this.regions;
  }

  hasIsolatedMsi(): boolean {
    return this.isolated;
  }

  allocateDomain(): IommuDomain | number {
    const domain = new MapDomain(this.unit);
    this.made.push(domain);
    return domain;
  }

  claimDmaOwner(owner: object): number {
    if (this.refuseClaim < 0) return this.refuseClaim;
    if (this.dmaOwner !== null) return -ERRNO.EPERM;
    this.dmaOwner = owner;
    this.domain = this.blockingDomain;
    return 0;
  }

  releaseDmaOwner(): void {
    this.dmaOwner = null;
    this.domain = this.defaultDomain;
  }

  /** Of devices, when they claim one by one. */
  claims = 0;

  claimDeviceDmaOwner(owner: object): number {
    const error = this.dmaOwner === owner ? 0 : this.claimDmaOwner(owner);
    if (error === 0) this.claims += 1;
    return error;
  }

  releaseDeviceDmaOwner(): void {
    this.claims -= 1;
    if (this.claims === 0) this.releaseDmaOwner();
  }

  attach(domain: IommuDomain): number {
    if (this.refuseAttach < 0) return this.refuseAttach;
    if (this.domain !== this.blockingDomain && this.domain !== this.defaultDomain) return -ERRNO.EBUSY;
    this.domain = domain;
    return 0;
  }

  detach(): void {
    this.events.push(`detach ${this.id}`);
    this.domain = this.dmaOwner === null ? this.defaultDomain : this.blockingDomain;
  }

  replace(domain: IommuDomain): number {
    this.domain = domain;
    return 0;
  }

  canShare(domain: IommuDomain): boolean {
    return domain instanceof MapDomain && domain.unit === this.unit;
  }
}

export class TestOps implements VfioDeviceOps {
  readonly name: string;
  readonly events: string[];
  refuseOpen = 0;
  refuseMatch = 0;
  requests = 0;
  private readonly context: TestContext;

  constructor(name: string, events: string[], context: TestContext) {
    this.name = name;
    this.events = events;
    this.context = context;
  }

  match(text: string): number {
    return this.refuseMatch < 0 ? this.refuseMatch : text === this.name ? 1 : 0;
  }

  openDevice(): number {
    if (this.refuseOpen === 0) this.events.push(`open ${this.name}`);
    return this.refuseOpen;
  }

  closeDevice(): void {
    this.events.push(`close ${this.name}`);
  }

  ioctl(): number {
    return this.context.refusals.refuse('ENOTTY', 'no such request');
  }

  /** Feature 0 takes 16 bytes with SET. */
  feature(_process: unknown, flags: number, _address: number, size: number): number {
    if ((flags & 0xffff) !== 0) return this.context.refusals.refuse('ENOTTY', 'no such feature');
    return Math.min(vfioCheckFeature(this.context.refusals, flags, size, 1 << 17, 16), 0);
  }

  read(): number {
    return 0;
  }

  write(): number {
    return 0;
  }

  mmap(): number {
    return this.context.refusals.refuse('EINVAL', 'nothing to map');
  }

  request(): void {
    this.requests += 1;
  }
}

export function testDevice(name: string, group: TestGroup): PciDev {
  const [segment, bus, rest] = name.split(':');
  const [device, fn] = rest.split('.');
  const address = {
    segment: parseInt(segment, 16),
    bus: parseInt(bus, 16),
    device: parseInt(device, 16),
    function: Number(fn),
  };
  const dev: PciDev = {
    address,
    name,
    requester: (address.bus << 8) | (address.device << 3) | address.function,
    parent: null,
    vendorId: 0x1b36,
    deviceId: 0x0010,
    classCode: 0x010802,
    configSize: 256,
    isBridge: false,
    configRead: (offset, size) => (offset === 0 && size === 2 ? 0x1b36 : 0),
    configWrite: () => {},
    capability: () => 0,
    extendedCapability: () => 0,
    resources: [],
    irq: 0,
    driver: 'vfio-pci',
    driverOverride: null,
    iommuGroup: group,
    enable: () => 0,
    disable: () => {},
    setMaster: () => {},
    clearMaster: () => {},
    canReset: false,
    tryReset: () => -ERRNO.ENOTTY,
  };
  group.devices.push(dev);
  return dev;
}

export interface TestHostOptions extends TestContextOptions {
  readonly groups?: number;
  readonly units?: readonly TestUnit[];
  readonly process?: ProcessOptions;
}

/** A kernel with `groups` groups of one device each: 0000:01:00.0 in group 0, 0000:02:00.0 in group 1, … */
export function testHost(options: TestHostOptions = {}) {
  const context = testContext(options);
  const kernel = new SimKernel(context);
  const vfio = new Vfio(kernel);
  const events: string[] = [];
  const shared = testUnit();
  const groups: TestGroup[] = [];
  const ops: TestOps[] = [];
  for (let i = 0; i < (options.groups ?? 1); i++) {
    const group = new TestGroup(i, options.units?.[i] ?? shared, events);
    const name = `0000:0${i + 1}:00.0`;
    groups.push(group);
    ops.push(new TestOps(name, events, context));
    vfio.register(testDevice(name, group), ops[i]);
  }
  const client = new SimKernelClient(kernel, kernel.createProcess(options.process));
  return { context, kernel, vfio, events, groups, ops, client };
}
