/** What makes a device raise its own interrupts; for a device of which nothing is known, VFIO's loopback. */
import type { Interrupt } from '../../vfio/index.ts';

export interface Ringer {
  /** For people: what is done to make it ring. */
  readonly how: string;
  /** False: the kernel signals the eventfd itself, and neither device nor IOMMU takes part. */
  readonly byDevice: boolean;
  /** How many of its vectors it can ring. */
  readonly vectors: number;
  /** After the vectors are enabled. */
  start(): Promise<void>;
  /** Makes the vector's interrupt come, once. */
  ring(vector: number): void;
  /** After the interrupt: what the device waits for before the next. */
  done(vector: number): void;
}

/** A register write to `edu` raises, another takes back. */
export class EduRinger implements Ringer {
  readonly how = 'its interrupt register (edu)';
  readonly byDevice = true;
  readonly vectors = 1;
  private readonly bar: { write32(offset: number, value: number): void };

  constructor(bar: { write32(offset: number, value: number): void }) {
    this.bar = bar;
  }

  async start(): Promise<void> {
    this.done();
  }

  ring(): void {
    this.bar.write32(EDU_RAISE, 1);
  }

  done(): void {
    this.bar.write32(EDU_ACKNOWLEDGE, ALL_BITS);
  }
}

/** SET_IRQS with DATA_NONE (vfio_pci_intrs.c `vfio_pci_set_msi_trigger`). */
export class LoopbackRinger implements Ringer {
  readonly how = 'VFIO’s loopback: the kernel signals the eventfds, the device takes no part';
  readonly byDevice = false;
  readonly vectors: number;
  private readonly interrupts: () => readonly Interrupt[];

  constructor(vectors: number, interrupts: () => readonly Interrupt[]) {
    this.vectors = vectors;
    this.interrupts = interrupts;
  }

  async start(): Promise<void> {}

  ring(vector: number): void {
    this.interrupts()[vector]?.trigger();
  }

  done(): void {}
}

const EDU_RAISE = 0x60;
const EDU_ACKNOWLEDGE = 0x64;
const ALL_BITS = 0xffff_ffff;
