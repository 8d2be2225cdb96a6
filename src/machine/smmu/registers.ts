/** The SMMU's registers as software sees them (IHI 0070 6.3), and the state that they hold. */
import { getInPlace, getNumber } from '../../arch/bits.ts';
import {
  CR0,
  CR2,
  GBPA_ABORT,
  GBPA_UPDATE,
  GERROR,
  IRQ_CTRL,
  Reg,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
  StreamTableFormat,
} from '../../arch/smmuv3/index.ts';
import type { MmioTarget } from '../../ports/bus.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';
import { CommandQueue, type CommandSink, halfOf, withHalf } from './command-queue.ts';
import type { StreamTable } from './configuration.ts';
import type { EventQueue } from './event-queue.ts';
import type { Features } from './features.ts';

/** What registers set in motion. */
export interface RegisterEffects {
  readonly name: string;
  readonly enable: (on: boolean) => void;
  readonly command: CommandSink;
  /** Software moved EVENTQ_CONS or enabled the queue. */
  readonly eventsConsumed: () => void;
  readonly interrupt: (line: 'eventq' | 'gerror') => void;
}

export class SmmuRegisters implements MmioTarget {
  readonly name: string;
  enabled = false;
  streamTable: StreamTable = { base: 0n, log2size: 0, twoLevel: false, split: 8 };
  private cr0 = 0;
  private cr1 = 0;
  private cr2 = 0;
  private gbpa = 0;
  private irqControl = 0;
  private gerror = 0;
  private gerrorn = 0;
  private tableBase = 0n;
  private tableConfig = 0;
  private readonly commands: CommandQueue;
  private readonly events: EventQueue;
  private readonly features: Features;
  private readonly effects: RegisterEffects;

  constructor(features: Features, memory: PhysicalMemory, events: EventQueue, effects: RegisterEffects) {
    this.name = effects.name;
    this.features = features;
    this.events = events;
    this.effects = effects;
    this.commands = new CommandQueue(memory, features.commandQueueLog2);
  }

  /** GBPA.ABORT: what happens to everything while SMMUEN is 0. */
  get aborts(): boolean {
    return (this.gbpa & GBPA_ABORT) !== 0;
  }

  get recordsBadStreams(): boolean {
    return (this.cr2 & CR2.RECINVSID) !== 0;
  }

  /** Toggles a GERROR bit unless the error is already active. */
  raiseError(bit: number): void {
    if (((this.gerror ^ this.gerrorn) & bit) !== 0) return;
    this.gerror ^= bit;
    this.assert('gerror', IRQ_CTRL.GERROR);
  }

  assert(line: 'eventq' | 'gerror', enable: number): void {
    if ((this.irqControl & enable) !== 0) this.effects.interrupt(line);
  }

  /** All registers are 32 bits wide or two halves; narrower reads get their part of the word. */
  read(offset: number, size: number): number {
    const word = this.readWord(offset & ~3);
    return size === 4 ? word : (word >>> ((offset & 3) * 8)) & (size === 1 ? 0xff : 0xffff);
  }

  /** Only whole words are written. */
  write(offset: number, size: number, value: number): void {
    if (size === 4 && (offset & 3) === 0) this.writeWord(offset, value | 0);
  }

  private readWord(offset: number): number {
    if (offset <= Reg.AIDR) return this.features.idRegisters[offset >> 2];
    switch (offset) {
      case Reg.CR0:
      case Reg.CR0ACK:
        return this.cr0;
      case Reg.CR1:
        return this.cr1;
      case Reg.CR2:
        return this.cr2;
      case Reg.GBPA:
        return this.gbpa;
      case Reg.IRQ_CTRL:
      case Reg.IRQ_CTRLACK:
        return this.irqControl;
      case Reg.GERROR:
        return this.gerror;
      case Reg.GERRORN:
        return this.gerrorn;
      case Reg.STRTAB_BASE:
      case Reg.STRTAB_BASE + 4:
        return halfOf(this.tableBase, (offset & 4) !== 0);
      case Reg.STRTAB_BASE_CFG:
        return this.tableConfig;
      default:
        return this.readQueue(offset);
    }
  }

  private readQueue(offset: number): number {
    switch (offset) {
      case Reg.CMDQ_BASE:
      case Reg.CMDQ_BASE + 4:
        return halfOf(this.commands.base, (offset & 4) !== 0);
      case Reg.CMDQ_PROD:
        return this.commands.prod;
      case Reg.CMDQ_CONS:
        return this.commands.cons;
      case Reg.EVTQ_BASE:
      case Reg.EVTQ_BASE + 4:
        return halfOf(this.events.base, (offset & 4) !== 0);
      case Reg.EVTQ_PROD:
        return this.events.prod;
      case Reg.EVTQ_CONS:
        return this.events.cons;
      default:
        return 0;
    }
  }

  private writeWord(offset: number, value: number): void {
    switch (offset) {
      case Reg.CR0:
        this.control(value);
        break;
      case Reg.CR1:
        this.cr1 = value & 0x3f;
        break;
      case Reg.CR2:
        if (!this.enabled) this.cr2 = value & 7;
        break;
      case Reg.GBPA:
        // The update completes at once, so that UPDATE never reads as 1.
        if ((value & GBPA_UPDATE) !== 0) this.gbpa = value & ~GBPA_UPDATE;
        break;
      case Reg.IRQ_CTRL:
        this.irqControl = value & (IRQ_CTRL.GERROR | IRQ_CTRL.EVENTQ);
        break;
      case Reg.GERRORN:
        this.acknowledge(value);
        break;
      default:
        this.writeBase(offset, value);
    }
  }

  /** Base registers are guarded: they hold still while what they describe is enabled. */
  private writeBase(offset: number, value: number): void {
    const high = (offset & 4) !== 0;
    switch (offset) {
      case Reg.STRTAB_BASE:
      case Reg.STRTAB_BASE + 4:
        if (!this.enabled) this.tableBase = withHalf(this.tableBase, high, value);
        break;
      case Reg.STRTAB_BASE_CFG:
        if (!this.enabled) this.tableConfig = value;
        break;
      case Reg.CMDQ_BASE:
      case Reg.CMDQ_BASE + 4:
        if (!this.commands.enabled) this.commands.base = withHalf(this.commands.base, high, value);
        break;
      case Reg.CMDQ_PROD:
        this.commands.prod = value & 0xfffff;
        this.consume();
        break;
      case Reg.CMDQ_CONS:
        if (!this.commands.enabled) this.commands.cons = value & 0xfffff;
        break;
      default:
        this.writeEvents(offset, high, value);
    }
  }

  private writeEvents(offset: number, high: boolean, value: number): void {
    const { events } = this;
    switch (offset) {
      case Reg.EVTQ_BASE:
      case Reg.EVTQ_BASE + 4:
        if (!events.enabled) events.base = withHalf(events.base, high, value);
        break;
      case Reg.EVTQ_PROD:
        if (!events.enabled) events.prod = value & (0xfffff | (1 << 31));
        break;
      case Reg.EVTQ_CONS:
        events.cons = value & (0xfffff | (1 << 31));
        this.effects.eventsConsumed();
        break;
    }
  }

  private control(value: number): void {
    this.cr0 = value & (CR0.SMMUEN | CR0.EVENTQEN | CR0.CMDQEN);
    const on = (value & CR0.SMMUEN) !== 0;
    if (on !== this.enabled) {
      this.enabled = on;
      if (on) this.latchStreamTable();
      this.effects.enable(on);
    }
    this.events.enabled = (value & CR0.EVENTQEN) !== 0;
    this.commands.enabled = (value & CR0.CMDQEN) !== 0;
    if (this.events.enabled) this.effects.eventsConsumed();
    if (this.commands.enabled) this.consume();
  }

  private latchStreamTable(): void {
    const config = [BigInt(this.tableConfig >>> 0)];
    const twoLevel =
      getNumber(config, STRTAB_BASE_CFG.FMT) === StreamTableFormat.TWO_LEVEL && this.features.twoLevelStreams;
    this.streamTable = {
      base: getInPlace([this.tableBase], STRTAB_BASE.ADDR),
      log2size: getNumber(config, STRTAB_BASE_CFG.LOG2SIZE),
      twoLevel,
      split: getNumber(config, STRTAB_BASE_CFG.SPLIT),
    };
  }

  private acknowledge(value: number): void {
    const active = (this.gerror ^ this.gerrorn) & GERROR.CMDQ_ERR;
    this.gerrorn = value;
    if (active !== 0 && ((this.gerror ^ value) & GERROR.CMDQ_ERR) === 0) {
      this.commands.stopped = false;
      this.consume();
    }
  }

  private consume(): void {
    if (this.commands.consume(this.effects.command)) this.raiseError(GERROR.CMDQ_ERR);
  }
}
