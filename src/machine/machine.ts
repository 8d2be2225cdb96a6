/** A machine put together from its spec: memory, bus, IOMMU, interrupt controllers and PCI, wired and started by its firmware. */

import type { InterruptSink } from '../ports/bus.ts';
import type { Iommu } from '../ports/iommu.ts';
import type { PciFunction } from '../ports/pci.ts';
import { SystemBus } from './bus.ts';
import { Gic } from './gic/gic.ts';
import { Its } from './gic/its.ts';
import { GicV2m } from './gic/v2m.ts';
import { RamMemory } from './memory.ts';
import { PciRoot } from './pci/root.ts';
import { Smmu } from './smmu/smmu.ts';
import type { GicSpec, MachineSpec } from './spec.ts';
import { createTap } from './tap.ts';
import { Vtd } from './vtd/vtd.ts';
import { JobQueue, SimClock } from './work.ts';
import { LocalApics } from './x86/apic.ts';
import { IoApic } from './x86/ioapic.ts';
import { InterruptRemapping } from './x86/remapping.ts';

/** Makes the model that a slot names; devices/ has one. @throws RangeError for a device or an option that does not exist. */
export type CreateDevice = (
  device: string,
  options: Readonly<Record<string, number | string | boolean>>,
) => PciFunction;

/** I/O APIC pin of the host bridge's INTA; INTB to INTD follow. */
export const INTX_PIN = 16;
/** GIC interrupt id of the same. */
export const INTX_INTID = 35;

/** The interrupt controllers of an Arm machine. */
export interface ArmInterrupts {
  readonly type: 'gic';
  readonly gic: Gic;
  readonly its: readonly Its[];
  readonly v2m: readonly GicV2m[];
}

/** Those of an x86 machine. */
export interface X86Interrupts {
  readonly type: 'x86';
  readonly apics: LocalApics;
  readonly ioapic: IoApic;
  readonly remapping: InterruptRemapping | null;
}

export class Machine {
  readonly spec: MachineSpec;
  readonly tap = createTap();
  readonly work = new JobQueue();
  readonly clock = new SimClock();
  readonly memory: RamMemory;
  readonly bus: SystemBus;
  readonly iommu: Smmu | Vtd | null;
  readonly interrupts: ArmInterrupts | X86Interrupts;
  readonly pci: PciRoot;

  /** @throws RangeError naming the slot, when a device cannot be made or does not fit. */
  constructor(spec: MachineSpec, createDevice: CreateDevice) {
    this.spec = spec;
    this.memory = new RamMemory(spec.memory);
    this.bus = new SystemBus(this.memory);
    this.interrupts =
      spec.interrupts.type === 'gic' ? this.makeGic(spec.interrupts) : this.makeX86(spec.interrupts.remapping);
    this.iommu = this.makeIommu();
    this.pci = this.makePci(this.iommu);
    this.pci.addSlots(spec.pci.slots, createDevice);
    this.bus.map(spec.pci.ecam, 2 ** 28, this.pci.ecam);
    this.pci.start();
  }

  /** Hands the host CPUs' interrupts to a kernel. */
  setInterruptSink(sink: InterruptSink): void {
    if (this.interrupts.type === 'gic') this.interrupts.gic.sink = sink;
    else this.interrupts.apics.sink = sink;
  }

  /** The VT-d unit's register page holds the interrupt remapping too. */
  private makeIommu(): Smmu | Vtd | null {
    const { iommu } = this.spec;
    if (iommu === null) return null;
    const { memory, tap, interrupts } = this;
    const remapping = interrupts.type === 'x86' ? interrupts.remapping : null;
    const unit = iommu.type === 'smmuv3' ? new Smmu(iommu, memory, tap) : new Vtd(iommu, memory, tap, remapping);
    unit.attach(this.bus);
    return unit;
  }

  private makeGic(options: GicSpec): ArmInterrupts {
    const gic = new Gic({ ...options, cpus: this.spec.cpus }, this.memory, this.tap);
    const its = (options.its ?? []).map((each) => new Its(each, gic, this.memory));
    const v2m = (options.v2m ?? []).map((each) => new GicV2m(each, gic));
    for (const part of [gic, ...its, ...v2m]) part.attach(this.bus);
    return { type: 'gic', gic, its, v2m };
  }

  private makeX86(remap: boolean): X86Interrupts {
    const remapping = remap ? new InterruptRemapping(this.memory) : null;
    const apics = new LocalApics(this.spec.cpus, this.tap, remapping);
    const ioapic = new IoApic(apics);
    for (const part of [apics, ioapic]) part.attach(this.bus);
    return { type: 'x86', apics, ioapic, remapping };
  }

  private makePci(iommu: Iommu | null): PciRoot {
    const { spec, bus, tap, work, clock } = this;
    const setIntx = (line: number, asserted: boolean): void => {
      if (this.interrupts.type === 'gic') this.interrupts.gic.setLine(INTX_INTID + line, asserted);
      else this.interrupts.ioapic.setLine(INTX_PIN + line, asserted);
    };
    return new PciRoot({ ...spec.pci, bus, tap, work, clock, iommu, setIntx });
  }
}
