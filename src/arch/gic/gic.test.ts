import { describe, expect, it } from 'vitest';
import {
  commandCollection,
  commandDevice,
  commandEvent,
  commandEventBits,
  commandItt,
  commandLpi,
  commandTarget,
  commandValid,
  distributorIdBits,
  distributorLines,
  distributorType,
  encodeClear,
  encodeDiscard,
  encodeInt,
  encodeInv,
  encodeInvall,
  encodeMapc,
  encodeMapd,
  encodeMapi,
  encodeMapti,
  encodeMovall,
  encodeMovi,
  encodeSync,
  itsOpName,
  itsTypeLow,
  parseItsType,
  parseTableBase,
  pendBase,
  pendBaseAddress,
  propBase,
  propBaseAddress,
  propBaseIdBits,
  propTableSize,
  queueAddress,
  queueBase,
  queueBytes,
  tableBase,
  v2mType,
  v2mTypeBase,
  v2mTypeCount,
} from './index.ts';

const words = new Int32Array(8);
/** The four 64-bit words of a command. */
const quads = (command: Int32Array): bigint[] => [...new BigUint64Array(command.slice().buffer)];

describe('ITS commands (irq-gic-v3-its.c)', () => {
  it('MAPD: op 8, device 63:32; size - 1; V 63 and ITT 51:8', () => {
    const command = encodeMapd(words, 0x28, 5, 0x81_2345_6700, true);
    expect(quads(command)).toEqual([0x28_0000_0008n, 4n, 0x8000_0081_2345_6700n, 0n]);
    expect([commandDevice(command), commandEventBits(command), commandItt(command), commandValid(command)]).toEqual([
      0x28,
      5,
      0x81_2345_6700,
      true,
    ]);
    expect(quads(encodeMapd(words, 0xffff_ffff, 32, 0, false))).toEqual([0xffff_ffff_0000_0008n, 31n, 0n, 0n]);
  });

  it('MAPC: V 63, target 51:16, collection 15:0', () => {
    const command = encodeMapc(words, 3, 0x5_0000, true);
    expect(quads(command)).toEqual([9n, 0n, 0x8000_0000_0005_0003n, 0n]);
    expect([commandCollection(command), commandTarget(command, 2)]).toEqual([3, 5]);
    // A redistributor's address, where PTA is set.
    expect(commandTarget(encodeMapc(words, 0, 0x80_1234_0000, true), 2)).toBe(0x80_1234);
  });

  it('MAPTI and MAPI: event 31:0, pINTID 63:32, collection', () => {
    const command = encodeMapti(words, 0x28, 7, 8199, 2);
    expect(quads(command)).toEqual([0x28_0000_000an, 0x2007_0000_0007n, 2n, 0n]);
    expect([commandEvent(command), commandLpi(command)]).toEqual([7, 8199]);
    expect(quads(encodeMapi(words, 0x28, 8200, 2))).toEqual([0x28_0000_000bn, 8200n, 2n, 0n]);
  });

  it('the rest', () => {
    expect(quads(encodeMovi(words, 0x28, 7, 1))).toEqual([0x28_0000_0001n, 7n, 1n, 0n]);
    expect(quads(encodeDiscard(words, 0x28, 7))).toEqual([0x28_0000_000fn, 7n, 0n, 0n]);
    expect(quads(encodeInv(words, 0x28, 7))).toEqual([0x28_0000_000cn, 7n, 0n, 0n]);
    expect(quads(encodeInt(words, 0x28, 7))).toEqual([0x28_0000_0003n, 7n, 0n, 0n]);
    expect(quads(encodeClear(words, 0x28, 7))).toEqual([0x28_0000_0004n, 7n, 0n, 0n]);
    expect(quads(encodeInvall(words, 5))).toEqual([0xdn, 0n, 5n, 0n]);
    expect(quads(encodeSync(words, 0x1_0000))).toEqual([5n, 0n, 0x1_0000n, 0n]);
    expect(quads(encodeMovall(words, 0x1_0000, 0x2_0000))).toEqual([0xen, 0n, 0x1_0000n, 0x2_0000n]);
    expect([itsOpName(0x0a), itsOpName(0x25)]).toEqual(['MAPTI', 'command 0x25']);
  });
});

describe('registers', () => {
  it('GITS_TYPER', () => {
    const type = {
      ittEntrySize: 8,
      eventBits: 16,
      deviceBits: 20,
      physicalTargets: true,
      hardwareCollections: 3,
    };
    const lo = itsTypeLow(type);
    expect(lo >>> 0).toBe(0x0300_0000 + 0x8_0000 + (19 << 13) + (15 << 8) + (7 << 4) + 1);
    expect(parseItsType(lo)).toEqual(type);
  });

  it('GITS_BASER and GITS_CBASER', () => {
    const table = {
      valid: true,
      indirect: true,
      type: 1,
      entrySize: 8,
      address: 0x81_2345_0000,
      pageSize: 65536,
      pages: 256,
    };
    const { lo, hi } = tableBase(table);
    expect([hi >>> 0, lo >>> 0]).toEqual([0xc107_0081, 0x2345_02ff]);
    expect(parseTableBase(lo, hi)).toEqual(table);
    const queue = queueBase(0x81_2345_6000, 65536);
    expect([queue.hi >>> 0, queue.lo >>> 0]).toEqual([0x8000_0081, 0x2345_600f]);
    expect([queueAddress(queue.lo, queue.hi), queueBytes(queue.lo)]).toEqual([0x81_2345_6000, 65536]);
  });

  it('GICR_PROPBASER and GICR_PENDBASER', () => {
    const prop = propBase(0x81_8765_4000, 16);
    expect([prop.hi, prop.lo >>> 0]).toEqual([0x81, 0x8765_400f]);
    expect([propBaseAddress(prop.lo, prop.hi), propBaseIdBits(prop.lo)]).toEqual([0x81_8765_4000, 16]);
    const pend = pendBase(0x81_8765_0000, true);
    expect([pend.hi, pend.lo >>> 0]).toEqual([0x4000_0081, 0x8765_0000]);
    expect(pendBaseAddress(pend.lo, pend.hi)).toBe(0x81_8765_0000);
    expect(propTableSize(16)).toBe(57_344);
  });

  it('GICD_TYPER and MSI_TYPER', () => {
    const typer = distributorType(988, 4, 24);
    expect(typer).toBe(31 | (3 << 5) | (1 << 17) | (23 << 19));
    expect([distributorLines(typer), distributorIdBits(typer)]).toEqual([1020, 24]);
    expect(distributorLines(distributorType(64, 1, 0))).toBe(96);
    const frame = v2mType(80, 64);
    expect(frame).toBe(0x50_0040);
    expect([v2mTypeBase(frame), v2mTypeCount(frame)]).toEqual([80, 64]);
  });
});
