/** A PCI device as the kernel's PCI core holds it: Linux's struct pci_dev. */
import type { PciAddress } from '../../ports/pci.ts';
import type { IommuGroup } from '../iommu/iommu-group.ts';

/** A BAR as enumeration found it. `base` is a bus (= host-physical) address; size 0: not implemented. */
export interface PciResource {
  readonly index: number;
  readonly kind: 'memory' | 'io' | 'rom';
  readonly base: number;
  readonly size: number;
  readonly is64: boolean;
  readonly prefetchable: boolean;
}

export interface PciDev {
  readonly address: PciAddress;
  /** `0000:01:00.0` */
  readonly name: string;
  /** Requester id, which is also the stream id, the source id and the ITS device id here. */
  readonly requester: number;
  /** The bridge above, or null on a root bus. */
  readonly parent: PciDev | null;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly classCode: number;
  readonly configSize: 256 | 4096;
  readonly isBridge: boolean;
  /** Hardware's configuration space. `size` 1, 2 or 4. */
  configRead(offset: number, size: number): number;
  configWrite(offset: number, size: number, value: number): void;
  /** Offset of a capability, or 0. */
  capability(id: number): number;
  extendedCapability(id: number): number;
  /** Index 0 to 5 are BARs, 6 the ROM. */
  readonly resources: readonly PciResource[];
  /** Linux irq of INTx; 0 without one. */
  irq: number;
  /** `vfio-pci`, another driver's name, or null. */
  driver: string | null;
  driverOverride: string | null;
  iommuGroup: IommuGroup | null;
  enable(): number;
  disable(): void;
  setMaster(): void;
  clearMaster(): void;
  /** Does a function reset exist (FLR, AF FLR, PM D3hot without NoSoftRst, or a bus reset that hits only this function)? */
  readonly canReset: boolean;
  /** Resets, keeping configuration as pci_try_reset_function does. 0, EAGAIN, ENOTTY as -errno. */
  tryReset(): number;
  /** pci_restore_msi_state: rewrites the messages after a reset. Set by whoever has vectors allocated, null without. */
  restoreMsiState?: (() => void) | null;
  /** The physical function of a virtual one (is_virtfn). */
  readonly physfn?: PciDev | null;
  /** What a physical function can make of itself (is_physfn). */
  readonly sriov?: PciSriovInfo | null;
}

/** What sysfs shows of struct pci_sriov. */
export interface PciSriovInfo {
  readonly totalVfs: number;
  readonly numVfs: number;
  readonly offset: number;
  readonly stride: number;
  readonly vfDeviceId: number;
  driversAutoprobe: boolean;
  /** pci_restore_iov_state: after a reset took VF Enable away. */
  restore(): void;
  /** By index: virtfn0 and on. */
  readonly virtfns: readonly PciDev[];
}
