/** Formats of x86 interrupts: messages, and the interrupt remapping of VT-d. */
export * from './ioapic.ts';
export * from './msi.ts';
export * from './remapping.ts';
