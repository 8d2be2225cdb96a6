/** A controller of wired interrupts, as the interrupt core drives it: Linux's struct irq_chip. */

/** IRQ_TYPE_EDGE_RISING and IRQ_TYPE_LEVEL_HIGH (include/linux/irq.h). */
export const IRQ_TYPE = { EDGE_RISING: 1, LEVEL_HIGH: 4 } as const;
export type IrqType = (typeof IRQ_TYPE)[keyof typeof IRQ_TYPE];

export interface IrqChip {
  /** What /proc/interrupts shows: `GICv3`, `GICv2`, `IO-APIC`. */
  readonly name: string;
  /** `hwirq` is the number with which the interrupt arrives at InterruptSink.interrupt. */
  mask(hwirq: number): void;
  /** A level interrupt whose line is still asserted is signalled again, before this returns. */
  unmask(hwirq: number): void;
  /** 0, or -EINVAL when the interrupt cannot be of that type. */
  setType?(hwirq: number, type: IrqType): number;
  /** Directs the interrupt to one CPU. 0, or -EINVAL. */
  setAffinity?(hwirq: number, cpu: number): number;
}
