import { describe, expect, it } from 'vitest';
import { CapabilityId, findCapability, Header, Msix } from '../../arch/pci/index.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import type { HostFunction } from './function.ts';
import { BELL, single } from './testing/rig.ts';

/** Gives vector `vector` a message and clears its mask, by writes into the BAR. */
export function program(fn: HostFunction, bus: { write32(pa: number, value: number): void }, vector: number, data: number): void {
  const at = fn.bars.windows[fn.msix!.tableBar]!.base + fn.msix!.tableOffset + vector * 16;
  bus.write32(at, BELL + 0x40);
  bus.write32(at + 4, 0);
  bus.write32(at + 8, data);
  bus.write32(at + 12, 0);
}

const spec = {
  bars: [{ type: 'memory64', prefetchable: true, size: 0x1_0000 } as const],
  msix: { vectors: 4, table: { bar: 0, offset: 0 }, pba: { bar: 0, offset: 0x8000 } },
};

describe('a function with MSI-X', () => {
  it('sends what the table holds, once software has enabled all that it takes', () => {
    const { fn, bus, bell, ledger, lost } = single(spec);
    expect(fn.raise(0)).toBe(false);
    expect(lost(Loss.BUS_MASTER_OFF)).toBe(1);
    fn.configWrite(Header.COMMAND, 2, 0x6);
    expect(fn.raise(0)).toBe(false);
    expect(lost(Loss.NOT_ENABLED)).toBe(1);
    const msix = findCapability((offset, size) => fn.configRead(offset, size), CapabilityId.MSIX);
    fn.configWrite(msix + Msix.FLAGS, 2, 0x8000);
    expect(fn.raise(2)).toBe(false);
    expect(ledger[Count.PENDING]).toBe(1);
    program(fn, bus, 2, 77);
    expect(ledger[Count.PENDING]).toBe(0);
    expect(fn.raise(2)).toBe(true);
    expect(bell.arrivals).toEqual([
      { requester: 8, address: BELL + 0x40, data: 77 },
      { requester: 8, address: BELL + 0x40, data: 77 },
    ]);
    expect(ledger[Count.SENT]).toBe(4);
  });
});
