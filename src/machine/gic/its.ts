/**
 * An Interrupt Translation Service: (device id from the bus, event id from the data) → LPI and CPU, through tables in
 * memory that its command queue fills (IHI 0069 chapter 5).
 */
import { GITS_SIZE, GITS_TRANSLATER, GITS_TRANSLATION_FRAME, LPI_FIRST } from '../../arch/gic/index.ts';
import { fromHalves, type Hpa, hex } from '../../ports/address.ts';
import type { Bus, DoorbellPage, MmioTarget, MsiController } from '../../ports/bus.ts';
import { Count, Loss, type LossCode } from '../../ports/ledger.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';
import type { Tap } from '../../ports/tap.ts';
import { Status, type StatusCode, type Transaction } from '../../ports/transaction.ts';
import type { Gic, LpiWatcher } from './gic.ts';
import { ItsCache, lineAt } from './its-cache.ts';
import { ItsRegisters } from './its-registers.ts';
import { ItsTables } from './its-tables.ts';
import type { Redistributor } from './redistributor.ts';

export interface ItsOptions {
  /** Host-physical base, a multiple of 64 KiB; 128 KiB of registers and doorbell. */
  readonly base: number;
  /** Bits of a device id, 1 to 32; default 16. */
  readonly deviceBits?: number;
  /** Bits of an event id, 1 to 32; default 16. */
  readonly eventBits?: number;
}

/** A wrong command, for people. The ITS skips it and goes on. */
export interface ItsCommandError {
  /** The architecture's code: 0x01, command, reason. */
  readonly code: number;
  readonly why: string;
}

const DOORBELL = GITS_TRANSLATER - GITS_TRANSLATION_FRAME;

export class Its implements MsiController, LpiWatcher {
  readonly name: string;
  readonly base: number;
  readonly doorbells: readonly DoorbellPage[];
  readonly registers: MmioTarget;
  readonly tables: ItsTables;
  readonly cache = new ItsCache();
  private readonly lines = this.cache.lines;
  readonly gic: Gic;
  readonly tap: Tap;
  readonly deviceBits: number;
  readonly eventBits: number;
  /** GITS_CTLR.Enabled. */
  enabled = false;
  /** The last wrong command, and how many there were. */
  lastError: ItsCommandError | null = null;
  errors = 0;

  constructor(options: ItsOptions, gic: Gic, memory: PhysicalMemory) {
    const { base } = options;
    if (base % 0x10000 !== 0) throw new RangeError(`base: ${hex(base)} is not a multiple of 64 KiB`);
    this.base = base;
    this.gic = gic;
    this.tap = gic.tap;
    this.deviceBits = options.deviceBits ?? 16;
    this.eventBits = options.eventBits ?? 16;
    this.name = `ITS@${hex(base)}`;
    this.doorbells = [
      { base: base + GITS_TRANSLATION_FRAME, size: GITS_TRANSLATION_FRAME, register: DOORBELL, isolated: true },
    ];
    this.tables = new ItsTables(memory, this.deviceBits);
    this.registers = new ItsRegisters(this, memory);
    gic.watch(this);
  }

  attach(bus: Bus): void {
    bus.map(this.base, GITS_SIZE, this.registers);
    bus.attachController(this);
  }

  message(tx: Transaction): StatusCode {
    if ((tx.paLo & 0xffff) !== DOORBELL) return this.notTheDoorbell(tx);
    const { lines } = this;
    const device = tx.requester | 0;
    const event = tx.data | 0;
    const at = lineAt(device, event);
    if (lines[at] === device && lines[at + 1] === event) {
      const state = lines[at + 3];
      if (state > 0 && this.tap.observer === null) {
        this.gic.sink.interrupt(lines[at + 2], state - 1);
        return Status.OK;
      }
    }
    const loss = this.take(tx.requester, tx.data, tx.paHi, tx.paLo);
    return loss === -1 ? Status.OK : this.lose(loss, tx.requester, tx.data >>> 0);
  }

  lpisChanged(): void {
    this.cache.flush();
  }

  /** An event by the slow way: through the tables. Answers -1, or why it is lost. */
  private take(device: number, event: number, paHi: number, paLo: number): LossCode | -1 {
    const loss = this.resolve(device, event);
    if (loss !== -1) return loss;
    const at = lineAt(device, event);
    const { lines } = this;
    const state = lines[at + 3];
    const lpi = lines[at + 2];
    const cpu = Math.abs(state) - 1;
    if (this.tap.observer !== null) this.observe(fromHalves(paHi, paLo), device, event, lpi, cpu);
    if (state < 0) return this.pend(cpu, lpi);
    this.gic.sink.interrupt(lpi, cpu);
    return -1;
  }

  /** Makes sure that the cache's line holds the event, reading the tables when it does not. Answers -1, or the loss. */
  resolve(device: number, event: number): LossCode | -1 {
    if (this.cache.holds(device, event)) return -1;
    if (!this.enabled) return Loss.CONTROLLER_OFF;
    const { tables } = this;
    const loss = tables.translate(device >>> 0, event >>> 0);
    if (loss !== -1) return loss;
    const { lpi, cpu } = tables;
    const redistributor = this.gic.redistributors[cpu];
    // The table in memory may hold anything: a processor that does not exist has no redistributor.
    if (redistributor === undefined) return Loss.ITS_NO_COLLECTION;
    if (!redistributor.enabled) return Loss.CONTROLLER_OFF;
    if (lpi < LPI_FIRST || lpi >= redistributor.limit) return Loss.NO_SUCH_INTID;
    const on = this.gic.distributor.group1Enabled && redistributor.isEnabled(lpi);
    if (on && redistributor.pendingCount > 0) this.merge(redistributor, lpi);
    this.cache.fill(device, event, lpi, on ? cpu + 1 : -(cpu + 1));
    return -1;
  }

  /** One that waits where nothing looked since it was enabled (MOVALL brought it there) goes with the message that comes now. */
  private merge(redistributor: Redistributor, lpi: number): void {
    if (!redistributor.isPending(lpi) || !redistributor.setPending(lpi, false)) return;
    this.tap.ledger[Count.PENDING]--;
    this.tap.ledger[Count.COALESCED]++;
  }

  /** An LPI that cannot be delivered waits in the pending table. Answers -1, or the loss when there is no table. */
  pend(cpu: number, lpi: number): LossCode | -1 {
    const redistributor = this.gic.redistributors[cpu];
    if (redistributor.isPending(lpi)) this.tap.ledger[Count.COALESCED]++;
    else if (redistributor.setPending(lpi, true)) this.tap.ledger[Count.PENDING]++;
    else return Loss.CONTROLLER_OFF;
    return -1;
  }

  /** Notes a wrong command. */
  refuse(code: number, why: string): void {
    this.errors++;
    this.lastError = { code, why };
  }

  private notTheDoorbell(tx: Transaction): StatusCode {
    return this.lose(Loss.NOT_A_DOORBELL, tx.requester, tx.paLo & 0xffff);
  }

  /** `detail` is the event id, or the offset for NOT_A_DOORBELL. */
  private lose(loss: LossCode, device: number, detail: number): StatusCode {
    this.tap.ledger[Count.LOST + loss]++;
    this.tap.observer?.hop({ at: 'lost', where: this.name, loss, why: this.explain(loss, device, detail) });
    return Status.OK;
  }

  private explain(loss: LossCode, device: number, detail: number): string {
    const id = `device ${hex(device, 4)}`;
    const { tables } = this;
    switch (loss) {
      case Loss.NOT_A_DOORBELL:
        return `offset ${hex(detail, 4)} of the translation frame is not GITS_TRANSLATER (0x40)`;
      case Loss.ITS_NO_DEVICE:
        return `${id} is not mapped (MAPD) in the device table`;
      case Loss.ITS_NO_EVENT:
        return detail < 2 ** tables.eventBits
          ? `event ${detail} of ${id} is not mapped (MAPTI)`
          : `event ${detail} is beyond the ${2 ** tables.eventBits} entries of the table of ${id}`;
      case Loss.ITS_NO_COLLECTION:
        return `collection ${tables.collection} of event ${detail} of ${id} is not mapped (MAPC)`;
      case Loss.NO_SUCH_INTID:
        return `event ${detail} of ${id} stands for LPI ${tables.lpi}, beyond the redistributor's interrupt ids`;
      default:
        return this.enabled
          ? `the redistributor of CPU ${tables.cpu} has no LPIs: GICR_CTLR.EnableLPIs is clear, or its pending table is not memory`
          : 'the ITS is disabled (GITS_CTLR)';
    }
  }

  private observe(doorbell: number, device: number, event: number, intid: number, cpu: number): void {
    const data = event >>> 0;
    this.tap.observer?.hop({
      at: 'controller',
      name: this.name,
      doorbell: doorbell as Hpa,
      data,
      deviceId: device,
      eventId: data,
      intid,
      cpu,
    });
  }
}
