/** What the tests of this folder share: a machine of RAM, a GICv3 and an ITS, and a CPU that writes down what it is sent. */
import {
  encodeMapc,
  encodeMapd,
  encodeMapti,
  GICD_CTLR_ENABLE_GRP1,
  GICR_CTLR,
  GICR_CTLR_ENABLE_LPIS,
  GICR_PENDBASER,
  GICR_PROPBASER,
  GITS_BASER,
  GITS_CBASER,
  GITS_CREADR,
  GITS_CTLR,
  GITS_CWRITER,
  LPI_FIRST,
  LPI_PROP_DEFAULT_PRIO,
  LPI_PROP_ENABLED,
  pendBase,
  propBase,
  queueBase,
  tableBase,
} from '../../../arch/gic/index.ts';
import type { InterruptSink } from '../../../ports/bus.ts';
import { Transaction } from '../../../ports/transaction.ts';
import { SystemBus } from '../../bus.ts';
import { RamMemory } from '../../memory.ts';
import { createTap } from '../../tap.ts';
import { Gic } from '../gic.ts';
import { Its } from '../its.ts';

/** Every interrupt as [intid, cpu], in order. */
export class RecordingSink implements InterruptSink {
  readonly seen: [number, number][] = [];
  interrupt(intid: number, cpu: number): void {
    this.seen.push([intid, cpu]);
  }
  take(): [number, number][] {
    return this.seen.splice(0);
  }
}

export const ITS_BASE = 0x0808_0000;
export const GICR_BASE = 0x0900_0000;
const MEGABYTE = 2 ** 20;

/** A bare ITS at 0x0808_0000, LPIs on at every CPU, driven command by command. */
export class ItsBench {
  readonly memory = new RamMemory([{ base: 0x4000_0000, size: 64 * MEGABYTE }]);
  readonly bus = new SystemBus(this.memory);
  readonly tap = createTap();
  readonly sink = new RecordingSink();
  readonly gic: Gic;
  readonly its: Its;
  readonly properties: number;
  readonly pending: number[] = [];
  readonly queue: number;
  readonly devices: number;
  readonly collections: number;
  private readonly words = new Int32Array(8);
  private readonly tx = new Transaction();
  private writer = 0;
  private readonly taken: [number, number][] = [];

  constructor(options: { readonly cpus?: number; readonly lpiBits?: number; readonly indirect?: boolean } = {}) {
    const { cpus = 2, lpiBits = 16, indirect = false } = options;
    this.gic = new Gic(
      { version: 3, distributor: 0x0800_0000, redistributors: GICR_BASE, spis: 64, cpus, lpiBits },
      this.memory,
      this.tap,
    );
    this.gic.sink = this.sink;
    this.gic.attach(this.bus);
    this.its = new Its({ base: ITS_BASE }, this.gic, this.memory);
    this.its.attach(this.bus);
    this.bus.write32(0x0800_0000, GICD_CTLR_ENABLE_GRP1);
    this.properties = this.allocate(2 ** lpiBits);
    const prop = propBase(this.properties, lpiBits);
    for (let cpu = 0; cpu < cpus; cpu++) {
      const base = GICR_BASE + cpu * 0x20000;
      this.pending.push(this.allocate(Math.max(2 ** lpiBits / 8, 65536)));
      this.write64(base + GICR_PROPBASER, prop);
      this.write64(base + GICR_PENDBASER, pendBase(this.pending[cpu], true));
      this.bus.write32(base + GICR_CTLR, GICR_CTLR_ENABLE_LPIS);
    }
    this.queue = this.allocate(65536);
    this.write64(ITS_BASE + GITS_CBASER, queueBase(this.queue, 65536));
    this.devices = this.allocate(indirect ? 65536 : 2 ** 19);
    const flat = { valid: true, entrySize: 8, pageSize: 65536 };
    const pages = indirect ? 1 : 8;
    this.write64(ITS_BASE + GITS_BASER, tableBase({ ...flat, indirect, type: 1, address: this.devices, pages }));
    this.collections = this.allocate(65536);
    const table = { ...flat, indirect: false, type: 4, address: this.collections, pages: 1 };
    this.write64(ITS_BASE + GITS_BASER + 8, tableBase(table));
    this.bus.write32(ITS_BASE + GITS_CTLR, 1);
    for (let cpu = 0; cpu < cpus; cpu++) this.command((words) => encodeMapc(words, cpu, cpu << 16, true));
  }

  allocate(bytes: number): number {
    const pa = this.memory.allocate(bytes, Math.min(bytes, 65536));
    if (pa === null) throw new RangeError('the bench is out of memory');
    this.taken.push([pa, bytes]);
    return pa;
  }

  /** Frees what was allocated last until `allocated` bytes are left. */
  freeAbove(allocated: number): void {
    while (this.memory.allocated > allocated) {
      const last = this.taken.pop();
      if (last === undefined) return;
      this.memory.free(last[0], last[1]);
    }
  }

  write64(pa: number, value: { readonly lo: number; readonly hi: number }): void {
    this.bus.write32(pa, value.lo);
    this.bus.write32(pa + 4, value.hi);
  }

  /** Queues one command and rings; answers CREADR. */
  command(encode: (words: Int32Array) => Int32Array): number {
    this.memory.write(this.queue + this.writer, new Uint8Array(encode(this.words).buffer));
    this.writer = (this.writer + 32) % 65536;
    this.bus.write32(ITS_BASE + GITS_CWRITER, this.writer);
    return this.bus.read32(ITS_BASE + GITS_CREADR);
  }

  /** A device with its own ITT. Answers the ITT's address. */
  mapDevice(device: number, eventBits: number): number {
    const itt = this.allocate(Math.max(4096, 2 ** eventBits * 8));
    this.command((words) => encodeMapd(words, device, eventBits, itt, true));
    return itt;
  }

  mapEvent(device: number, event: number, lpi: number, collection: number): void {
    this.command((words) => encodeMapti(words, device, event, lpi, collection));
  }

  /** The property byte; takes effect with an INV. */
  setEnabled(lpi: number, on: boolean): void {
    const byte = Uint8Array.of(LPI_PROP_DEFAULT_PRIO | 2 | (on ? LPI_PROP_ENABLED : 0));
    this.memory.write(this.properties + lpi - LPI_FIRST, byte);
  }

  /** A device's write. */
  store(requester: number, data: number, pa = ITS_BASE + 0x10040): number {
    this.tx.requester = requester;
    this.tx.data = data;
    this.tx.paHi = 0;
    this.tx.paLo = pa | 0;
    return this.bus.store(this.tx);
  }
}
