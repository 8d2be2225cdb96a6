import { describe, expect, it } from 'vitest';
import { Header } from '../../arch/pci/index.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import { BELL, enableMsix, program, single } from './testing/rig.ts';

const spec = {
  bars: [{ type: 'memory64', prefetchable: true, size: 0x1_0000 } as const],
  msix: { vectors: 4, table: { bar: 0, offset: 0 }, pba: { bar: 0, offset: 0x8000 } },
};

describe('a function with MSI-X', () => {
  it('sends what the table holds, once software has enabled all that it takes', () => {
    const { fn, bell, ledger, lost } = single(spec);
    expect(fn.raise(0)).toBe(false);
    expect(lost(Loss.BUS_MASTER_OFF)).toBe(1);
    fn.configWrite(Header.COMMAND, 2, 0x6);
    expect(fn.raise(0)).toBe(false);
    expect(lost(Loss.NOT_ENABLED)).toBe(1);
    enableMsix(fn);
    expect(fn.raise(2)).toBe(false);
    expect(ledger[Count.PENDING]).toBe(1);
    program(fn, 2, 77);
    expect(ledger[Count.PENDING]).toBe(0);
    expect(fn.raise(2)).toBe(true);
    expect(bell.arrivals).toEqual([
      { requester: 8, address: BELL + 0x40, data: 77 },
      { requester: 8, address: BELL + 0x40, data: 77 },
    ]);
    expect(ledger[Count.SENT]).toBe(4);
  });
});
