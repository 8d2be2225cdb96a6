/**
 * A PCI function as a model declares it (PciFunction) and what its carrier gives it (PciPort). A machine, `exec` and a
 * vfio-user server can all carry the same model.
 */
import type { Clock } from './work.ts';

/** Where a function sits. */
export interface PciAddress {
  readonly segment: number;
  readonly bus: number;
  readonly device: number;
  readonly function: number;
}

export const requesterId = (at: PciAddress): number =>
  (at.segment << 16) | (at.bus << 8) | (at.device << 3) | at.function;

/** `0000:01:00.0` */
export function pciName(at: PciAddress): string {
  const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');
  return `${hex(at.segment, 4)}:${hex(at.bus, 2)}:${hex(at.device, 2)}.${at.function}`;
}

/**
 * A part of a BAR. *memory*: bytes that the carrier supplies and that may change behind the model (a mapped BAR).
 * *registers*: every access is a call; such a range is never mapped as plain memory.
 */
export type BarRange =
  | { readonly kind: 'memory'; readonly offset: number; readonly size: number }
  | { readonly kind: 'registers'; readonly offset: number; readonly size: number; readonly registers: Registers };

export interface Registers {
  /** `size` is 1, 2, 4 (or 8, split by the carrier into two of 4, low first). Offsets are relative to the BAR. */
  read(offset: number, size: number): number;
  write(offset: number, size: number, value: number): void;
}

export interface BarSpec {
  readonly type: 'memory32' | 'memory64' | 'io';
  readonly prefetchable?: boolean;
  /** Bytes; a power of two, at least 16 (memory) or 4 (I/O). */
  readonly size: number;
  /** Ranges inside the BAR; what is in none reads zero and drops writes. The MSI-X table and PBA are the carrier's. */
  readonly ranges?: readonly BarRange[];
}

export interface MsiSpec {
  /** Messages the function asks for: 1, 2, 4, 8, 16 or 32. */
  readonly vectors: number;
  readonly address64?: boolean;
  readonly perVectorMask?: boolean;
}

export interface MsixSpec {
  /** 1 to 2,048. */
  readonly vectors: number;
  readonly table: { readonly bar: number; readonly offset: number };
  readonly pba: { readonly bar: number; readonly offset: number };
}

/** What a model declares about itself. The carrier builds the configuration space from it. */
export interface FunctionSpec {
  readonly name: string;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly subsystemVendorId?: number;
  readonly subsystemId?: number;
  readonly revision?: number;
  /** 24 bits: base class, subclass, programming interface. */
  readonly classCode: number;
  /** Index 0 to 5; a memory64 BAR takes two. */
  readonly bars: readonly (BarSpec | null)[];
  readonly rom?: { readonly size: number; readonly image: Uint8Array };
  readonly msi?: MsiSpec;
  readonly msix?: MsixSpec;
  /** INTx pin, 1 to 4 (A to D); absent without INTx. */
  readonly interruptPin?: number;
  /** A PCIe capability; absent for conventional PCI. `flr`: function level reset. `acs`: peer-to-peer between functions of the slot can be redirected. */
  readonly express?: {
    readonly type: 'endpoint' | 'legacy' | 'integrated';
    readonly flr?: boolean;
    readonly acs?: boolean;
  };
  readonly powerManagement?: boolean;
  /** The function can name an address space with each DMA: PASIDs below 2^bits, 1 to 20. Needs `express`. */
  readonly pasid?: PasidSpec;
  /** SR-IOV: the function can make virtual ones of itself; its model then has {@link PciFunction.virtualFunction}. */
  readonly sriov?: SriovSpec;
  /**
   * A whole configuration space taken from a real device (256 or 4,096 bytes) that replaces the generated one; the fields above
   * must describe the same device. Capability registers behave as the capability at their offset does.
   */
  readonly captured?: Uint8Array;
}

/** Whether requests with a PASID may also ask for execution and for privilege; software turns each on. */
export interface PasidSpec {
  readonly bits: number;
  readonly execute?: boolean;
  readonly privileged?: boolean;
}

/** What a physical function says of its virtual ones. Routing ids are bus << 8 | device << 3 | function; all VFs stay on the PF's bus. */
export interface SriovSpec {
  readonly totalVfs: number;
  readonly vfDeviceId: number;
  /** From the PF's routing id to that of the first VF, and from each VF to the next. */
  readonly offset: number;
  readonly stride: number;
  /** One VF's BARs, without ranges: memory only, 64 KiB or more. */
  readonly bars: readonly (BarSpec | null)[];
}

/** A device model. */
export interface PciFunction {
  readonly spec: FunctionSpec;
  /** Called once, before anything else. */
  connect(port: PciPort): void;
  /** Conventional or function level reset: back to power-on state. */
  reset(): void;
  /**
   * The model of virtual function `index`, from 0. Called at most once for each. Its BARs are those of `spec.sriov.bars`; vendor and device id, BAR
   * registers and interrupt pin of its spec do not appear in its configuration space, which has none.
   */
  virtualFunction?(index: number): PciFunction;
}

/** What the carrier gives a model. */
export interface PciPort {
  readonly clock: Clock;
  /**
   * Raises MSI-X or MSI vector `vector`, whichever is enabled. Edge: one call, one interrupt. False when it did not leave
   * (masked and now pending, or lost; the ledger says which).
   */
  raise(vector: number): boolean;
  /** Is MSI or MSI-X enabled? A model without either drives its pin instead. */
  readonly messagesEnabled: boolean;
  /** Drives the INTx pin. */
  setInterruptLine(asserted: boolean): void;
  /**
   * Submits DMA; `complete` is called later, never inside a register access. ok is false when any part was refused. With a `pasid` the address is
   * one of that address space; it fails while software has not enabled PASIDs.
   */
  dmaRead(iova: number, length: number, complete: (ok: boolean, bytes: Uint8Array) => void, pasid?: number): void;
  dmaWrite(iova: number, bytes: Uint8Array, complete: (ok: boolean) => void, pasid?: number): void;
  /** The bytes of a memory range of a BAR. */
  barMemory(bar: number, offset: number, size: number): Uint8Array;
}

/** Configuration cycles of one segment, as a host bridge (ECAM) gives them. Absent functions read all ones. */
export interface ConfigAccess {
  /** `requester` names bus, device and function (see {@link requesterId}). `size` is 1, 2 or 4; naturally aligned. */
  configRead(requester: number, offset: number, size: number): number;
  configWrite(requester: number, offset: number, size: number, value: number): void;
}
