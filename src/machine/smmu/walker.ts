/** The table walker: VMSAv8-64 tables in physical memory, stage 1, stage 2, and stage 1 under stage 2 (IHI 0070 3.3, Arm ARM D8). */
import { word64 } from '../../arch/bits.ts';
import { allowsBlock } from '../../arch/lpae/geometry.ts';
import { Event, EventClass } from '../../arch/smmuv3/events.ts';
import { fromHalves, type Hpa } from '../../ports/address.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';
import type { WalkStep } from '../../ports/outcome.ts';
import { Access } from '../../ports/transaction.ts';
import { DescriptorUpdates } from './descriptor-updates.ts';
import type { Stage } from './stage.ts';

const RWX = Access.READ | Access.WRITE | Access.EXECUTE;
/** Privileged permissions stand four bits above the unprivileged ones. */
const PRIVILEGED_SHIFT = 4;
/** Among the permissions of a TLB entry: a write takes a walk, which may permit it. */
export const WRITE_WALKS = 8;
const WRITES = Access.WRITE | (Access.WRITE << PRIVILEGED_SHIFT);

/** Bits of a leaf: AF; AP[2] of stage 1 (read-only), which is HAP[1] of stage 2 (writable); DBM in the high half. */
const AF = 0x400;
const AP2 = 0x80;
const DBM = 1 << 19;

/** Are the access bits of a transaction within `perms` (RWX at bit 0 unprivileged, at bit 4 privileged)? */
export const permits = (perms: number, access: number): boolean =>
  (access & RWX & ~(perms >>> ((access & Access.PRIVILEGED) >>> 1))) === 0;

/**
 * Walks on halves and leaves its answer in fields, so that nothing is allocated. A walk answers 0 or an event number
 * (Event.F_TRANSLATION, …); `class`, `stage2`, `ipa` and `fetch` then say what the record holds.
 */
export class TableWalker {
  outHi = 0;
  outLo = 0;
  /** log2 of the leaf's size; of both stages' leaves the smaller. */
  leafShift = 0;
  /** log2 of the stage 1 leaf: what an invalidation by address must match. */
  stage1Shift = 0;
  /** See {@link permits}; of both stages what both allow. */
  perms = 0;
  /** Stage 1: the leaf is global (nG clear). */
  global = false;
  /** The refusal came from stage 2, while fetching (class TTD) or for the result (class IN). */
  stage2 = false;
  class: number = EventClass.IN;
  ipaHi = 0;
  ipaLo = 0;
  fetchHi = 0;
  fetchLo = 0;
  /** The descriptors that this access changes in memory once it is permitted: see {@link DescriptorUpdates}. */
  readonly updates = new DescriptorUpdates();
  /** Set for a person who wants the steps; null on the hot path. */
  trace: WalkStep[] | null = null;

  declare private readonly memory: PhysicalMemory;
  private lo = 0;
  private hi = 0;
  private device = false;
  /** The TLB keeps that a page is dirty. */
  declare private readonly keepsDirty: boolean;
  /** A leaf on the way is one whose dirty state the SMMU updates and the TLB must not hide. */
  private watched = false;
  /** Where the leaf last found is, and the bits of it that any access and that a write changes. */
  private entryHi = 0;
  private entryLo = 0;
  private onAccess = 0;
  private onWrite = 0;
  /** The stage 2 under the table with the stage 1 leaf: its permissions, its leaf and what a write changes there, and the leaf's IPA. */
  private tablePerms = 0;
  private tableHi = 0;
  private tableLo = 0;
  private tableOnWrite = 0;
  private tableIpaHi = 0;
  private tableIpaLo = 0;

  constructor(memory: PhysicalMemory, keepsDirty = false) {
    this.memory = memory;
    this.keepsDirty = keepsDirty;
  }

  /** The permissions that a TLB entry may hold: a write that has to be seen walks. */
  get entryPerms(): number {
    return this.watched ? (this.perms & ~WRITES) | WRITE_WALKS : this.perms;
  }

  /** Translates for the access bits given; at least one stage is present. */
  walk(s1: Stage | null, s2: Stage | null, hi: number, lo: number, access: number): number {
    this.stage2 = false;
    this.class = EventClass.IN;
    this.watched = false;
    this.updates.count = 0;
    if (s1 === null) return this.output(s2!, hi, lo, access);
    const refused = this.stage1(s1, s2, hi, lo);
    if (refused !== 0) return refused;
    if (!permits(this.perms, access)) return Event.F_PERMISSION;
    if (s1.updatesAccess) {
      const unwritable = this.update1(s1, s2, access);
      if (unwritable !== 0) return unwritable;
    }
    this.stage1Shift = this.leafShift;
    if (s2 === null) return 0;
    const { perms, leafShift, stage1Shift, global } = this;
    const result = this.output(s2, this.outHi, this.outLo, access);
    this.perms &= perms;
    this.leafShift = Math.min(leafShift, this.leafShift);
    this.stage1Shift = stage1Shift;
    this.global = global;
    return result;
  }

  /** A TLB entry refused, without a walk. */
  refuseByEntry(stage2: boolean, hi: number, lo: number): number {
    this.stage2 = stage2;
    this.class = EventClass.IN;
    this.ipaHi = hi;
    this.ipaLo = lo;
    return Event.F_PERMISSION;
  }

  /** The half of the address space has no tables (EPD). */
  refuseHalf(): number {
    this.stage2 = false;
    this.class = EventClass.IN;
    return Event.F_TRANSLATION;
  }

  /** Stage 2 of an address that the SMMU itself fetches from (a context descriptor, a stage 1 table). Class as given. */
  fetchThrough(s2: Stage, hi: number, lo: number, eventClass: number): number {
    this.class = eventClass;
    let refused = this.walkStage2(s2, hi, lo);
    if (refused === 0 && ((this.perms & Access.READ) === 0 || (s2.protectWalk && this.device)))
      refused = Event.F_PERMISSION;
    if (refused !== 0) this.refusedIpa(hi, lo);
    else if (this.onAccess !== 0) this.updates.add(this.entryHi, this.entryLo, AF, 0);
    return refused;
  }

  /** Stage 2 of a transaction's own address. */
  private output(s2: Stage, hi: number, lo: number, access: number): number {
    this.class = EventClass.IN;
    let refused = this.walkStage2(s2, hi, lo);
    if (refused === 0 && !permits(this.perms, access)) refused = Event.F_PERMISSION;
    if (refused !== 0) this.refusedIpa(hi, lo);
    else if (s2.updatesAccess) this.update2(s2, access);
    this.stage1Shift = this.leafShift;
    this.global = false;
    return refused;
  }

  /** What the access changes in the stage 1 leaf; under a stage 2 that is a write, which the stage 2 must permit (IHI 0070 3.13.5). */
  private update1(s1: Stage, s2: Stage | null, access: number): number {
    const { onAccess, onWrite } = this;
    const write = (access & Access.WRITE) !== 0;
    const clear = write ? onWrite : 0;
    this.watch(s1, write);
    if ((onAccess | clear) === 0) return 0;
    if (s2 !== null) {
      if ((this.tablePerms & Access.WRITE) === 0) {
        this.class = EventClass.TTD;
        this.refusedIpa(this.tableIpaHi, this.tableIpaLo);
        return Event.F_PERMISSION;
      }
      if (this.tableOnWrite !== 0) this.updates.add(this.tableHi, this.tableLo, this.tableOnWrite | AF, 0);
    }
    this.updates.add(this.entryHi, this.entryLo, AF, clear);
    return 0;
  }

  /** What the access changes in the stage 2 leaf. */
  private update2(s2: Stage, access: number): void {
    const write = (access & Access.WRITE) !== 0;
    const set = this.onAccess | (write ? this.onWrite : 0);
    this.watch(s2, write);
    if (set !== 0) this.updates.add(this.entryHi, this.entryLo, set | AF, 0);
  }

  /** Does the TLB entry leave writes to walks? A page that is dirty, or becomes so, only where the TLB does not keep that. */
  private watch(stage: Stage, write: boolean): void {
    if (!stage.updatesDirty || (this.hi & DBM) === 0) return;
    if (!this.keepsDirty || (this.onWrite !== 0 && !write)) this.watched = true;
  }

  private refusedIpa(hi: number, lo: number): void {
    this.stage2 = true;
    this.ipaHi = hi;
    this.ipaLo = lo;
  }

  private stage1(s1: Stage, s2: Stage | null, hi: number, lo: number): number {
    const refused = this.descend(s1, s2, hi, lo);
    if (refused !== 0) return refused;
    const { lo: entry, hi: upper } = this;
    if ((entry & AF) === 0 && !s1.accessFlagOff && !s1.updatesAccess) return Event.F_ACCESS;
    this.onAccess = s1.updatesAccess ? ~entry & AF : 0;
    this.onWrite = s1.updatesDirty && (upper & DBM) !== 0 ? entry & AP2 : 0;
    const writable = (entry & AP2) === 0 || this.onWrite !== 0;
    const unprivileged = (entry & 0x40) !== 0;
    const base = Access.READ | (writable ? Access.WRITE : 0);
    const noExec = writable && s1.writeNoExec;
    // Bit 54 forbids unprivileged, bit 53 privileged execution; what the unprivileged side writes the privileged never runs.
    const user = unprivileged ? base | ((upper & (1 << 22)) !== 0 || noExec ? 0 : Access.EXECUTE) : 0;
    const kernelNoExec = (upper & (1 << 21)) !== 0 || noExec || (unprivileged && writable);
    const kernel = base | (kernelNoExec ? 0 : Access.EXECUTE);
    this.perms = user | (kernel << PRIVILEGED_SHIFT);
    this.global = (entry & 0x800) === 0;
    return 0;
  }

  private walkStage2(s2: Stage, hi: number, lo: number): number {
    const refused = this.descend(s2, null, hi, lo);
    if (refused !== 0) return refused;
    const { lo: entry, hi: upper } = this;
    if ((entry & AF) === 0 && !s2.accessFlagOff && !s2.updatesAccess) return Event.F_ACCESS;
    this.onAccess = s2.updatesAccess ? ~entry & AF : 0;
    this.onWrite = s2.updatesDirty && (upper & DBM) !== 0 ? ~entry & AP2 : 0;
    const writable = (entry & AP2) !== 0 || this.onWrite !== 0;
    const base = ((entry >>> 6) & 1 ? Access.READ : 0) | (writable ? Access.WRITE : 0);
    // XN[54:53]: 0 both may execute, 1 unprivileged only, 2 nobody, 3 privileged only (FEAT_XNX).
    const xn = (upper >>> 21) & 3;
    const user = base | (xn <= 1 ? Access.EXECUTE : 0);
    const kernel = base | (xn === 0 || xn === 3 ? Access.EXECUTE : 0);
    this.perms = user | (kernel << PRIVILEGED_SHIFT);
    this.device = (entry & 0x30) === 0;
    return 0;
  }

  /** From the first table to the leaf: leaves the entry in lo/hi (table attributes folded in) and the output address. */
  private descend(stage: Stage, s2: Stage | null, inHi: number, inLo: number): number {
    if (s2 === null && stage.isFourLevels && this.trace === null && this.descendToPage(stage, inHi, inLo)) return 0;
    return this.descendLevels(stage, s2, inHi, inLo);
  }

  private descendLevels(stage: Stage, s2: Stage | null, inHi: number, inLo: number): number {
    const { granuleShift, levelBits, beyondOutputHi } = stage;
    if (((inHi & stage.beyondInputHi) | (inLo & stage.beyondInputLo)) !== 0) return Event.F_TRANSLATION;
    const { memory } = this;
    const direct = s2 === null && this.trace === null;
    let tableHi = stage.tableHi;
    let tableLo = stage.tableLo;
    let shift = stage.startShift;
    let mask = stage.startMask;
    let inherited = 0;
    if ((tableHi & beyondOutputHi) !== 0) return Event.F_ADDR_SIZE;
    for (let level = stage.startLevel; ; level++) {
      const index = (shift >= 32 ? inHi >>> (shift - 32) : (inLo >>> shift) | (inHi << (32 - shift))) & mask;
      let lo = 0;
      let hi = 0;
      if (direct && memory.locate(tableHi, tableLo | (index << 3))) {
        lo = memory.words[memory.at];
        hi = memory.words[memory.at + 1];
      } else {
        const refused = this.fetch(stage, s2, tableHi, tableLo | (index << 3), level);
        if (refused !== 0) return refused;
        lo = this.lo;
        hi = this.hi;
      }
      if ((lo & 1) === 0) return Event.F_TRANSLATION;
      if (level < 3 && (lo & 2) !== 0) {
        tableHi = hi & 0xffff;
        tableLo = lo & -(1 << granuleShift);
        if ((tableHi & beyondOutputHi) !== 0) return Event.F_ADDR_SIZE;
        inherited |= hi;
        shift -= levelBits;
        mask = (1 << levelBits) - 1;
        continue;
      }
      if (level === 3 ? (lo & 2) === 0 : !allowsBlock(granuleShift, level)) return Event.F_TRANSLATION;
      this.lo = lo;
      this.hi = hi;
      if (direct) {
        this.entryHi = tableHi;
        this.entryLo = tableLo | (index << 3);
      }
      return this.leaf(stage, shift, inHi, inLo, stage.hierarchical ? inherited : 0);
    }
  }

  /**
   * The same for a page of 4 KiB under four levels that lie in one segment of memory, written out: constant shifts, one array, and an output
   * size that the first table has kept already. False, and nothing changed, where anything is otherwise (a block, a fault, tables far from
   * each other): the walk above finds out what.
   */
  private descendToPage(stage: Stage, inHi: number, inLo: number): boolean {
    const { tableHi, tableLo } = stage;
    const words = this.memory.segment(tableHi, tableLo);
    if (words === null || (inHi & stage.beyondInputHi) !== 0) return false;
    // Of a table descriptor: its type, and the segment that it must lie in.
    const mask = 0xfc00_0003 | 0;
    const tag = (tableLo & mask) | 3;
    let at = ((tableLo & 0x3ffffff) >>> 2) | ((inHi >>> 6) & 0x3fe);
    let lo = words[at];
    let hi = words[at | 1];
    let inherited = hi;
    if ((lo & mask) !== tag || (hi & 0xffff) !== tableHi) return false;
    at = ((lo & 0x3fff000) >>> 2) | ((((inHi << 2) | (inLo >>> 30)) & 0x1ff) << 1);
    lo = words[at];
    hi = words[at | 1];
    inherited |= hi;
    if ((lo & mask) !== tag || (hi & 0xffff) !== tableHi) return false;
    at = ((lo & 0x3fff000) >>> 2) | ((inLo >>> 20) & 0x3fe);
    lo = words[at];
    hi = words[at | 1];
    inherited |= hi;
    if ((lo & mask) !== tag || (hi & 0xffff) !== tableHi) return false;
    at = ((lo & 0x3fff000) >>> 2) | ((inLo >>> 11) & 0x3fe);
    lo = words[at];
    hi = words[at | 1];
    if ((lo & 3) !== 3 || (hi & 0xffff & stage.beyondOutputHi) !== 0) return false;
    this.lo = lo;
    this.hi = hi;
    this.outHi = hi & 0xffff;
    this.outLo = (lo & -4096) | (inLo & 4095);
    this.leafShift = 12;
    if (stage.hierarchical && inherited >>> 27 !== 0) this.inherit(inherited);
    return true;
  }

  private leaf(stage: Stage, shift: number, inHi: number, inLo: number, inherited: number): number {
    const baseHi = this.hi & 0xffff;
    if (shift < 32) {
      const mask = (1 << shift) - 1;
      this.outHi = baseHi;
      this.outLo = (this.lo & ~mask) | (inLo & mask);
    } else {
      const mask = (1 << (shift - 32)) - 1;
      this.outHi = (baseHi & ~mask) | (inHi & mask);
      this.outLo = inLo;
    }
    if ((this.outHi & stage.beyondOutputHi) !== 0) return Event.F_ADDR_SIZE;
    this.leafShift = shift;
    if (inherited !== 0) this.inherit(inherited);
    return 0;
  }

  /** Table attributes only take away: APTable[62:61], XNTable 60, PXNTable 59. What APTable makes read-only no write makes dirty. */
  private inherit(hi: number): void {
    if ((hi & (1 << 30)) !== 0) {
      this.lo |= AP2;
      this.hi &= ~DBM;
    }
    if ((hi & (1 << 29)) !== 0) this.lo &= ~0x40;
    if ((hi & (1 << 28)) !== 0) this.hi |= 1 << 22;
    if ((hi & (1 << 27)) !== 0) this.hi |= 1 << 21;
  }

  /** Reads the entry at {hi, lo} into this.lo/hi; the address of a stage 1 table is an IPA under a stage 2. */
  private fetch(stage: Stage, s2: Stage | null, hi: number, lo: number, level: number): number {
    let atHi = hi;
    let atLo = lo;
    if (s2 !== null) {
      const refused = this.fetchThrough(s2, hi, lo, EventClass.TTD);
      if (refused !== 0) return refused;
      this.class = EventClass.IN;
      atHi = this.outHi;
      atLo = this.outLo;
      this.tablePerms = this.perms;
      this.tableHi = this.entryHi;
      this.tableLo = this.entryLo;
      this.tableOnWrite = this.onWrite;
      this.tableIpaHi = hi;
      this.tableIpaLo = lo;
    }
    const { memory } = this;
    if (!memory.locate(atHi, atLo)) {
      this.fetchHi = atHi;
      this.fetchLo = atLo;
      this.stage2 = stage.stage === 2;
      this.class = EventClass.TTD;
      return Event.F_WALK_EABT;
    }
    this.lo = memory.words[memory.at];
    this.hi = memory.words[memory.at + 1];
    this.entryHi = atHi;
    this.entryLo = atLo;
    if (this.trace !== null) this.note(stage, level, atHi, atLo);
    return 0;
  }

  private note(stage: Stage, level: number, hi: number, lo: number): void {
    const at = fromHalves(hi, lo) as Hpa;
    this.trace!.push({ table: `stage ${stage.stage}`, level, at, entry: word64(this.lo, this.hi) });
  }
}
