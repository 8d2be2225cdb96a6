/** A simulated machine: memory, PCI, IOMMUs, interrupt controllers. */
export { SystemBus } from './bus.ts';
export { defineMachine, MachineError, type MachineInput, parseBytes, parseMachine } from './define.ts';
export * from './gic/index.ts';
export { type CreateDevice, Machine } from './machine.ts';
export { RamMemory } from './memory.ts';
export * from './pci/index.ts';
export { isPreset, PRESET_DEVICE, type PresetName, preset, presetInput, presetNames } from './presets.ts';
export { Smmu } from './smmu/smmu.ts';
export type * from './spec.ts';
export { createTap } from './tap.ts';
export { Vtd } from './vtd/vtd.ts';
export { JobQueue, SimClock } from './work.ts';
export { LocalApics } from './x86/apic.ts';
export { InterruptRemapping } from './x86/remapping.ts';
