/** Interrupts of an x86 machine: local APICs, and the interrupt remapping of VT-d. */
export { LocalApics } from './apic.ts';
export { IoApic } from './ioapic.ts';
export { InterruptRemapping, type RemapFaultRecord, type RemapFaultSink } from './remapping.ts';
