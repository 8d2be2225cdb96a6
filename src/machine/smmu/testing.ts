/** A bare SMMU with tables written by hand, for the tests of this room: no driver's code between the test and the hardware. */
import { hi32, type Layout, lo32, pack, word64 } from '../../arch/bits.ts';
import { CD, CD_SIZE, CD_WORDS, type CdField } from '../../arch/smmuv3/cd.ts';
import { command } from '../../arch/smmuv3/commands.ts';
import { decodeEvent, type EventRecord } from '../../arch/smmuv3/events.ts';
import { CR0, CR2, Reg } from '../../arch/smmuv3/registers.ts';
import { STE, STE_SIZE, STE_WORDS, type SteField } from '../../arch/smmuv3/ste.ts';
import { Access, type StatusCode, Transaction } from '../../ports/transaction.ts';
import { SystemBus } from '../bus.ts';
import { RamMemory } from '../memory.ts';
import type { SmmuSpec } from '../spec.ts';
import { createTap } from '../tap.ts';
import { readRecord } from './event-queue.ts';
import { Smmu } from './smmu.ts';

export const RAM = 0x4000_0000;
/** Where the bench keeps things; tables go from TABLES on. */
const STREAMS = RAM;
const COMMANDS = RAM + 0x1_0000;
const EVENTS = RAM + 0x2_0000;
export const CDS = RAM + 0x3_0000;
const TABLES = RAM + 0x10_0000;

export const SPEC: SmmuSpec = {
  type: 'smmuv3',
  base: 0x905_0000,
  stage1: true,
  stage2: true,
  granules: [4096, 16384, 65536],
  oas: 48,
  sidBits: 8,
  ssidBits: 8,
  coherent: true,
  s2fwb: false,
  canwbs: false,
  stall: true,
  eventQueueLog2: 4,
  twoLevelStreamTable: false,
  reserved: [],
};

/** A leaf that allows everything: AF, AP[1], nG in stage 1; AF, HAP read and write in stage 2. */
export const LEAF1 = 0xc40n;
export const LEAF2 = 0x4c0n;
/** Without nG. */
export const LEAF1_GLOBAL = 0x440n;

export class SmmuBench {
  readonly memory = new RamMemory([{ base: RAM, size: 0x800_0000 }]);
  readonly bus = new SystemBus(this.memory);
  readonly tap = createTap();
  readonly smmu: Smmu;
  readonly tx = new Transaction();
  private readonly base: number;
  private nextTable = TABLES;
  private prod = 0;

  constructor(changes: Partial<SmmuSpec> = {}, recordBadStreams = true) {
    const spec = { ...SPEC, ...changes };
    this.base = spec.base;
    this.smmu = new Smmu(spec, this.memory, this.tap);
    this.smmu.attach(this.bus);
    this.write64(Reg.STRTAB_BASE, BigInt(STREAMS));
    this.write(Reg.STRTAB_BASE_CFG, 6);
    this.write64(Reg.CMDQ_BASE, BigInt(COMMANDS) | 4n);
    this.write64(Reg.EVTQ_BASE, BigInt(EVENTS) | BigInt(spec.eventQueueLog2));
    this.write(Reg.CR2, recordBadStreams ? CR2.RECINVSID : 0);
    this.write(Reg.CR0, CR0.SMMUEN | CR0.EVENTQEN | CR0.CMDQEN);
  }

  read(offset: number): number {
    return this.bus.read32(this.base + offset);
  }

  write(offset: number, value: number): void {
    this.bus.write32(this.base + offset, value | 0);
  }

  write64(offset: number, value: bigint): void {
    this.write(offset, lo32(value));
    this.write(offset + 4, hi32(value));
  }

  /** Writes a stream's entry, without telling the SMMU. V is 1 unless it is given. */
  ste(sid: number, values: Partial<Record<SteField, bigint | number>>): number {
    const at = STREAMS + sid * STE_SIZE;
    this.words(at, pack(STE, STE_WORDS, { V: 1, ...values }));
    return at;
  }

  /** Writes a context descriptor at CDS + index: 48 bits of TTB0 with 4K pages, R, A. */
  cd(index: number, values: Partial<Record<CdField, bigint | number>>, table = CDS): number {
    const at = table + index * CD_SIZE;
    const usual = { V: 1, AA64: 1, T0SZ: 16, TG0: 0, EPD1: 1, IPS: 5, R: 1, A: 1 };
    this.words(at, pack(CD, CD_WORDS, { ...usual, ...values }));
    return at;
  }

  /** Stream 1 through stage 1 with ASID 1: the usual start. Returns the first table. */
  stage1(sid = 1, asid = 1): number {
    const root = this.table();
    const at = this.cd(sid, { ASID: asid, TTB0: BigInt(root) >> 4n });
    this.ste(sid, { Config: 5, S1ContextPtr: BigInt(at) >> 6n });
    return root;
  }

  /** Stage 2 of 44 bits from level 0. */
  stage2Fields(root: number, vmid = 1): Partial<Record<SteField, bigint | number>> {
    return { S2VMID: vmid, S2T0SZ: 20, S2SL0: 2, S2PS: 5, S2AA64: 1, S2R: 1, S2TTB: BigInt(root) >> 4n };
  }

  table(bytes = 4096): number {
    const at = Math.ceil(this.nextTable / bytes) * bytes;
    this.nextTable = at + bytes;
    return at;
  }

  /** Maps one leaf at `level` by hand, making tables on the way. Returns the address of the leaf. */
  map(root: number, iova: number, pa: number, attributes: bigint, shape = { granule: 12, start: 0, level: 3 }): number {
    const width = shape.granule - 3;
    let table = root;
    for (let level = shape.start; ; level++) {
      const shift = shape.granule + (3 - level) * width;
      const mask = level === shape.start ? 2 ** 20 : 2 ** width;
      const at = table + (Math.floor(iova / 2 ** shift) % mask) * 8;
      if (level === shape.level) {
        this.words(at, [BigInt(pa) | attributes | (level === 3 ? 3n : 1n)]);
        return at;
      }
      const entry = this.word(at);
      if ((entry & 1n) === 0n) {
        table = this.table(2 ** shape.granule);
        this.words(at, [BigInt(table) | 3n]);
      } else {
        table = Number(entry & 0xffff_ffff_f000n);
      }
    }
  }

  word(at: number): bigint {
    return word64(this.memory.read32(at), this.memory.read32(at + 4));
  }

  words(at: number, words: readonly bigint[]): void {
    words.forEach((word, i) => {
      this.memory.write64(at + i * 8, lo32(word), hi32(word));
    });
  }

  /** Puts one command into the queue and lets the SMMU take it. */
  command<Name extends string>(layout: Layout<Name>, values: Partial<Record<Name, bigint | number>>): void {
    this.words(COMMANDS + (this.prod & 15) * 16, command(layout, values));
    this.prod = (this.prod + 1) & 31;
    this.write(Reg.CMDQ_PROD, this.prod);
  }

  dma(iova: number | bigint, access: number = Access.WRITE, sid = 1, ssid = -1): StatusCode {
    const address = BigInt(iova);
    this.tx.requester = sid;
    this.tx.ssid = ssid;
    this.tx.iovaHi = hi32(address);
    this.tx.iovaLo = lo32(address);
    this.tx.access = access;
    return this.smmu.translate(this.tx);
  }

  get pa(): number {
    return (this.tx.paHi >>> 0) * 4294967296 + (this.tx.paLo >>> 0);
  }

  /** Takes all records, as software does. */
  events(): EventRecord[] {
    const { log2 } = this.smmu.events;
    const mask = (2 << log2) - 1;
    const prod = this.read(Reg.EVTQ_PROD);
    const records: EventRecord[] = [];
    for (let index = this.read(Reg.EVTQ_CONS) & mask; index !== (prod & mask); index = (index + 1) & mask) {
      records.push(decodeEvent(readRecord(this.memory, EVENTS + (index & (mask >> 1)) * 32)));
    }
    this.write(Reg.EVTQ_CONS, prod);
    return records;
  }
}
