/** A guest's software for its ITS: tables, the command queue, and LPIs, all in guest memory (IHI 0069 chapters 5 and 6). */
import {
  encodeDiscard,
  encodeMapc,
  encodeMapd,
  encodeMapti,
  encodeSync,
  ITS_COMMAND_SIZE,
} from '../arch/gic/its-commands.ts';
import {
  GITS_BASER,
  GITS_CBASER,
  GITS_CTLR,
  GITS_CTLR_ENABLE,
  GITS_CWRITER,
  GITS_TRANSLATER,
  GITS_TYPER,
  parseItsType,
  parseTableBase,
  queueBase,
  tableBase,
} from '../arch/gic/its-registers.ts';
import {
  GICR_CTLR,
  GICR_CTLR_ENABLE_LPIS,
  GICR_PENDBASER,
  GICR_PROPBASER,
  GICR_STRIDE,
  LPI_FIRST,
  LPI_PROP_DEFAULT_PRIO,
  LPI_PROP_ENABLED,
  LPI_PROP_GROUP1,
  pendBase,
  propBase,
} from '../arch/gic/redistributor.ts';
import type { GuestCpu } from '../ports/guest.ts';
import type { GuestInterrupt } from './guest-controller.ts';
import { GuestError } from './guest-error.ts';
import type { GuestGic as GicMap } from './guest-map.ts';
import type { VirtualMachine } from './vm.ts';

const PAGE = 0x1_0000;
/** Bits of an LPI's identifier that are used: 57,344 LPIs. */
const ID_BITS = 16;
const QUEUE_SIZE = PAGE;

interface Halves {
  readonly lo: number;
  readonly hi: number;
}

/** Its memory is at the end of the guest's first block of RAM; the rest is the guest program's. */
export class GuestIts {
  readonly #vm: VirtualMachine;
  readonly #cpu: GuestCpu;
  readonly #base: number;
  readonly #collection: number;
  readonly #command = new Int32Array(ITS_COMMAND_SIZE / 4);
  readonly #ittEntry: number;
  readonly #queue: number;
  readonly #properties: number;
  /** Translation tables by device, kept for the next time. */
  readonly #tables = new Map<number, { readonly at: number; readonly bits: number }>();
  readonly #taken = new Set<number>();
  #bottom: number;
  #writer = 0;
  #next = LPI_FIRST;

  constructor(vm: VirtualMachine, map: GicMap, cpu: GuestCpu, index: number) {
    const ram = vm.map.ram[0];
    this.#vm = vm;
    this.#cpu = cpu;
    this.#base = map.its ?? 0;
    this.#collection = index;
    this.#bottom = ram.base + ram.size;
    this.#ittEntry = parseItsType(cpu.mmioRead(this.#base + GITS_TYPER, 4) ?? 0).ittEntrySize;
    this.#properties = this.#carve(2 ** ID_BITS, PAGE);
    this.#enableLpis((map.redistributors ?? 0) + index * GICR_STRIDE);
    this.#queue = this.#carve(QUEUE_SIZE, PAGE);
    this.#write64(GITS_CBASER, queueBase(this.#queue, QUEUE_SIZE));
    for (let i = 0; i < 2; i++) this.#giveTable(GITS_BASER + i * 8);
    cpu.mmioWrite(this.#base + GITS_CTLR, 4, GITS_CTLR_ENABLE);
    this.#send(encodeMapc(this.#command, this.#collection, index * PAGE, true));
    this.#sync();
  }

  /** Maps the device with `count` events, each an LPI of its own. */
  allocate(device: number, count: number): readonly GuestInterrupt[] {
    const bits = Math.max(Math.ceil(Math.log2(count)), 1);
    const table = this.#table(device, bits);
    this.#send(encodeMapd(this.#command, device, bits, table, true));
    const interrupts = Array.from({ length: count }, (_, event) => {
      const intid = this.#lpi();
      this.#property(intid, LPI_PROP_DEFAULT_PRIO | LPI_PROP_GROUP1 | LPI_PROP_ENABLED);
      this.#send(encodeMapti(this.#command, device, event, intid, this.#collection));
      return { cpu: this.#collection, intid, message: { address: this.#base + GITS_TRANSLATER, data: event } };
    });
    this.#sync();
    return interrupts;
  }

  free(device: number, interrupts: readonly GuestInterrupt[]): void {
    for (const { intid, message } of interrupts) {
      this.#send(encodeDiscard(this.#command, device, message.data));
      this.#property(intid, 0);
      this.#taken.delete(intid);
    }
    this.#send(encodeMapd(this.#command, device, 1, 0, false));
    this.#sync();
  }

  #enableLpis(redistributor: number): void {
    const pending = this.#carve(PAGE, PAGE);
    const write = (offset: number, { lo, hi }: Halves): void => {
      this.#cpu.mmioWrite(redistributor + offset, 4, lo >>> 0);
      this.#cpu.mmioWrite(redistributor + offset + 4, 4, hi >>> 0);
    };
    write(GICR_PROPBASER, propBase(this.#properties, ID_BITS));
    write(GICR_PENDBASER, pendBase(pending, true));
    this.#cpu.mmioWrite(redistributor + GICR_CTLR, 4, GICR_CTLR_ENABLE_LPIS);
  }

  /** As much as 65,536 identifiers take, in the entry size that the register tells. */
  #giveTable(register: number): void {
    const lo = this.#cpu.mmioRead(this.#base + register, 4) ?? 0;
    const hi = this.#cpu.mmioRead(this.#base + register + 4, 4) ?? 0;
    const { type, entrySize } = parseTableBase(lo | 0, hi | 0);
    const pages = entrySize;
    const address = this.#carve(pages * PAGE, PAGE);
    const table = { valid: true, indirect: false, type, entrySize, address, pageSize: PAGE, pages };
    this.#write64(register, tableBase(table));
  }

  #table(device: number, bits: number): number {
    const known = this.#tables.get(device);
    if (known !== undefined && known.bits >= bits) return known.at;
    const at = this.#carve(Math.max(2 ** bits * this.#ittEntry, 256), 256);
    this.#tables.set(device, { at, bits });
    return at;
  }

  #lpi(): number {
    while (this.#taken.has(this.#next) && this.#next < 2 ** ID_BITS) this.#next++;
    if (this.#next >= 2 ** ID_BITS) {
      this.#next = LPI_FIRST;
      while (this.#taken.has(this.#next)) this.#next++;
    }
    if (this.#next >= 2 ** ID_BITS) throw new GuestError('the guest has no free LPI');
    this.#taken.add(this.#next);
    return this.#next;
  }

  #property(intid: number, value: number): void {
    this.#memory(this.#properties + intid - LPI_FIRST, 1)[0] = value;
  }

  #send(words: Int32Array): void {
    const bytes = this.#memory(this.#queue + this.#writer, ITS_COMMAND_SIZE);
    bytes.set(new Uint8Array(words.buffer, words.byteOffset, ITS_COMMAND_SIZE));
    this.#writer = (this.#writer + ITS_COMMAND_SIZE) % QUEUE_SIZE;
    // The queue is short of room only when the reader is one behind, so the ITS is told now and then.
    if (this.#writer % 4096 === 0) this.#cpu.mmioWrite(this.#base + GITS_CWRITER, 4, this.#writer);
  }

  #sync(): void {
    this.#send(encodeSync(this.#command, this.#collection * PAGE));
    this.#cpu.mmioWrite(this.#base + GITS_CWRITER, 4, this.#writer);
  }

  #write64(register: number, { lo, hi }: Halves): void {
    this.#cpu.mmioWrite(this.#base + register, 4, lo >>> 0);
    this.#cpu.mmioWrite(this.#base + register + 4, 4, hi >>> 0);
  }

  #carve(size: number, alignment: number): number {
    this.#bottom = Math.floor((this.#bottom - size) / alignment) * alignment;
    this.#memory(this.#bottom, size).fill(0);
    return this.#bottom;
  }

  #memory(gpa: number, length: number): Uint8Array {
    const bytes = this.#vm.memory(gpa, length);
    if (bytes === null)
      throw new GuestError(`the guest's RAM is too small for its ITS: nothing at 0x${gpa.toString(16)}`);
    return bytes;
  }
}
