/** SR-IOV of the PCI core: drivers/pci/iov.c. Who tells the rest of the kernel of a new function is `VirtualFunctions`. */
import { ExpressType, ExtendedCapabilityId, SrIov, SrIovControl } from '../../arch/pci/index.ts';
import type { PciAddress } from '../../ports/pci.ts';
import type { KernelContext } from '../context.ts';
import { readVfBases } from './bar-sizing.ts';
import type { PciResource, PciSriovInfo } from './pci-dev.ts';
import type { PciDevice } from './pci-device.ts';

/** What a virtual function is told of itself, since its header does not say it. */
export interface VirtualIdentity {
  readonly physfn: PciDevice;
  readonly deviceId: number;
  /** Its slices of the physical function's VF BARs. */
  readonly resources: readonly PciResource[];
}

/** struct pci_sriov. */
export class PciSriov implements PciSriovInfo {
  readonly totalVfs: number;
  readonly offset: number;
  readonly stride: number;
  readonly vfDeviceId: number;
  numVfs = 0;
  driversAutoprobe = true;
  /** One virtual function's BARs, at the base of the first. */
  readonly bases: readonly PciResource[];
  readonly pos: number;
  private readonly dev: PciDevice;

  constructor(dev: PciDevice, pos: number) {
    this.dev = dev;
    this.pos = pos;
    const word = (offset: number): number => dev.configRead(pos + offset, 2);
    this.totalVfs = word(SrIov.TOTAL_VFS);
    this.offset = word(SrIov.VF_OFFSET);
    this.stride = word(SrIov.VF_STRIDE);
    this.vfDeviceId = word(SrIov.VF_DEVICE_ID);
    this.bases = readVfBases(dev, pos + SrIov.VF_BAR0);
  }

  get virtfns(): readonly PciDevice[] {
    return this.dev.virtfns;
  }

  /** pci_iov_virtfn_bus and _devfn: where function `index` will answer. */
  place(index: number): PciAddress {
    const { segment, bus, device, function: fn } = this.dev.address;
    const id = ((bus << 8) | (device << 3) | fn) + this.offset + this.stride * index;
    return { segment, bus: id >> 8, device: (id >> 3) & 31, function: id & 7 };
  }

  /** Every VF BAR that exists has addresses. */
  get hasAddresses(): boolean {
    return this.bases.every(({ size, base }) => size === 0 || base !== 0);
  }

  identity(index: number): VirtualIdentity {
    const slice = (of: PciResource): PciResource => (of.size === 0 ? of : { ...of, base: of.base + index * of.size });
    const rom: PciResource = { index: 6, kind: 'rom', base: 0, size: 0, is64: false, prefetchable: false };
    return { physfn: this.dev, deviceId: this.vfDeviceId, resources: [...this.bases.map(slice), rom] };
  }

  /** NumVFs, then VF Enable and VF MSE; the other way round when they end. */
  write(count: number): void {
    const { dev, pos } = this;
    const on = SrIovControl.VF_ENABLE | SrIovControl.MEMORY_SPACE_ENABLE;
    if (count > 0) dev.configWrite(pos + SrIov.NUM_VFS, 2, count);
    const control = dev.configRead(pos + SrIov.CONTROL, 2) & ~on;
    dev.configWrite(pos + SrIov.CONTROL, 2, count > 0 ? control | on : control);
    if (count === 0) dev.configWrite(pos + SrIov.NUM_VFS, 2, 0);
  }

  restore(): void {
    const { dev, pos } = this;
    if ((dev.configRead(pos + SrIov.CONTROL, 2) & SrIovControl.VF_ENABLE) !== 0) return;
    for (const { index, base, size, is64 } of this.bases) {
      if (size === 0) continue;
      const at = pos + SrIov.VF_BAR0 + 4 * index;
      dev.configWrite(at, 4, base % 2 ** 32);
      if (is64) dev.configWrite(at + 4, 4, Math.floor(base / 2 ** 32));
    }
    if (this.numVfs > 0) this.write(this.numVfs);
  }
}

/** sriov_init: null for a function that is no physical one, or whose capability says nonsense. VFs that firmware left are taken away. */
export function initSriov(dev: PciDevice): PciSriov | null {
  const pos = dev.extendedCapability(ExtendedCapabilityId.SR_IOV);
  const type = dev.expressType;
  if (pos === 0 || (type !== ExpressType.ENDPOINT && type !== ExpressType.INTEGRATED_ENDPOINT)) return null;
  if ((dev.configRead(pos + SrIov.CONTROL, 2) & SrIovControl.VF_ENABLE) !== 0)
    dev.configWrite(pos + SrIov.CONTROL, 2, 0);
  const sriov = new PciSriov(dev, pos);
  if (sriov.totalVfs === 0 || sriov.offset === 0 || (sriov.totalVfs > 1 && sriov.stride === 0)) return null;
  dev.configWrite(pos + SrIov.NUM_VFS, 2, 0);
  return sriov;
}

/** What the rest of the kernel does with a function that comes or goes. */
export interface DeviceEvents {
  /** device_add: IOMMU group, driver_override, drivers. 0 or -errno. */
  added(dev: PciDevice): number;
  /** Could it be removed now? 0, or -EBUSY while a user has it (Linux waits). */
  removable(dev: PciDevice): number;
  /** device_del: its driver, its group. 0 or -errno. */
  removed(dev: PciDevice): number;
}

/** pci_enable_sriov and pci_disable_sriov. */
export class VirtualFunctions {
  private readonly context: KernelContext;
  private readonly events: DeviceEvents;

  constructor(context: KernelContext, events: DeviceEvents) {
    this.context = context;
    this.events = events;
  }

  /** sriov_enable: 0, ENOSYS no physical function, EINVAL VFs are there or the count cannot be, EIO a bad capability, ENOMEM no addresses. */
  enable(dev: PciDevice, count: number): number {
    const { refusals } = this.context;
    const { sriov } = dev;
    if (sriov === null) return refusals.refuse('ENOSYS', `${dev.name} has no SR-IOV capability`);
    if (sriov.numVfs > 0) return refusals.refuse('EINVAL', `${dev.name} has ${sriov.numVfs} VFs already`);
    const initial = dev.configRead(sriov.pos + SrIov.INITIAL_VFS, 2);
    if (initial !== sriov.totalVfs)
      return refusals.refuse('EIO', `InitialVFs ${initial} is not TotalVFs ${sriov.totalVfs}`);
    if (count > sriov.totalVfs) return refusals.refuse('EINVAL', `${count} VFs are more than ${sriov.totalVfs}`);
    if (!sriov.hasAddresses) return refusals.refuse('ENOMEM', `${dev.name}: not enough MMIO resources for SR-IOV`);
    if (sriov.place(count - 1).bus !== dev.address.bus)
      return refusals.refuse('ENOMEM', `${dev.name}: VF ${count - 1} is beyond the bus numbers of the bridge above`);
    sriov.write(count);
    if ((dev.configRead(sriov.pos + SrIov.CONTROL, 2) & SrIovControl.VF_ENABLE) === 0)
      return refusals.refuse(
        'EIO',
        `${dev.name} does not take VF Enable: it has the capability and none of its behaviour`,
      );
    sriov.numVfs = count;
    for (let index = 0; index < count; index += 1) {
      const error = this.events.added(dev.addVirtual(sriov.place(index), sriov.identity(index)));
      if (error < 0) {
        this.disable(dev);
        return error;
      }
    }
    return 0;
  }

  /** pci_sriov_configure_simple: the VFs that are there now, or -errno. */
  configure(dev: PciDevice, count: number): number {
    if (count === 0) return this.disable(dev);
    const error = this.enable(dev, count);
    return error < 0 ? error : count;
  }

  /** sriov_disable: all VFs go, or none: -EBUSY while one is in use, where Linux would wait for its user. */
  disable(dev: PciDevice): number {
    const { sriov } = dev;
    if (sriov === null || sriov.numVfs === 0) return 0;
    for (const virtfn of dev.virtfns) {
      const busy = this.events.removable(virtfn);
      if (busy < 0) return this.context.refusals.passOn(busy, `${virtfn.name} is in use`);
    }
    for (const virtfn of dev.virtfns) {
      const error = this.events.removed(virtfn);
      if (error < 0) return this.context.refusals.passOn(error, `${virtfn.name} could not be taken away`);
      dev.removeVirtual(virtfn);
    }
    sriov.write(0);
    sriov.numVfs = 0;
    return 0;
  }
}
