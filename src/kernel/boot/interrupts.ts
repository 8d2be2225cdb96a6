/** The interrupt controllers' drivers, probed: who takes a device's messages, and which irq its pin is wired to. */
import type { ArmInterrupts, Machine } from '../../machine/machine.ts';
import { INTX_INTID, INTX_PIN } from '../../machine/machine.ts';
import type { GicSpec } from '../../machine/spec.ts';
import type { KernelContext } from '../context.ts';
import { GicIrqChip } from '../irq/gic-chip.ts';
import { IRQ_TYPE } from '../irq/irq-chip.ts';
import type { IrqCore } from '../irq/irq-core.ts';
import { ItsNode } from '../irq/its-node.ts';
import { ItsMsiParent } from '../irq/its-parent.ts';
import { LpiTables } from '../irq/lpi-tables.ts';
import type { MsiParent } from '../irq/msi-parent.ts';
import { GicV2mMsiParent } from '../irq/v2m-parent.ts';
import { IoApicChip } from '../irq/x86-ioapic-chip.ts';
import { IntelIrMsiParent } from '../irq/x86-ir-parent.ts';
import { IrTable, type RemappingUnit } from '../irq/x86-ir-table.ts';
import { X86MsiParent } from '../irq/x86-parent.ts';
import { X86Vectors } from '../irq/x86-vectors.ts';
import type { PciDev } from '../pci/pci-dev.ts';

export interface InterruptPlatform {
  /** The parent domain of a device's MSIs, or null where the platform has none. */
  msiParent(dev: PciDev): MsiParent | null;
  /** The irq of an interrupt pin (1 to 4) of a device on the root bus' `slot`, or 0. */
  pinIrq(slot: number, pin: number): number;
}

/**
 * `unit`: the VT-d driver where it remaps interrupts.
 * @throws Error when a controller of the machine does not come up: no memory for its tables.
 */
export function probeInterrupts(
  machine: Machine,
  context: KernelContext,
  irqs: IrqCore,
  unit: RemappingUnit | null,
): InterruptPlatform {
  const { interrupts, spec } = machine;
  machine.setInterruptSink(irqs);
  if (interrupts.type === 'gic') return probeGic(machine, spec.interrupts as GicSpec, interrupts, context, irqs);
  return probeX86(machine, context, irqs, unit);
}

function probeGic(
  machine: Machine,
  spec: GicSpec,
  hardware: ArmInterrupts,
  context: KernelContext,
  irqs: IrqCore,
): InterruptPlatform {
  const { cpus } = machine.spec;
  const { redistributors } = spec;
  const places = {
    version: spec.version,
    distributor: spec.distributor,
    cpus,
    ...(redistributors === undefined ? {} : { redistributors }),
  };
  const chip = new GicIrqChip(context, places);
  chip.init();
  const parents = probeIts(spec, hardware, context, cpus);
  const byDevice = new Map(
    spec.its?.flatMap((its, index) => its.devices.map((name) => [name, parents[index]!] as const)),
  );
  const v2m = probeV2m(spec, context, chip);
  return {
    msiParent: (dev) => byDevice.get(dev.name) ?? parents[0] ?? v2m,
    pinIrq: (slot, pin) => irqs.mapWire(chip, INTX_INTID + ((pin - 1 + slot) & 3), IRQ_TYPE.LEVEL_HIGH),
  };
}

function probeIts(spec: GicSpec, hardware: ArmInterrupts, context: KernelContext, cpus: number): MsiParent[] {
  const { distributor, redistributors } = spec;
  if (hardware.its.length === 0 || redistributors === undefined) return [];
  const lpis = new LpiTables(context, { distributor, redistributors, cpus });
  came('LPI tables', lpis.init());
  return hardware.its.map(({ base, name }) => {
    const node = new ItsNode(context, base, lpis);
    came(name, node.init());
    return new ItsMsiParent(context, node);
  });
}

function probeV2m(spec: GicSpec, context: KernelContext, chip: GicIrqChip): MsiParent | null {
  const frames = spec.v2m ?? [];
  if (frames.length === 0) return null;
  const parent = new GicV2mMsiParent(context, chip);
  for (const { base } of frames) came('GICv2m', parent.addFrame(base));
  return parent;
}

function probeX86(
  machine: Machine,
  context: KernelContext,
  irqs: IrqCore,
  unit: RemappingUnit | null,
): InterruptPlatform {
  const vectors = new X86Vectors(machine.spec.cpus);
  const table = unit === null ? null : new IrTable(context, unit);
  if (table !== null) came('interrupt remapping', table.init());
  const parent = table === null ? new X86MsiParent(context, vectors) : new IntelIrMsiParent(context, vectors, table);
  const chip = new IoApicChip(context, vectors, table);
  return {
    msiParent: () => parent,
    pinIrq: (slot, pin) => {
      const hwirq = chip.connect(INTX_PIN + ((pin - 1 + slot) & 3));
      return hwirq < 0 ? 0 : irqs.mapWire(chip, hwirq, IRQ_TYPE.LEVEL_HIGH);
    },
  };
}

function came(what: string, result: number): void {
  if (result < 0) throw new Error(`${what} did not come up: errno ${-result}`);
}
