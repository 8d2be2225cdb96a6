/**
 * The ITS's tables in memory. The architecture leaves their formats to the implementation (IHI 0069 5.2); ours mirror
 * the commands that fill them, 8 bytes an entry, so that a person can read a dump:
 *
 * | entry | 63 | bits |
 * |---|---|---|
 * | device table | V | 51:8 ITT address, 4:0 event bits - 1 |
 * | level 1 of a two-level table | V | 51:12 address of a page of entries (this one is the architecture's) |
 * | collection table | V | 51:16 processor number |
 * | interrupt translation | V | 47:32 collection, 23:0 LPI |
 */

export const ITS_ENTRY_SIZE = 8;

export const entryValid = (hi: number): boolean => hi < 0;

export const deviceEntryLow = (itt: number, eventBits: number): number => (itt & ~0xff) | (eventBits - 1);
export const deviceEntryHigh = (itt: number): number => (1 << 31) | ((itt / 4294967296) & 0xfffff);
export const deviceEntryEventBits = (lo: number): number => (lo & 0x1f) + 1;

export const levelOneLow = (page: number): number => page & ~0xfff;
export const levelOneHigh = (page: number): number => (1 << 31) | ((page / 4294967296) & 0xfffff);

export const collectionEntryLow = (processor: number): number => processor << 16;
export const collectionEntryHigh = (processor: number): number => (1 << 31) | ((processor / 65536) & 0xfffff);
export const collectionEntryProcessor = (lo: number, hi: number): number => (hi & 0xfffff) * 65536 + (lo >>> 16);

export const translationEntryLow = (lpi: number): number => lpi & 0xffffff;
export const translationEntryHigh = (collection: number): number => (1 << 31) | (collection & 0xffff);
export const translationEntryLpi = (lo: number): number => lo & 0xffffff;
export const translationEntryCollection = (hi: number): number => hi & 0xffff;
