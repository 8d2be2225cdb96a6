/** The walk of second-level tables (VT-d 3.7, 4.2.3): four levels or three, with large pages of 2 MiB and 1 GiB. */
import { word64 } from '../../arch/bits.ts';
import { DmaFault } from '../../arch/vtd/faults.ts';
import { SL_PAGE_SIZE, SL_READ, SL_WRITE } from '../../arch/vtd/tables.ts';
import { fromHalves, type Hpa } from '../../ports/address.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';
import type { WalkStep } from '../../ports/outcome.ts';
import { Access } from '../../ports/transaction.ts';

export class SecondLevelWalker {
  outHi = 0;
  outLo = 0;
  leafShift = 0;
  /** Access.READ and Access.WRITE that all levels grant. */
  perms = 0;
  trace: WalkStep[] | null = null;
  declare private readonly memory: PhysicalMemory;

  constructor(memory: PhysicalMemory) {
    this.memory = memory;
  }

  /** 0, or a fault reason. */
  walk(tableHi: number, tableLo: number, width: number, hi: number, lo: number, access: number): number {
    if (hi >>> (width - 32) !== 0) return DmaFault.BEYOND_ADDRESS_WIDTH;
    const { memory } = this;
    let granted = SL_READ | SL_WRITE;
    let baseHi = tableHi;
    let baseLo = tableLo;
    for (let shift = width - 9; ; shift -= 9) {
      const index = (shift >= 32 ? hi >>> (shift - 32) : (lo >>> shift) | (hi << (32 - shift))) & 511;
      if (!memory.locate(baseHi, baseLo | (index << 3))) return DmaFault.TABLE_UNREADABLE;
      const entryLo = memory.words[memory.at];
      const entryHi = memory.words[memory.at + 1];
      if (this.trace !== null) this.note(shift, baseHi, baseLo | (index << 3), entryLo, entryHi);
      granted &= entryLo;
      const refused = this.refusal(granted, access);
      if (refused !== 0) return refused;
      baseHi = entryHi & 0xfffff;
      baseLo = entryLo & -4096;
      const isLeaf = shift === 12 || (entryLo & SL_PAGE_SIZE) !== 0;
      if (!isLeaf) continue;
      if (shift > 30) return DmaFault.RESERVED_ENTRY;
      const mask = (1 << shift) - 1;
      this.outHi = baseHi;
      this.outLo = (baseLo & ~mask) | (lo & mask);
      this.leafShift = shift;
      this.perms = granted;
      return 0;
    }
  }

  private refusal(granted: number, access: number): number {
    if ((access & Access.WRITE) !== 0 && (granted & SL_WRITE) === 0) return DmaFault.NO_WRITE;
    if ((access & Access.WRITE) === 0 && (granted & SL_READ) === 0) return DmaFault.NO_READ;
    return 0;
  }

  private note(shift: number, hi: number, lo: number, entryLo: number, entryHi: number): void {
    const level = 3 - (shift - 12) / 9;
    this.trace!.push({ table: 'second level', level, at: fromHalves(hi, lo) as Hpa, entry: word64(entryLo, entryHi) });
  }
}
