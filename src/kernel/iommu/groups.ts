/** Which devices an IOMMU can tell apart: groups, numbered as they are found (pci_device_group). */
import type { IommuDomain, IommuDriver } from '../../ports/iommu.ts';
import type { KernelContext } from '../context.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import { PciIommuGroup } from './group.ts';
import { acsEnabled, dmaAliases, enableAcs, isMultifunction } from './pci-topology.ts';

export interface IommuGroupsOptions {
  /** See GroupCallbacks. Default: no device is. */
  readonly isBoundToHostDriver?: (dev: PciDev) => boolean;
  /** A group's default domain was replaced by another with tables (sysfs `type`). */
  readonly onDefaultDomain?: (group: PciIommuGroup) => void;
  /** `iommu.passthrough`: identity. Default: dma, an empty domain that translates nothing. */
  readonly defaultDomain?: 'dma' | 'identity';
}

export class IommuGroups {
  /** By number. */
  readonly groups: PciIommuGroup[] = [];
  private readonly context: KernelContext;
  private readonly driver: IommuDriver;
  private readonly options: IommuGroupsOptions;
  private readonly found: PciDev[] = [];
  private msiIsolated: (dev: PciDev) => boolean = () => false;

  constructor(context: KernelContext, driver: IommuDriver, options: IommuGroupsOptions = {}) {
    this.context = context;
    this.driver = driver;
    this.options = options;
  }

  /** Who knows whether a device's MSIs are isolated; until it is set, none are. */
  setMsiIsolated(isIsolated: (dev: PciDev) => boolean): void {
    this.msiIsolated = isIsolated;
  }

  /** Takes devices in the order of their enumeration, bridges before what is behind them. 0 or the first -errno. */
  addAll(devices: readonly PciDev[]): number {
    // ACS is turned on everywhere before anything depends on it, and all functions of a slot must be known.
    for (const dev of devices) enableAcs(dev);
    this.found.push(...devices);
    for (const dev of devices) {
      const refused = this.add(dev);
      if (refused !== 0) return refused;
    }
    return 0;
  }

  /** The group that an unplugged device was in loses it, and goes when it was the last. */
  remove(dev: PciDev): void {
    const group = this.groups.find((candidate) => candidate.devices.includes(dev));
    if (group === undefined) return;
    group.remove(dev);
    const index = this.found.indexOf(dev);
    if (index >= 0) this.found.splice(index, 1);
    if (group.devices.length === 0) {
      this.groups.splice(this.groups.indexOf(group), 1);
      group.defaultDomain.free();
    }
  }

  byId(id: number): PciIommuGroup | null {
    return this.groups.find((group) => group.id === id) ?? null;
  }

  private add(dev: PciDev): number {
    const group = this.groupFor(dev) ?? this.make(dev);
    return typeof group === 'number' ? group : group.add(dev);
  }

  private groupFor(dev: PciDev): PciIommuGroup | null {
    // From the device up to the last bridge that hides requester ids behind its own.
    let top = dev;
    for (const { bridge } of dmaAliases(dev)) {
      const known = this.groupOf(bridge);
      if (known !== null) return known;
      top = bridge;
    }
    // On up to where ACS keeps peers apart on the whole path.
    for (let bridge = top.parent; bridge !== null; bridge = bridge.parent) {
      if (this.acsPathEnabled(bridge)) break;
      top = bridge;
      const known = this.groupOf(bridge);
      if (known !== null) return known;
    }
    return this.functionGroup(top);
  }

  private acsPathEnabled(from: PciDev): boolean {
    for (let dev: PciDev | null = from; dev !== null; dev = dev.parent) if (!this.acs(dev)) return false;
    return true;
  }

  /** Functions of a slot without ACS may reach each other inside the device. */
  private functionGroup(dev: PciDev): PciIommuGroup | null {
    if (!this.multifunction(dev) || this.acs(dev)) return null;
    for (const sibling of this.slotOf(dev)) {
      if (sibling === dev || this.acs(sibling)) continue;
      const known = this.groupOf(sibling);
      if (known !== null) return known;
    }
    return null;
  }

  private acs(dev: PciDev): boolean {
    return acsEnabled(dev, this.multifunction(dev));
  }

  private multifunction(dev: PciDev): boolean {
    // A virtual function counts as a single one, whatever its address (pci_iov_add_virtfn).
    return (dev.physfn ?? null) === null && (isMultifunction(dev) || this.slotOf(dev).length > 1);
  }

  private slotOf(dev: PciDev): PciDev[] {
    const { segment, bus, device } = dev.address;
    return this.found.filter(
      ({ address }) => address.segment === segment && address.bus === bus && address.device === device,
    );
  }

  private groupOf(dev: PciDev): PciIommuGroup | null {
    return this.groups.find((group) => group.devices.includes(dev)) ?? null;
  }

  private make(dev: PciDev): PciIommuGroup | number {
    const domain: IommuDomain | number =
      this.options.defaultDomain === 'identity'
        ? this.driver.identity
        : this.driver.allocate(dev.requester, undefined, 'dma');
    if (typeof domain === 'number') return domain;
    const id = this.groups.reduce((next, group) => Math.max(next, group.id + 1), 0);
    const group = new PciIommuGroup(this.context, this.driver, id, domain, {
      isBoundToHostDriver: this.options.isBoundToHostDriver ?? (() => false),
      onDefaultDomain: this.options.onDefaultDomain ?? (() => {}),
      isMsiIsolated: (member) => this.msiIsolated(member),
    });
    this.groups.push(group);
    return group;
  }
}
