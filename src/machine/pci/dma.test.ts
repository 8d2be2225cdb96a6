import { describe, expect, it } from 'vitest';
import { fromHalves } from '../../ports/address.ts';
import type { Iommu } from '../../ports/iommu.ts';
import { Count } from '../../ports/ledger.ts';
import { Access, Status, type StatusCode, type Transaction } from '../../ports/transaction.ts';
import { ALL_ON, BELL, RAM, rig, TestModel } from './testing/rig.ts';

/** Adds RAM's base to addresses below 64 KiB, passes the doorbell, refuses the rest; writes down what it was asked. */
class Shifting implements Iommu {
  readonly name = 'shifting';
  readonly asked: string[] = [];
  translate(tx: Transaction): StatusCode {
    const iova = fromHalves(tx.iovaHi, tx.iovaLo);
    this.asked.push(`${tx.access === Access.READ ? 'r' : 'w'}${iova.toString(16)}+${tx.size.toString(16)}`);
    const pa = iova < 0x1_0000 ? RAM + iova : iova;
    if (iova >= 0x1_0000 && (iova < BELL || iova >= BELL + 0x1000)) return Status.FAULT;
    tx.paHi = (pa / 2 ** 32) | 0;
    tx.paLo = pa | 0;
    return Status.OK;
  }
  explain(): ReturnType<Iommu['explain']> {
    return { kind: 'abort', why: 'test', steps: [] };
  }
}

function dmaRig() {
  const iommu = new Shifting();
  const made = rig(iommu);
  const fn = made.root.addFunction(made.root.rootBus, 8, new TestModel());
  made.root.start();
  fn.configWrite(0x04, 2, ALL_ON);
  return { ...made, iommu, fn };
}

describe('DMA', () => {
  it('is split at 4 KiB, each piece is translated, and it completes in the work queue', () => {
    const { fn, iommu, bus, work } = dmaRig();
    const bytes = Uint8Array.from({ length: 0x1800 }, (_, index) => index * 7);
    const done: string[] = [];
    fn.dmaWrite(0xf00, bytes, (ok) => done.push(`write ${ok}`));
    bytes.fill(0);
    expect(done).toEqual([]);
    work.drain();
    expect(iommu.asked).toEqual(['wf00+100', 'w1000+1000', 'w2000+700']);
    const back = new Uint8Array(0x1800);
    bus.memory.read(RAM + 0xf00, back);
    expect(back).toEqual(Uint8Array.from({ length: 0x1800 }, (_, index) => index * 7));
    fn.dmaRead(0xffe, 4, (ok, got) => done.push(`read ${ok} ${got.join()}`));
    work.drain();
    expect(done).toEqual(['write true', `read true ${[254, 255, 256, 257].map((index) => (index * 7) & 255).join()}`]);
  });

  it('fails when any piece is refused, and still moves the others', () => {
    const { fn, bus, work } = dmaRig();
    let result: boolean | null = null;
    fn.dmaWrite(0xf000, new Uint8Array(0x2000).fill(9), (ok) => {
      result = ok;
    });
    work.drain();
    expect(result).toBe(false);
    expect(bus.memory.read32(RAM + 0xfffc)).toBe(0x0909_0909);
  });

  it('fails without bus mastering, after a reset, and for what is no range', () => {
    const { fn, work, iommu } = dmaRig();
    const results: boolean[] = [];
    const note = (ok: boolean): void => void results.push(ok);
    fn.dmaWrite(0, new Uint8Array(4), note);
    fn.reset();
    // Even when software was quick to enable it again: what was under way died with the reset.
    fn.configWrite(0x04, 2, ALL_ON);
    work.drain();
    fn.configWrite(0x04, 2, 0);
    fn.dmaWrite(0, new Uint8Array(4), note);
    work.drain();
    fn.configWrite(0x04, 2, ALL_ON);
    for (const [iova, length] of [
      [-1, 4],
      [0.5, 4],
      [2 ** 53, 4],
      [0, -4],
      [0, 2 ** 40],
    ])
      fn.dmaRead(iova, length, note);
    work.drain();
    expect(results).toEqual([false, false, false, false, false, false, false]);
    expect(iommu.asked).toEqual([]);
  });

  it('a write to the doorbell is an interrupt like any other', () => {
    const { fn, work, bell, ledger } = dmaRig();
    fn.dmaWrite(BELL + 0x40, Uint8Array.of(0x34, 0x12, 0, 0), () => {});
    work.drain();
    expect(bell.arrivals).toEqual([{ requester: 8, address: BELL + 0x40, data: 0x1234 }]);
    expect(ledger[Count.SENT]).toBe(1);
  });
});
