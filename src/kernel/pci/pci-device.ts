/** A PCI function as enumeration found it: Linux's struct pci_dev with what drivers/pci/pci.c does to it. */
import {
  CapabilityId,
  Command,
  EXTENDED_CAPABILITIES,
  EXTENDED_CONFIG_SIZE,
  Express,
  ExpressFlags,
  findCapability,
  findExtendedCapability,
  Header,
  HeaderType,
  PciStatus,
  Power,
} from '../../arch/pci/index.ts';
import { type ConfigAccess, type PciAddress, pciName, requesterId } from '../../ports/pci.ts';
import { ERRNO } from '../../uapi/errno.ts';
import type { IommuGroup } from '../iommu/iommu-group.ts';
import { readBases } from './bar-sizing.ts';
import { busMembers, canResetBus, resetBus } from './bus-reset.ts';
import type { PciDev, PciResource } from './pci-dev.ts';
import { resetMethods } from './reset.ts';
import { restoreState, type SavedState, saveState } from './saved-state.ts';
import { initSriov, type PciSriov, type VirtualIdentity } from './sriov.ts';

/** D0 to D3hot: the state bits of PMCSR. */
export type PowerState = 0 | 1 | 2 | 3;

export class PciDevice implements PciDev {
  readonly address: PciAddress;
  readonly name: string;
  readonly requester: number;
  readonly parent: PciDevice | null;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly classCode: number;
  readonly configSize: 256 | 4096;
  readonly isBridge: boolean;
  readonly resources: readonly PciResource[];
  irq = 0;
  driver: string | null = null;
  driverOverride: string | null = null;
  iommuGroup: IommuGroup | null = null;
  /** device_lock: while somebody holds it, a try-reset answers EAGAIN. */
  locked = false;
  restoreMsiState: (() => void) | null = null;
  /** The physical function of a virtual one, else null. */
  readonly physfn: PciDevice | null;
  /** null for a function that is no physical one of SR-IOV. */
  readonly sriov: PciSriov | null;
  private readonly config: ConfigAccess;
  private readonly capabilities = new Map<number, number>();
  /** All functions of the segment, this one included: who else a bus reset would hit. */
  private readonly siblings: PciDevice[];
  private enableCount = 0;

  constructor(
    config: ConfigAccess,
    address: PciAddress,
    parent: PciDevice | null,
    siblings: PciDevice[],
    ioBase = 0,
    virtual: VirtualIdentity | null = null,
  ) {
    this.config = config;
    this.siblings = siblings;
    this.address = address;
    this.parent = parent;
    this.name = pciName(address);
    this.requester = requesterId(address);
    this.physfn = virtual?.physfn ?? null;
    // A virtual function has no ids in its header: the physical one's vendor, and the device id of its SR-IOV capability.
    this.vendorId = virtual?.physfn.vendorId ?? this.configRead(Header.VENDOR_ID, 2);
    this.deviceId = virtual?.deviceId ?? this.configRead(Header.DEVICE_ID, 2);
    this.classCode = this.configRead(Header.REVISION, 4) >>> 8;
    this.isBridge = (this.configRead(Header.HEADER_TYPE, 1) & HeaderType.LAYOUT_MASK) === HeaderType.BRIDGE;
    this.configSize = this.readConfigSize();
    this.resources = virtual?.resources ?? readBases(this, this.isBridge, ioBase);
    this.sriov = virtual === null ? initSriov(this) : null;
  }

  /** pci_iov_add_virtfn: the function appears among all others of the segment. */
  addVirtual(address: PciAddress, identity: VirtualIdentity): PciDevice {
    const added = new PciDevice(this.config, address, this.parent, this.siblings, 0, identity);
    this.siblings.push(added);
    return added;
  }

  /** pci_iov_remove_virtfn, after its driver let go of it. */
  removeVirtual(virtfn: PciDevice): void {
    this.siblings.splice(this.siblings.indexOf(virtfn), 1);
  }

  /** The virtual functions of a physical one that are there. */
  get virtfns(): readonly PciDevice[] {
    return this.siblings.filter((each) => each.physfn === this);
  }

  configRead(offset: number, size: number): number {
    const value = this.config.configRead(this.requester, offset, size);
    return size === 4 ? value >>> 0 : value;
  }

  configWrite(offset: number, size: number, value: number): void {
    this.config.configWrite(this.requester, offset, size, size === 4 ? value >>> 0 : value);
  }

  /** Lists of capabilities do not change, so each is walked once. */
  capability(id: number): number {
    const known = this.capabilities.get(id);
    if (known !== undefined) return known;
    const offset = findCapability(this.reader, id);
    this.capabilities.set(id, offset);
    return offset;
  }

  extendedCapability(id: number): number {
    return this.configSize === EXTENDED_CONFIG_SIZE ? findExtendedCapability(this.reader, id) : 0;
  }

  get isPcie(): boolean {
    return this.capability(CapabilityId.EXPRESS) !== 0;
  }

  /** Device or port type of the PCI Express capability; -1 without one. */
  get expressType(): number {
    const express = this.capability(CapabilityId.EXPRESS);
    if (express === 0) return -1;
    return (this.configRead(express + Express.FLAGS, 2) & ExpressFlags.TYPE_MASK) >> ExpressFlags.TYPE_SHIFT;
  }

  /** pci_enable_device: D0, and decoding of the kinds of BAR that exist. Calls count. -EINVAL: a memory BAR has no address. */
  enable(): number {
    this.enableCount += 1;
    if (this.enableCount > 1) return 0;
    this.setPowerState(0);
    let bits = 0;
    for (const { kind, size, base } of this.resources) {
      // A port range that found no room is as if it were not there; drivers that need it look for it.
      if (size === 0 || kind === 'rom' || (kind === 'io' && base === 0)) continue;
      if (base === 0) {
        this.enableCount -= 1;
        return -ERRNO.EINVAL;
      }
      bits |= kind === 'io' ? Command.IO : Command.MEMORY;
    }
    this.updateCommand(0, bits);
    return 0;
  }

  /** pci_disable_device: the last one stops bus mastering; decoding stays. */
  disable(): void {
    if (this.enableCount > 0) this.enableCount -= 1;
    if (this.enableCount === 0) this.clearMaster();
  }

  setMaster(): void {
    this.updateCommand(0, Command.BUS_MASTER);
  }

  clearMaster(): void {
    this.updateCommand(Command.BUS_MASTER, 0);
  }

  /** pci_intx: may the function assert its pin? */
  intx(enable: boolean): void {
    this.updateCommand(enable ? Command.INTX_DISABLE : 0, enable ? 0 : Command.INTX_DISABLE);
  }

  /** Does the function drive its pin, whether COMMAND lets it or not? */
  get intxPending(): boolean {
    return (this.configRead(Header.STATUS, 2) & PciStatus.INTERRUPT) !== 0;
  }

  /** PMCSR's state; D0 without the capability. */
  get powerState(): PowerState {
    const power = this.capability(CapabilityId.POWER_MANAGEMENT);
    return power === 0 ? 0 : ((this.configRead(power + Power.CONTROL, 2) & Power.STATE_MASK) as PowerState);
  }

  /** pci_set_power_state. Without the capability, or a state that the function lacks, nothing happens. */
  setPowerState(state: PowerState): void {
    const power = this.capability(CapabilityId.POWER_MANAGEMENT);
    if (power === 0) return;
    const capabilities = this.configRead(power + Power.CAPABILITIES, 2);
    if ((state === 1 && (capabilities & Power.D1) === 0) || (state === 2 && (capabilities & Power.D2) === 0)) return;
    const control = this.configRead(power + Power.CONTROL, 2);
    if ((control & Power.STATE_MASK) === state) return;
    const bases = (control & Power.STATE_MASK) === Power.D3_HOT && state === 0 ? this.readBars() : null;
    this.configWrite(power + Power.CONTROL, 2, (control & ~Power.STATE_MASK) | state);
    if (bases !== null)
      bases.forEach((value, index) => {
        this.configWrite(Header.BAR0 + 4 * index, 4, value);
      });
  }

  saveState(): SavedState {
    return saveState(this);
  }

  restoreState(state: SavedState): void {
    restoreState(this, state);
  }

  get canReset(): boolean {
    return resetMethods(this, this.siblings).length > 0;
  }

  /** pci_try_reset_function: -ENOTTY without a method, -EAGAIN while the lock is held, else saves, resets and restores. */
  tryReset(): number {
    if (!this.canReset) return -ERRNO.ENOTTY;
    if (this.locked) return -ERRNO.EAGAIN;
    this.setPowerState(0);
    const state = this.saveState();
    const error = this.resetFunction();
    this.restoreState(state);
    return error;
  }

  /** __pci_reset_function_locked between quiescing and whatever the caller restores: 0 or -ENOTTY. */
  resetFunction(): number {
    const [method] = resetMethods(this, this.siblings);
    if (method === undefined) return -ERRNO.ENOTTY;
    // INTx off and everything else too: the function must be silent while it is reset (pci_dev_save_and_disable).
    this.configWrite(Header.COMMAND, 2, Command.INTX_DISABLE);
    method.reset(this);
    return 0;
  }

  /** Everything that a reset of the bus would hit, this function included (pci_walk_bus). */
  get busMembers(): readonly PciDevice[] {
    return busMembers(this, this.siblings);
  }

  /** Is there a bridge above that could reset the bus (pci_probe_reset_bus)? */
  get canResetBus(): boolean {
    return canResetBus(this);
  }

  /** pci_reset_bus: 0, -ENOTTY, -EAGAIN. */
  resetBus(): number {
    return resetBus(this, this.siblings);
  }

  private readonly reader = (offset: number, size: number): number => this.configRead(offset, size);

  private updateCommand(clear: number, set: number): void {
    const command = this.configRead(Header.COMMAND, 2);
    const value = (command & ~clear) | set;
    if (value !== command) this.configWrite(Header.COMMAND, 2, value);
  }

  private readBars(): number[] {
    return [0, 1, 2, 3, 4, 5].map((index) => this.configRead(Header.BAR0 + 4 * index, 4));
  }

  /** pci_cfg_space_size: extended space exists with PCIe when its first dword answers. */
  private readConfigSize(): 256 | 4096 {
    if (!this.isPcie) return 256;
    return this.configRead(EXTENDED_CAPABILITIES, 4) === 0xffff_ffff ? 256 : EXTENDED_CONFIG_SIZE;
  }
}
