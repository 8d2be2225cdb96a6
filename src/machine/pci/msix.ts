/**
 * MSI-X (PCIe 6.1.4 and 7.7.2): the capability's two control bits, the table, and the pending bits. The table is bytes that may
 * change behind the model (user space can have it mapped), so that the entry is read anew for each interrupt and nothing of it is kept.
 */
import {
  MSIX_BAR_MASK,
  Msix,
  MsixEntry,
  MsixFlags,
  msixPbaSize,
  msixTableSize,
  msixVectors,
} from '../../arch/pci/index.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import type { Registers } from '../../ports/pci.ts';
import type { BarArea } from './bar.ts';
import type { ConfigSpace, ConfigWatcher } from './config-space.ts';

/** Who sends what an unmask lets go. */
export interface MessageSender {
  /** Sends vector `vector`, whose pending bit was just cleared. */
  release(vector: number): void;
  /** Enable or function mask changed. */
  messagesChanged(): void;
}

const ENTRY_WORDS = MsixEntry.SIZE / 4;

export class MsixCapability implements ConfigWatcher {
  readonly offset: number;
  readonly vectors: number;
  /** Entry `v` is words 4v to 4v + 3: address low, address high, data, control. */
  readonly table: Int32Array;
  /** Bit v & 31 of word v >> 5. */
  readonly pending: Int32Array;
  pendingCount = 0;
  enabled = false;
  functionMask = false;
  readonly tableBar: number;
  readonly tableOffset: number;
  readonly pbaBar: number;
  readonly pbaOffset: number;
  private readonly config: ConfigSpace;
  private readonly ledger: Float64Array;
  private readonly sender: MessageSender;

  constructor(config: ConfigSpace, offset: number, ledger: Float64Array, sender: MessageSender) {
    this.config = config;
    this.offset = offset;
    this.ledger = ledger;
    this.sender = sender;
    this.vectors = msixVectors(config.read(offset + Msix.FLAGS, 2));
    const table = config.read(offset + Msix.TABLE, 4);
    const pba = config.read(offset + Msix.PBA, 4);
    this.tableBar = table & MSIX_BAR_MASK;
    this.tableOffset = (table & ~MSIX_BAR_MASK) >>> 0;
    this.pbaBar = pba & MSIX_BAR_MASK;
    this.pbaOffset = (pba & ~MSIX_BAR_MASK) >>> 0;
    this.table = new Int32Array(msixTableSize(this.vectors) / 4);
    this.pending = new Int32Array(msixPbaSize(this.vectors) / 4);
    this.clearTable();
    config.allow(offset + Msix.FLAGS, 2, MsixFlags.ENABLE | MsixFlags.FUNCTION_MASK);
    config.watch(offset, Msix.LENGTH, this);
  }

  isMasked(vector: number): boolean {
    return this.functionMask || (this.table[vector * ENTRY_WORDS + 3] & MsixEntry.MASKED) !== 0;
  }

  isPending(vector: number): boolean {
    return (this.pending[vector >> 5] & (1 << (vector & 31))) !== 0;
  }

  /** Sets the pending bit; false when it was set already. */
  hold(vector: number): boolean {
    if (this.isPending(vector)) return false;
    this.pending[vector >> 5] |= 1 << (vector & 31);
    this.pendingCount++;
    this.ledger[Count.PENDING] += 1;
    return true;
  }

  /** Sends every pending vector that no mask holds: after an unmask, and because the table may have changed unseen. */
  sync(): void {
    if (this.pendingCount === 0 || !this.enabled || this.functionMask) return;
    for (let word = 0; word < this.pending.length; word++) {
      for (let bits = this.pending[word]; bits !== 0; bits &= bits - 1) {
        const vector = (word << 5) + 31 - Math.clz32(bits & -bits);
        if (this.enabled && !this.isMasked(vector) && this.isPending(vector)) this.letGo(vector);
      }
    }
  }

  private letGo(vector: number): void {
    this.pending[vector >> 5] &= ~(1 << (vector & 31));
    this.pendingCount--;
    this.ledger[Count.PENDING] -= 1;
    this.sender.release(vector);
  }

  written(): void {
    const flags = this.config.read(this.offset + Msix.FLAGS, 2);
    this.enabled = (flags & MsixFlags.ENABLE) !== 0;
    this.functionMask = (flags & MsixFlags.FUNCTION_MASK) !== 0;
    this.sender.messagesChanged();
    this.sync();
  }

  /** A store into the table. Bits 1:0 of the address are wired to zero, and so is all of the control word but the mask. */
  writeTable(at: number, size: number, value: number): void {
    const word = at >> 2;
    if (word >= this.table.length) return;
    const shift = (at & 3) << 3;
    const lanes = size === 4 ? -1 : ((size === 2 ? 0xffff : 0xff) << shift) | 0;
    const merged = (this.table[word] & ~lanes) | ((value << shift) & lanes);
    const register = word % ENTRY_WORDS;
    this.table[word] = register === 0 ? merged & ~3 : register === 3 ? merged & MsixEntry.MASKED : merged;
    if (register === 3) this.sync();
  }

  /** Conventional or function level reset. Pending interrupts end here. */
  reset(): void {
    this.enabled = false;
    this.functionMask = false;
    this.ledger[Count.PENDING] -= this.pendingCount;
    this.ledger[Count.LOST + Loss.TORN_DOWN] += this.pendingCount;
    this.pendingCount = 0;
    this.pending.fill(0);
    this.clearTable();
  }

  private clearTable(): void {
    this.table.fill(0);
    for (let vector = 0; vector < this.vectors; vector++) this.table[vector * ENTRY_WORDS + 3] = MsixEntry.MASKED;
  }

  tableArea(): BarArea {
    return new TableArea(this);
  }

  pbaArea(): BarArea {
    return new PendingArea(this);
  }
}

class TableArea implements BarArea, Registers {
  readonly offset: number;
  readonly size: number;
  private readonly msix: MsixCapability;

  constructor(msix: MsixCapability) {
    this.msix = msix;
    this.offset = msix.tableOffset;
    this.size = msixTableSize(msix.vectors);
  }

  get registers(): Registers {
    return this;
  }

  bytes(): Uint8Array {
    const { table } = this.msix;
    return new Uint8Array(table.buffer, table.byteOffset, table.byteLength);
  }

  read(offset: number, size: number): number {
    const at = offset - this.offset;
    return lanes(this.msix.table[at >> 2], at, size);
  }

  write(offset: number, size: number, value: number): void {
    this.msix.writeTable(offset - this.offset, size, value);
  }
}

class PendingArea implements BarArea, Registers {
  readonly offset: number;
  readonly size: number;
  private readonly msix: MsixCapability;

  constructor(msix: MsixCapability) {
    this.msix = msix;
    this.offset = msix.pbaOffset;
    this.size = msixPbaSize(msix.vectors);
  }

  get registers(): Registers {
    return this;
  }

  bytes(): null {
    return null;
  }

  read(offset: number, size: number): number {
    this.msix.sync();
    const at = offset - this.offset;
    return lanes(this.msix.pending[at >> 2], at, size);
  }

  /** Software shall not write pending bits; nothing happens when it does. */
  write(): void {}
}

function lanes(word: number, at: number, size: number): number {
  const value = word >>> ((at & 3) << 3);
  return size === 4 ? value : value & (size === 2 ? 0xffff : 0xff);
}
