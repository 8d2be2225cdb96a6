import { describe, expect, it } from 'vitest';
import { getNumber, pack, unpack } from '../bits.ts';
import { decodeFault, encodeFault, faultReasonText } from './faults.ts';
import { CAP, ECAP } from './registers.ts';
import { CONTEXT_ENTRY, decodeAddressWidth, encodeAddressWidth, ROOT_ENTRY } from './tables.ts';

describe('VT-d formats', () => {
  it('reads the lab’s capability registers', () => {
    // Its unit has CM and ESRTPS besides.
    expect(unpack(CAP, [0x80d2_008c_222f_0686n])).toMatchObject({
      ND: 6n,
      CM: 1n,
      SAGAW: 6n,
      MGAW: 47n,
      FRO: 0x22n,
      SLLPS: 3n,
      PSI: 1n,
      NFR: 0n,
      MAMV: 18n,
    });
    expect(unpack(ECAP, [0xf0_0f4an])).toMatchObject({
      C: 0n,
      QI: 1n,
      IR: 1n,
      EIM: 0n,
      PT: 1n,
      SC: 0n,
      IRO: 0xfn,
      MHMV: 15n,
    });
  });

  it('packs a context entry: table in place, AW 2 for 48 bits, DID 23:8 of the second word', () => {
    const entry = pack(CONTEXT_ENTRY, 2, { P: 1, TT: 0, SLPTPTR: 0x4000_5n, AW: encodeAddressWidth(48), DID: 3 });
    expect(entry).toEqual([0x4000_5001n, 0x302n]);
    expect(pack(CONTEXT_ENTRY, 2, { P: 1, TT: 2, AW: 1, DID: 1 })).toEqual([0x9n, 0x101n]);
    expect([encodeAddressWidth(39), decodeAddressWidth(1), decodeAddressWidth(2), decodeAddressWidth(3)]).toEqual([
      1, 39, 48, 0,
    ]);
    expect(getNumber([0x4000_1001n], ROOT_ENTRY.P)).toBe(1);
  });

  it('packs faults: T1 126 for a read, F 127, FR 103:96, SID 79:64, index of an interrupt in 63:48', () => {
    const write = { reason: 5, sourceId: 0x0130, information: 0x30_0000n, read: false };
    expect(encodeFault(write)).toEqual([0x30_0000n, 0x8000_0005_0000_0130n]);
    expect(decodeFault(encodeFault(write))).toEqual(write);
    expect(encodeFault({ reason: 0x22, sourceId: 0x28, information: 0x87n << 48n, read: false })[0]).toBe(
      0x0087_0000_0000_0000n,
    );
    expect(faultReasonText(0x22)).toBe('Present field in the IRTE entry is clear');
    expect(faultReasonText(0x77)).toBe('Unknown');
  });
});
