/** Lookups in the ITS's tables in memory: device table (flat or of two levels), interrupt translation tables, collections. */
import {
  collectionEntryProcessor,
  deviceEntryEventBits,
  entryValid,
  ITS_ENTRY_SIZE,
  type ItsTableBase,
  levelOneLow,
  translationEntryCollection,
  translationEntryLpi,
} from '../../arch/gic/index.ts';
import { fromHalves, highHalf } from '../../ports/address.ts';
import { Loss, type LossCode } from '../../ports/ledger.ts';
import type { PhysicalMemory } from '../../ports/memory.ts';

/** The answers of a lookup. */
export const Found = {
  YES: 0,
  /** The entry is not valid, or beyond the table. */
  NO: 1,
  /** The table is not memory: an external abort. */
  ABORT: 2,
} as const;
export type FoundCode = (typeof Found)[keyof typeof Found];

/** Results stand in fields, so that nothing allocates. */
export class ItsTables {
  devices: ItsTableBase | null = null;
  collections: ItsTableBase | null = null;
  /** Of the device last found. */
  itt = 0;
  eventBits = 0;
  /** Of the event last found. */
  lpi = 0;
  collection = 0;
  /** Of the collection last found. */
  cpu = 0;
  private readonly memory: PhysicalMemory;
  private readonly deviceBits: number;
  private lo = 0;
  private hi = 0;

  constructor(memory: PhysicalMemory, deviceBits: number) {
    this.memory = memory;
    this.deviceBits = deviceBits;
  }

  /** Address of the device's entry; -1 beyond the table, -2 when a level 1 entry is not memory. */
  deviceEntryAddress(device: number): number {
    if (device >= 2 ** this.deviceBits) return -1;
    return this.entryAddress(this.devices, device);
  }

  /** Collections have 16 bits; the table has no second level. */
  collectionEntryAddress(collection: number): number {
    return this.entryAddress(this.collections, collection);
  }

  findDevice(device: number): FoundCode {
    const found = this.load(this.deviceEntryAddress(device));
    if (found !== Found.YES) return found;
    this.itt = (this.hi & 0xfffff) * 4294967296 + ((this.lo & ~0xff) >>> 0);
    this.eventBits = deviceEntryEventBits(this.lo);
    return Found.YES;
  }

  /** Address of the event's entry in the ITT of the device last found, or -1 beyond it. */
  eventEntryAddress(event: number): number {
    return event < 2 ** this.eventBits ? this.itt + event * ITS_ENTRY_SIZE : -1;
  }

  findEvent(event: number): FoundCode {
    const found = this.load(this.eventEntryAddress(event));
    if (found !== Found.YES) return found;
    this.lpi = translationEntryLpi(this.lo);
    this.collection = translationEntryCollection(this.hi);
    return Found.YES;
  }

  findCollection(collection: number): FoundCode {
    const found = this.load(this.collectionEntryAddress(collection));
    if (found === Found.YES) this.cpu = collectionEntryProcessor(this.lo, this.hi);
    return found;
  }

  /** All three: -1 with lpi, collection and cpu set, or the loss. */
  translate(device: number, event: number): LossCode | -1 {
    if (this.findDevice(device) !== Found.YES) return Loss.ITS_NO_DEVICE;
    if (this.findEvent(event) !== Found.YES) return Loss.ITS_NO_EVENT;
    return this.findCollection(this.collection) === Found.YES ? -1 : Loss.ITS_NO_COLLECTION;
  }

  /** Stores an entry; false when it is not memory. */
  store(pa: number, lo: number, hi: number): boolean {
    return this.memory.write64(pa, lo, hi);
  }

  private entryAddress(table: ItsTableBase | null, index: number): number {
    if (table === null || !table.valid) return -1;
    const { pageSize, pages, address } = table;
    if (!table.indirect) return index < (pages * pageSize) / ITS_ENTRY_SIZE ? address + index * ITS_ENTRY_SIZE : -1;
    const perPage = pageSize / ITS_ENTRY_SIZE;
    const slot = Math.floor(index / perPage);
    if (slot >= (pages * pageSize) / 8) return -1;
    const pa = address + slot * 8;
    if (!this.memory.locate(highHalf(pa), pa | 0)) return -2;
    const lo = this.memory.words[this.memory.at];
    const hi = this.memory.words[this.memory.at + 1];
    if (!entryValid(hi)) return -1;
    return fromHalves(hi & 0xfffff, levelOneLow(lo)) + (index % perPage) * ITS_ENTRY_SIZE;
  }

  private load(pa: number): FoundCode {
    if (pa < 0) return pa === -1 ? Found.NO : Found.ABORT;
    if (!this.memory.locate(highHalf(pa), pa | 0)) return Found.ABORT;
    this.lo = this.memory.words[this.memory.at];
    this.hi = this.memory.words[this.memory.at + 1];
    return entryValid(this.hi) ? Found.YES : Found.NO;
  }
}
