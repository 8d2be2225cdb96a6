/**
 * One ITS as the driver holds it: Linux's struct its_node (irq-gic-v3-its.c). Everything reaches the hardware through registers, the
 * command queue, and tables in memory.
 */
import {
  encodeInvall,
  encodeMapc,
  encodeSync,
  GIC_PIDR2_ARCH_GICv3,
  GITS_BASER,
  GITS_BASER_NR_REGS,
  GITS_BASER_TYPE_COLLECTION,
  GITS_BASER_TYPE_DEVICE,
  GITS_CBASER,
  GITS_CREADR,
  GITS_CTLR,
  GITS_CTLR_ENABLE,
  GITS_CWRITER,
  GITS_PIDR2,
  GITS_TRANSLATER,
  GITS_TYPER,
  ITS_COMMAND_SIZE,
  type ItsTableBase,
  type ItsType,
  levelOneHigh,
  levelOneLow,
  parseItsType,
  parseTableBase,
  queueBase,
  tableBase,
} from '../../arch/gic/index.ts';
import { hex } from '../../ports/address.ts';
import type { KernelContext } from '../context.ts';
import type { LpiTables } from './lpi-tables.ts';

/** ITS_CMD_QUEUE_SZ: 2,048 commands. */
const ITS_CMD_QUEUE_SZ = 65536;
/** The pages that Linux tries first. */
const ITS_PAGE_SIZE = 65536;
const LEVEL_ONE_ENTRY = 8;
const MAX_PAGES = 256;

interface Table {
  readonly base: ItsTableBase;
  readonly bytes: number;
}

export class ItsNode {
  readonly base: number;
  readonly lpis: LpiTables;
  /** LPIs in use by CPU, for its_select_cpu. */
  readonly load: Int32Array;
  type: ItsType = parseItsType(0);
  private readonly context: KernelContext;
  private queue = -1;
  private writer = 0;
  private devices: Table | null = null;
  private collections: Table | null = null;
  /** Second-level pages of the device table. */
  private readonly levelTwo = new Map<number, number>();
  private readonly targets: number[] = [];
  private readonly words = new Int32Array(ITS_COMMAND_SIZE / 4);
  private readonly bytes = new Uint8Array(this.words.buffer);
  private readonly sync = new Int32Array(ITS_COMMAND_SIZE / 4);
  private readonly syncBytes = new Uint8Array(this.sync.buffer);

  constructor(context: KernelContext, base: number, lpis: LpiTables) {
    this.context = context;
    this.base = base;
    this.lpis = lpis;
    this.load = new Int32Array(lpis.cpus);
  }

  /** Physical address of the doorbell. */
  get translater(): number {
    return this.base + GITS_TRANSLATER;
  }

  /** its_probe_one and its_cpu_init_collections. 0, ENODEV, ENOMEM as -errno. */
  init(): number {
    const { bus, memory, refusals } = this.context;
    if ((bus.read32(this.base + GITS_PIDR2) & 0xf0) !== GIC_PIDR2_ARCH_GICv3) {
      return refusals.refuse('ENODEV', `there is no ITS at ${hex(this.base)}`);
    }
    this.type = parseItsType(bus.read32(this.base + GITS_TYPER));
    const queue = memory.allocate(ITS_CMD_QUEUE_SZ, 65536);
    if (queue === null) return refusals.refuse('ENOMEM', 'no memory for the command queue of the ITS');
    this.queue = queue;
    const error = this.setupTables();
    if (error < 0) {
      this.release();
      return error;
    }
    this.write64(this.base + GITS_CBASER, queueBase(queue, ITS_CMD_QUEUE_SZ));
    bus.write32(this.base + GITS_CWRITER, 0);
    this.writer = 0;
    bus.write32(this.base + GITS_CTLR, GITS_CTLR_ENABLE);
    for (let cpu = 0; cpu < this.lpis.cpus; cpu++) this.initCollection(cpu);
    return 0;
  }

  /** The ITS off, and every table back to memory. */
  release(): void {
    const { memory, bus } = this.context;
    bus.write32(this.base + GITS_CTLR, 0);
    for (const page of this.levelTwo.values()) memory.free(page, ITS_PAGE_SIZE);
    this.levelTwo.clear();
    for (const table of [this.devices, this.collections]) {
      if (table !== null) memory.free(table.base.address, table.bytes);
    }
    this.devices = null;
    this.collections = null;
    if (this.queue >= 0) memory.free(this.queue, ITS_CMD_QUEUE_SZ);
    this.queue = -1;
  }

  /** its_alloc_device_table: makes room for the device's entry; false when the table cannot hold it. */
  allocateDeviceTable(deviceId: number): boolean {
    if (this.devices === null || deviceId >= 2 ** this.type.deviceBits) return false;
    const { indirect, address, pageSize, pages, entrySize } = this.devices.base;
    if (!indirect) return deviceId < (pages * pageSize) / entrySize;
    const perPage = pageSize / entrySize;
    const slot = Math.floor(deviceId / perPage);
    if (slot >= this.devices.bytes / LEVEL_ONE_ENTRY) return false;
    if (this.levelTwo.has(slot)) return true;
    const page = this.context.memory.allocate(pageSize, pageSize);
    if (page === null) return false;
    this.levelTwo.set(slot, page);
    return this.context.memory.write64(address + slot * LEVEL_ONE_ENTRY, levelOneLow(page), levelOneHigh(page));
  }

  /** The scratch that encoders fill before `send`. */
  get command(): Int32Array {
    return this.words;
  }

  /** Sends `command`, then SYNC for the CPU that it concerns (-1: none), and waits until both are done. */
  send(cpu: number): void {
    this.post(this.bytes);
    if (cpu >= 0) {
      encodeSync(this.sync, this.targets[cpu]!);
      this.post(this.syncBytes);
    }
    const { bus } = this.context;
    bus.write32(this.base + GITS_CWRITER, this.writer);
    if (bus.read32(this.base + GITS_CREADR) === this.writer) return;
    this.context.log(`ITS@${hex(this.base)}: ITS queue timeout`);
  }

  /** its_select_cpu: the CPU with the fewest LPIs. */
  leastLoaded(): number {
    let best = 0;
    for (let cpu = 1; cpu < this.load.length; cpu++) if (this.load[cpu]! < this.load[best]!) best = cpu;
    return best;
  }

  private post(command: Uint8Array): void {
    this.context.memory.write(this.queue + this.writer, command);
    this.writer = (this.writer + ITS_COMMAND_SIZE) % ITS_CMD_QUEUE_SZ;
  }

  private initCollection(cpu: number): void {
    this.targets[cpu] = this.lpis.target(cpu, this.type.physicalTargets);
    encodeMapc(this.words, cpu, this.targets[cpu]!, true);
    this.send(cpu);
    encodeInvall(this.words, cpu);
    this.send(cpu);
  }

  private setupTables(): number {
    for (let n = 0; n < GITS_BASER_NR_REGS; n++) {
      const at = this.base + GITS_BASER + n * 8;
      const { type, entrySize } = parseTableBase(this.context.bus.read32(at), this.context.bus.read32(at + 4));
      if (type !== GITS_BASER_TYPE_DEVICE && type !== GITS_BASER_TYPE_COLLECTION) continue;
      // A collection for each CPU; a device table for every device id.
      const entries = type === GITS_BASER_TYPE_DEVICE ? 2 ** this.type.deviceBits : this.lpis.cpus;
      const table = this.setupTable(at, type, entrySize, entries);
      if (table === null) return this.context.refusals.refuse('ENOMEM', 'no memory for a table of the ITS');
      if (type === GITS_BASER_TYPE_DEVICE) this.devices = table;
      else this.collections = table;
    }
    return 0;
  }

  /** its_parse_indirect_baser and its_setup_baser: two levels when one would need more than two pages. */
  private setupTable(at: number, type: number, entrySize: number, entries: number): Table | null {
    const indirect =
      type === GITS_BASER_TYPE_DEVICE && entries * entrySize > 2 * ITS_PAGE_SIZE && this.supportsIndirect(at);
    const slots = Math.ceil(entries / (ITS_PAGE_SIZE / entrySize));
    const needed = indirect ? slots * LEVEL_ONE_ENTRY : entries * entrySize;
    const pages = Math.min(Math.max(Math.ceil(needed / ITS_PAGE_SIZE), 1), MAX_PAGES);
    const bytes = pages * ITS_PAGE_SIZE;
    const address = this.context.memory.allocate(bytes, ITS_PAGE_SIZE);
    if (address === null) return null;
    const base: ItsTableBase = { valid: true, indirect, type, entrySize, address, pageSize: ITS_PAGE_SIZE, pages };
    this.write64(at, tableBase(base));
    return { base, bytes };
  }

  /** Writes the Indirect bit and looks whether it stays. */
  private supportsIndirect(at: number): boolean {
    const { bus } = this.context;
    bus.write32(at + 4, 1 << 30);
    return (bus.read32(at + 4) & (1 << 30)) !== 0;
  }

  private write64(pa: number, value: { readonly lo: number; readonly hi: number }): void {
    this.context.bus.write32(pa, value.lo);
    this.context.bus.write32(pa + 4, value.hi);
  }
}
