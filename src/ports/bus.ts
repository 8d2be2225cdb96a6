/** The physical address space: memory, register ranges, and doorbells. */
import type { PhysicalMemory } from './memory.ts';
import type { StatusCode, Transaction } from './transaction.ts';

/** A range of registers. `size` is 1, 2 or 4; an access of 8 arrives as two of 4, low half first. Offsets are relative to the range. */
export interface MmioTarget {
  readonly name: string;
  read(offset: number, size: number): number;
  /** `value` is unsigned for size 1 and 2, and 32 bits (signed or unsigned) for 4. */
  write(offset: number, size: number, value: number): void;
}

/**
 * An interrupt controller that owns doorbell pages of the physical address space and takes the requester with the write:
 * GICv2m, GICv3 ITS, x86. It answers OK when the write was taken (whether an interrupt came of it is in the ledger).
 */
export interface MsiController {
  readonly name: string;
  /** The pages that this controller claims. `register` is the offset of the doorbell register within the page(s). */
  readonly doorbells: readonly DoorbellPage[];
  /** A device's write into one of the pages: tx.pa says where, tx.requester who, tx.data what. */
  message(tx: Transaction): StatusCode;
}

export interface DoorbellPage {
  /** Host-physical base and length in bytes of the frame that holds the doorbell. */
  readonly base: number;
  readonly size: number;
  /** Offset of the doorbell register: 0x40 for GITS_TRANSLATER (in its frame) and MSI_SETSPI_NS. */
  readonly register: number;
  /** True when a device's write anywhere in the frame can only raise its own interrupts (ITS), false for GICv2m. */
  readonly isolated: boolean;
}

export interface Bus {
  readonly memory: PhysicalMemory;
  /** A device's translated write of up to 4 bytes (tx.pa, tx.data): memory, registers, or a doorbell. */
  store(tx: Transaction): StatusCode;
  /** A CPU's access. Unclaimed reads are all ones. */
  read32(pa: number): number;
  write32(pa: number, value: number): void;
  read(pa: number, size: number): number;
  write(pa: number, size: number, value: number): void;
  map(base: number, size: number, target: MmioTarget): void;
  unmap(base: number): void;
  attachController(controller: MsiController): void;
  /** What claims the address: `memory`, a target's name, or null. */
  claimant(pa: number): string | null;
}

/** Where a host interrupt controller hands an interrupt to a host CPU; the kernel's irq core takes it at once. */
export interface InterruptSink {
  interrupt(intid: number, cpu: number): void;
}
