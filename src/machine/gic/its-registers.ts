/** The ITS's registers and its command queue. */
import {
  GIC_PIDR2_ARCH_GICv3,
  GITS_BASER,
  GITS_BASER_NR_REGS,
  GITS_BASER_TYPE_COLLECTION,
  GITS_BASER_TYPE_DEVICE,
  GITS_CBASER,
  GITS_CREADR,
  GITS_CREADR_STALLED,
  GITS_CTLR,
  GITS_CTLR_ENABLE,
  GITS_CTLR_QUIESCENT,
  GITS_CWRITER,
  GITS_CWRITER_RETRY,
  GITS_IIDR,
  GITS_PIDR2,
  GITS_QUEUE_OFFSET,
  GITS_TYPER,
  ITS_COMMAND_SIZE,
  ITS_ENTRY_SIZE,
  itsTypeLow,
  parseTableBase,
  queueAddress,
  queueBytes,
} from '../../arch/gic/index.ts';
import type { MmioTarget } from '../../ports/bus.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';
import type { Its } from './its.ts';
import { ItsCommands } from './its-commands.ts';
import { ARM_IIDR } from './redistributor.ts';

/** What BASER0 and BASER1 are for; the others are not implemented (type 0). */
const TABLE_TYPES = [GITS_BASER_TYPE_DEVICE, GITS_BASER_TYPE_COLLECTION];

export class ItsRegisters implements MmioTarget {
  readonly name: string;
  private readonly its: Its;
  private readonly memory: PhysicalMemory;
  private readonly commands: ItsCommands;
  private readonly typeLow: number;
  private cbaserLo = 0;
  private cbaserHi = 0;
  private writer = 0;
  private reader = 0;
  private stalled = false;
  private running = false;
  /** Halves of the eight BASERs, low first. */
  private readonly basers = new Int32Array(GITS_BASER_NR_REGS * 2);
  private readonly bytes = new Uint8Array(ITS_COMMAND_SIZE);
  private readonly words = new Int32Array(this.bytes.buffer);

  constructor(its: Its, memory: PhysicalMemory) {
    this.its = its;
    this.memory = memory;
    this.name = its.name;
    this.commands = new ItsCommands(its);
    this.typeLow = itsTypeLow({
      ittEntrySize: ITS_ENTRY_SIZE,
      eventBits: its.eventBits,
      deviceBits: its.deviceBits,
      physicalTargets: false,
      hardwareCollections: 0,
    });
    for (let index = 0; index < TABLE_TYPES.length; index++) this.writeTableBase(index * 2 + 1, 0);
  }

  /** GITS_TRANSLATER and the rest of its frame read as zero. */
  read(offset: number, _size: number): number {
    const at = offset & ~3;
    if (at >= GITS_BASER && at < GITS_BASER + 8 * GITS_BASER_NR_REGS) return this.basers[(at - GITS_BASER) >>> 2];
    switch (at) {
      case GITS_CTLR:
        return this.its.enabled ? GITS_CTLR_ENABLE : GITS_CTLR_QUIESCENT;
      case GITS_IIDR:
        return ARM_IIDR;
      case GITS_TYPER:
        return this.typeLow;
      case GITS_CBASER:
        return this.cbaserLo;
      case GITS_CBASER + 4:
        return this.cbaserHi;
      case GITS_CWRITER:
        return this.writer;
      case GITS_CREADR:
        return this.reader | (this.stalled ? GITS_CREADR_STALLED : 0);
      case GITS_PIDR2:
        return GIC_PIDR2_ARCH_GICv3;
      default:
        return 0;
    }
  }

  /** A CPU's write to GITS_TRANSLATER has no device id and raises nothing. */
  write(offset: number, _size: number, value: number): void {
    const at = offset & ~3;
    if (at === GITS_CTLR) {
      this.its.enabled = (value & GITS_CTLR_ENABLE) !== 0;
      this.its.cache.flush();
      this.run();
    } else if (at === GITS_CWRITER) {
      this.writer = value & GITS_QUEUE_OFFSET;
      if ((value & GITS_CWRITER_RETRY) !== 0) this.stalled = false;
      this.run();
    } else if (!this.its.enabled) this.writeBase(at, value | 0);
  }

  /** Queue and tables; UNPREDICTABLE while the ITS is enabled (IHI 0069 12.19.2), here without effect. */
  private writeBase(at: number, value: number): void {
    if (at === GITS_CBASER || at === GITS_CBASER + 4) {
      if (at === GITS_CBASER) this.cbaserLo = value;
      else this.cbaserHi = value;
      this.reader = 0;
      this.stalled = false;
    } else if (at >= GITS_BASER && at < GITS_BASER + 8 * GITS_BASER_NR_REGS) {
      this.writeTableBase((at - GITS_BASER) >>> 2, value);
    }
  }

  /** Type and entry size are read-only, and the collection table has no second level. */
  private writeTableBase(word: number, value: number): void {
    const index = word >>> 1;
    const type = TABLE_TYPES[index];
    if (type === undefined) return;
    const fixed = (type << 24) | ((ITS_ENTRY_SIZE - 1) << 16);
    const writable = type === GITS_BASER_TYPE_DEVICE ? 0xf8e0ffff : 0xb8e0ffff;
    this.basers[word] = (word & 1) === 0 ? value : (value & writable) | fixed;
    const table = parseTableBase(this.basers[index * 2], this.basers[index * 2 + 1]);
    if (type === GITS_BASER_TYPE_DEVICE) this.its.tables.devices = table;
    else this.its.tables.collections = table;
    this.its.cache.flush();
  }

  /** Takes commands until the queue is empty, or one cannot be read or stored (stalled until CWRITER.Retry). */
  private run(): void {
    if (this.running) return;
    this.running = true;
    const size = queueBytes(this.cbaserLo);
    while (
      this.its.enabled &&
      this.cbaserHi < 0 &&
      !this.stalled &&
      this.reader !== this.writer &&
      this.writer < size
    ) {
      const pa = queueAddress(this.cbaserLo, this.cbaserHi) + this.reader;
      if (!this.memory.read(pa, this.bytes) || !this.commands.execute(this.words)) this.stalled = true;
      else this.reader = (this.reader + ITS_COMMAND_SIZE) % size;
    }
    this.running = false;
    // Only now: a handler may queue commands itself, and expects them to be done when it looks.
    this.commands.release();
  }
}
