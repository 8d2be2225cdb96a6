/** The per-interrupt register arrays that the distributor and the redistributor share (IHI 0069 12.9, 12.11; vgic-mmio.c). */
import type { VgicIrq } from './vgic-irq.ts';

/** The interrupts that a register array shows, by identifier; undefined for identifiers that do not exist here. */
export type IrqBank = (intid: number) => VgicIrq | undefined;

/** Offsets of GICD_, and of GICR_ in the SGI frame. */
const IGROUPR = 0x80;
const ISENABLER = 0x100;
const ICENABLER = 0x180;
const ISPENDR = 0x200;
const ICPENDR = 0x280;
const ISACTIVER = 0x300;
const ICACTIVER = 0x380;
const IPRIORITYR = 0x400;
const ITARGETSR = 0x800;
const ICFGR = 0xc00;
const END = 0xd00;

/** Register arrays with one bit for each interrupt: what a bit reads, and what writing a one does. */
const BITS: Record<number, { read: (irq: VgicIrq) => boolean; set: (irq: VgicIrq) => void }> = {
  // Group 1 for all: the guest has no other.
  [IGROUPR]: { read: () => true, set: () => {} },
  [ISENABLER]: { read: (irq) => irq.enabled, set: (irq) => setEnabled(irq, true) },
  [ICENABLER]: { read: (irq) => irq.enabled, set: (irq) => setEnabled(irq, false) },
  [ISPENDR]: { read: (irq) => irq.pending, set: setPending },
  [ICPENDR]: { read: (irq) => irq.pending, set: (irq) => irq.clear() },
  [ISACTIVER]: { read: (irq) => irq.active, set: (irq) => setActive(irq, true) },
  [ICACTIVER]: { read: (irq) => irq.active, set: (irq) => setActive(irq, false) },
};

function setEnabled(irq: VgicIrq, enabled: boolean): void {
  irq.enabled = enabled;
  irq.refresh();
}

function setActive(irq: VgicIrq, active: boolean): void {
  irq.active = active;
  irq.refresh();
}

/** A pending bit is a latch of its own, whatever the configuration. */
function setPending(irq: VgicIrq): void {
  irq.latch = true;
  irq.refresh();
}

/** Null: the offset is in none of the arrays. */
export function readIrqRegisters(bank: IrqBank, offset: number, size: number): number | null {
  if (offset < IGROUPR || offset >= END || (offset >= ITARGETSR && offset < ICFGR)) return null;
  let value = 0;
  for (let i = 0; i < size; i += 1) value += readByte(bank, offset + i) * 2 ** (8 * i);
  return value;
}

/** False: the offset is in none of the arrays. */
export function writeIrqRegisters(bank: IrqBank, offset: number, size: number, value: number): boolean {
  if (offset < IGROUPR || offset >= END || (offset >= ITARGETSR && offset < ICFGR)) return false;
  for (let i = 0; i < size; i += 1) writeByte(bank, offset + i, (value >>> (8 * i)) & 0xff);
  return true;
}

function readByte(bank: IrqBank, offset: number): number {
  if (offset >= ICFGR) {
    return gather(4, (i) => (bank((offset - ICFGR) * 4 + i)?.level === false ? 2 : 0), 2);
  }
  if (offset >= IPRIORITYR) return bank(offset - IPRIORITYR)?.priority ?? 0;
  const bits = BITS[offset & ~0x7f];
  return gather(8, (i) => {
    const irq = bank((offset & 0x7f) * 8 + i);
    return irq !== undefined && bits.read(irq) ? 1 : 0;
  });
}

function writeByte(bank: IrqBank, offset: number, value: number): void {
  if (offset >= ICFGR) {
    for (let i = 0; i < 4; i += 1) configure(bank((offset - ICFGR) * 4 + i), ((value >> (2 * i)) & 2) === 0);
    return;
  }
  if (offset >= IPRIORITYR) {
    const irq = bank(offset - IPRIORITYR);
    if (irq === undefined) return;
    irq.priority = value & 0xf8;
    irq.refresh();
    return;
  }
  const bits = BITS[offset & ~0x7f];
  for (let i = 0; i < 8; i += 1) {
    const irq = bank((offset & 0x7f) * 8 + i);
    if (irq !== undefined && (value & (1 << i)) !== 0) bits.set(irq);
  }
}

/** SGIs are always edge triggered. */
function configure(irq: VgicIrq | undefined, level: boolean): void {
  if (irq === undefined || irq.intid < 16) return;
  irq.level = level;
  irq.refresh();
}

function gather(count: number, bit: (i: number) => number, width = 1): number {
  let value = 0;
  for (let i = 0; i < count; i += 1) value |= bit(i) << (i * width);
  return value;
}
