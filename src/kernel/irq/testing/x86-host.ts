/** Local APICs, and a register page that holds nothing but the interrupt remapping of a VT-d unit. */
import { DMAR_GCMD_REG, DMAR_GSTS_REG, DMAR_IRTA_REG, iecDescriptor } from '../../../arch/x86/index.ts';
import { LocalApics } from '../../../machine/x86/apic.ts';
import { IoApic } from '../../../machine/x86/ioapic.ts';
import { InterruptRemapping } from '../../../machine/x86/remapping.ts';
import type { MmioTarget } from '../../../ports/bus.ts';
import { testContext } from '../../test-context.ts';
import { IntelIrMsiParent } from '../x86-ir-parent.ts';
import { IrTable, type RemappingUnit } from '../x86-ir-table.ts';
import { X86MsiParent } from '../x86-parent.ts';
import { X86Vectors } from '../x86-vectors.ts';
import { Recorder } from './controllers.ts';

export const VTD = 0xfed9_0000;

class RemappingPage implements MmioTarget {
  readonly name = 'VT-d';
  private readonly remapping: InterruptRemapping;
  constructor(remapping: InterruptRemapping) {
    this.remapping = remapping;
  }
  read(offset: number, _size: number): number {
    if (offset === DMAR_GSTS_REG) return this.remapping.status;
    return offset === DMAR_IRTA_REG || offset === DMAR_IRTA_REG + 4 ? this.remapping.read(offset) : 0;
  }
  write(offset: number, _size: number, value: number): void {
    if (offset === DMAR_GCMD_REG) this.remapping.command(value);
    else if (offset === DMAR_IRTA_REG || offset === DMAR_IRTA_REG + 4) this.remapping.write(offset, value);
  }
}

export class X86Host {
  readonly context = testContext();
  readonly sink = new Recorder();
  readonly remapping = new InterruptRemapping(this.context.memory);
  readonly apics: LocalApics;
  readonly ioapic: IoApic;
  readonly vectors: X86Vectors;
  readonly plain: X86MsiParent;
  readonly table: IrTable;
  readonly remapped: IntelIrMsiParent;

  constructor(cpus = 2) {
    const { context, remapping } = this;
    this.apics = new LocalApics(cpus, context.tap, remapping);
    this.apics.sink = this.sink;
    this.apics.attach(context.bus);
    this.ioapic = new IoApic(this.apics);
    this.ioapic.attach(context.bus);
    context.bus.map(VTD, 4096, new RemappingPage(remapping));
    this.vectors = new X86Vectors(cpus);
    this.plain = new X86MsiParent(context, this.vectors);
    const unit: RemappingUnit = {
      base: VTD,
      flushInterruptEntries: (index, maskLog2) => {
        const { lo, hi } = iecDescriptor(index, maskLog2);
        remapping.invalidate(lo, hi);
      },
    };
    this.table = new IrTable(context, unit);
    this.remapped = new IntelIrMsiParent(context, this.vectors, this.table);
  }
}
