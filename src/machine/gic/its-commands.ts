/**
 * Execution of ITS commands. A wrong command is skipped, and noted with the architecture's error code (IHI 0069 5.3 lets an
 * implementation skip or stall); an access to a table that is not memory stalls the queue.
 */
import {
  collectionEntryHigh,
  collectionEntryLow,
  commandCollection,
  commandDevice,
  commandEvent,
  commandEventBits,
  commandItt,
  commandLpi,
  commandOp,
  commandTarget,
  commandValid,
  deviceEntryHigh,
  deviceEntryLow,
  ItsError,
  ItsOp,
  itsErrorCode,
  itsOpName,
  LPI_FIRST,
  translationEntryHigh,
  translationEntryLow,
} from '../../arch/gic/index.ts';
import { hex } from '../../ports/address.ts';
import { Count } from '../../ports/ledger.ts';
import type { Its } from './its.ts';
import { lineAt } from './its-cache.ts';
import { Found, type ItsTables } from './its-tables.ts';
import type { Redistributor } from './redistributor.ts';

export class ItsCommands {
  private readonly its: Its;
  private readonly tables: ItsTables;
  private op = 0;
  /** LPIs to look at once the queue is empty: CPU and LPI in turn; LPI -1 stands for all of the CPU. */
  private waiting: number[] = [];

  constructor(its: Its) {
    this.its = its;
    this.tables = its.tables;
  }

  /** False: a table is not memory, and the command has not been done. */
  execute(words: Int32Array): boolean {
    this.op = commandOp(words);
    switch (this.op) {
      case ItsOp.MAPD:
        return this.mapDevice(words);
      case ItsOp.MAPC:
        return this.mapCollection(words);
      case ItsOp.MAPTI:
        return this.mapEvent(words, commandLpi(words));
      case ItsOp.MAPI:
        return this.mapEvent(words, commandEvent(words));
      case ItsOp.MOVI:
        return this.moveEvent(words);
      case ItsOp.MOVALL:
        return this.moveAll(words);
      case ItsOp.INVALL:
        return this.invalidateAll(words);
      case ItsOp.DISCARD:
      case ItsOp.INV:
      case ItsOp.INT:
      case ItsOp.CLEAR:
        return this.onEvent(words);
      case ItsOp.SYNC:
        return true;
      default:
        // Virtual LPIs (GICv4) and reserved encodings.
        return this.wrong(0, `${itsOpName(this.op)} is not implemented by this ITS`);
    }
  }

  /** Fires what the commands made deliverable. */
  release(): void {
    const { waiting, its } = this;
    if (waiting.length === 0) return;
    this.waiting = [];
    for (let i = 0; i < waiting.length; i += 2) {
      const redistributor = its.gic.redistributors[waiting[i]];
      if (waiting[i + 1] === -1) its.gic.releaseLpis(redistributor);
      else its.gic.releaseLpi(redistributor, waiting[i + 1]);
    }
  }

  private mapDevice(words: Int32Array): boolean {
    const device = commandDevice(words);
    const bits = commandEventBits(words);
    const valid = commandValid(words);
    const at = this.tables.deviceEntryAddress(device);
    if (at === -2) return false;
    if (at < 0) return this.wrong(ItsError.DEVICE_OOR, `device ${hex(device, 4)} is beyond the device table`);
    if (valid && bits > this.its.eventBits) {
      return this.wrong(ItsError.ITTSIZE_OOR, `${bits} event bits, and the ITS has ${this.its.eventBits}`);
    }
    const itt = commandItt(words);
    const stored = valid
      ? this.tables.store(at, deviceEntryLow(itt, bits), deviceEntryHigh(itt))
      : this.tables.store(at, 0, 0);
    if (stored) this.its.cache.evictDevice(device);
    return stored;
  }

  private mapCollection(words: Int32Array): boolean {
    const collection = commandCollection(words);
    const processor = commandTarget(words, 2);
    const at = this.tables.collectionEntryAddress(collection);
    if (at < 0) {
      return this.wrong(ItsError.COLLECTION_OOR, `collection ${collection} is beyond the collection table`);
    }
    const valid = commandValid(words);
    if (valid && this.redistributor(processor) === null) {
      return this.wrong(ItsError.PROCNUM_OOR, `there is no CPU ${processor}`);
    }
    const stored = valid
      ? this.tables.store(at, collectionEntryLow(processor), collectionEntryHigh(processor))
      : this.tables.store(at, 0, 0);
    if (stored) this.its.cache.flush();
    return stored;
  }

  private mapEvent(words: Int32Array, lpi: number): boolean {
    const device = commandDevice(words);
    const event = commandEvent(words);
    const found = this.tables.findDevice(device);
    if (found === Found.ABORT) return false;
    if (found === Found.NO) return this.wrong(ItsError.UNMAPPED_DEVICE, `device ${hex(device, 4)} is not mapped`);
    const at = this.tables.eventEntryAddress(event);
    if (at < 0) return this.wrong(ItsError.ID_OOR, `event ${event} is beyond ${2 ** this.tables.eventBits} events`);
    if (lpi < LPI_FIRST || lpi >= 2 ** this.its.gic.lpiBits) {
      return this.wrong(
        ItsError.PHYSICALID_OOR,
        `${lpi} is not an LPI from ${LPI_FIRST} to ${2 ** this.its.gic.lpiBits - 1}`,
      );
    }
    const collection = commandCollection(words);
    if (this.tables.collectionEntryAddress(collection) < 0) {
      return this.wrong(ItsError.COLLECTION_OOR, `collection ${collection} is beyond the collection table`);
    }
    const stored = this.tables.store(at, translationEntryLow(lpi), translationEntryHigh(collection));
    if (!stored) return false;
    this.its.cache.evict(device, event);
    // The LPI may be pending already, from an earlier mapping.
    this.lookAt(collection, lpi);
    return true;
  }

  private moveEvent(words: Int32Array): boolean {
    const found = this.findEvent(words);
    if (found !== Found.YES) return found === Found.NO;
    const { lpi, collection: before } = this.tables;
    const at = this.tables.eventEntryAddress(commandEvent(words));
    const collection = commandCollection(words);
    const target = this.tables.findCollection(collection);
    if (target === Found.ABORT) return false;
    if (target === Found.NO) {
      return this.wrong(ItsError.UNMAPPED_COLLECTION, `collection ${collection} is not mapped`);
    }
    const to = this.redistributor(this.tables.cpu);
    const from = this.tables.findCollection(before) === Found.YES ? this.redistributor(this.tables.cpu) : null;
    if (!this.tables.store(at, translationEntryLow(lpi), translationEntryHigh(collection))) return false;
    this.its.cache.evict(commandDevice(words), commandEvent(words));
    if (from !== null && to !== null) this.movePending(from, to, lpi);
    return true;
  }

  private moveAll(words: Int32Array): boolean {
    const from = this.redistributor(commandTarget(words, 2));
    const to = this.redistributor(commandTarget(words, 3));
    if (from === null || to === null) {
      const numbers = `${commandTarget(words, 2)} and ${commandTarget(words, 3)}`;
      return this.wrong(1, `CPUs ${numbers}: there are ${this.its.gic.cpus}`);
    }
    if (from.enabled && from !== to) for (const lpi of from.pendingLpis()) this.movePending(from, to, lpi);
    return true;
  }

  private invalidateAll(words: Int32Array): boolean {
    const collection = commandCollection(words);
    const found = this.tables.findCollection(collection);
    if (found === Found.ABORT) return false;
    if (found === Found.NO) {
      return this.wrong(ItsError.UNMAPPED_COLLECTION, `collection ${collection} is not mapped`);
    }
    this.its.cache.flush();
    if (this.redistributor(this.tables.cpu) !== null) this.waiting.push(this.tables.cpu, -1);
    return true;
  }

  /** DISCARD, INV, INT, CLEAR: one mapped event. */
  private onEvent(words: Int32Array): boolean {
    const device = commandDevice(words);
    const event = commandEvent(words);
    const found = this.findEvent(words);
    if (found !== Found.YES) {
      // Whatever was cached of an event that is gone from the tables is void.
      if (this.op !== ItsOp.INT) this.its.cache.evict(device, event);
      return found === Found.NO;
    }
    const { lpi, collection } = this.tables;
    if (this.op === ItsOp.INT) return this.raise(device, event);
    const at = this.tables.eventEntryAddress(event);
    if (this.op === ItsOp.DISCARD && !this.tables.store(at, 0, 0)) return false;
    if (this.op !== ItsOp.CLEAR) this.its.cache.evict(device, event);
    if (this.op === ItsOp.INV) this.lookAt(collection, lpi);
    else this.withdraw(collection, lpi, device, event);
    return true;
  }

  /** INT stands for a device's message, and counts as sent by software. */
  private raise(device: number, event: number): boolean {
    const { its } = this;
    if (its.resolve(device, event) !== -1) {
      return this.wrong(ItsError.UNMAPPED_INTERRUPT, `event ${event} of device ${hex(device, 4)} has no redistributor`);
    }
    const at = lineAt(device, event);
    const lpi = its.cache.lines[at + 2];
    const state = its.cache.lines[at + 3];
    const cpu = Math.abs(state) - 1;
    if (its.pend(cpu, lpi) !== -1) return false;
    its.tap.ledger[Count.SENT]++;
    if (state > 0) this.waiting.push(cpu, lpi);
    return true;
  }

  private withdraw(collection: number, lpi: number, device: number, event: number): void {
    if (this.tables.findCollection(collection) !== Found.YES) return;
    const redistributor = this.redistributor(this.tables.cpu);
    if (redistributor === null || !redistributor.enabled || lpi >= redistributor.limit) return;
    if (!redistributor.isPending(lpi) || !redistributor.setPending(lpi, false)) return;
    this.its.gic.drop(`LPI ${lpi} was pending at ${itsOpName(this.op)} of event ${event} of device ${hex(device, 4)}`);
  }

  private movePending(from: Redistributor, to: Redistributor, lpi: number): void {
    if (from === to || !from.enabled || !to.enabled || lpi >= to.limit || !from.isPending(lpi)) return;
    if (to.isPending(lpi)) {
      this.its.tap.ledger[Count.COALESCED]++;
      this.its.tap.ledger[Count.PENDING]--;
    } else if (!to.setPending(lpi, true)) return;
    from.setPending(lpi, false);
    this.waiting.push(to.cpu, lpi);
  }

  private lookAt(collection: number, lpi: number): void {
    if (this.tables.findCollection(collection) !== Found.YES) return;
    if (this.redistributor(this.tables.cpu) !== null) this.waiting.push(this.tables.cpu, lpi);
  }

  /** Finds the command's event; notes the error when there is none. */
  private findEvent(words: Int32Array): number {
    const device = commandDevice(words);
    const event = commandEvent(words);
    let found = this.tables.findDevice(device);
    if (found === Found.YES) found = this.tables.findEvent(event);
    if (found === Found.NO) {
      this.wrong(ItsError.UNMAPPED_INTERRUPT, `event ${event} of device ${hex(device, 4)} is not mapped`);
    }
    return found;
  }

  private redistributor(cpu: number): Redistributor | null {
    return this.its.gic.redistributors[cpu] ?? null;
  }

  /** The command is skipped. */
  private wrong(error: number, why: string): true {
    this.its.refuse(itsErrorCode(this.op, error), `${itsOpName(this.op)}: ${why}`);
    return true;
  }
}
