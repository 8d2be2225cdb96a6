import { describe, expect, it } from 'vitest';
import { capabilities, extendedCapabilities, Header } from '../../arch/pci/index.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import { Status } from '../../ports/transaction.ts';
import { ALL_ON, enableMsix, program, RAM, rig, TestModel } from './testing/rig.ts';
import { Counting, device, tree } from './testing/tree.ts';

describe('peer to peer', () => {
  /** Points vector 0 of one function at the memory of another one's BAR 0 and fires it. */
  function fire(from: string, to: string, acs: boolean, control: boolean) {
    const iommu = new Counting();
    const made = tree(acs, iommu);
    const { root } = made;
    const a = root.function(from)!;
    const b = root.function(to)!;
    for (const fn of [a, b]) fn.configWrite(Header.COMMAND, 2, ALL_ON);
    if (control) {
      // ACS control of every port that has it: redirect requests, as Linux's pci_enable_acs sets it.
      for (const id of [0x08, 0x10, 0x18, 0x20, 0x300, 0x308]) root.configWrite(id, 0x106, 2, 0x1d);
    }
    enableMsix(a);
    program(a, 0, 0x7777, b.bars.windows[0]!.base + 0x10);
    const sent = a.raise(0);
    return {
      sent,
      walks: iommu.walks,
      got: b.barMemory(0, 0x10, 2)[0],
      lost: made.lost(Loss.PEER_TO_PEER),
      ledger: made.ledger,
    };
  }

  it('below one switch without ACS the peer takes the write before the IOMMU', () => {
    expect(fire('0000:04:00.0', '0000:05:00.0', false, true)).toMatchObject({
      sent: false,
      walks: 0,
      got: 0x77,
      lost: 1,
    });
  });

  it('ACS that software did not switch on changes nothing', () => {
    expect(fire('0000:04:00.0', '0000:05:00.0', true, false)).toMatchObject({ walks: 0, got: 0x77, lost: 1 });
  });

  it('with ACS redirect it goes up and through the IOMMU', () => {
    const result = fire('0000:04:00.0', '0000:05:00.0', true, true);
    // The IOMMU lets this one reach the BAR, so it ends there all the same, but not unseen.
    expect(result).toMatchObject({ walks: 1, got: 0x77, lost: 1 });
  });

  it('nothing redirects on a conventional bus', () => {
    expect(fire('0000:07:04.0', '0000:07:05.0', true, true)).toMatchObject({ walks: 0, got: 0x77 });
  });

  it('functions of one slot reach each other', () => {
    expect(fire('0000:08:00.0', '0000:08:00.2', true, true)).toMatchObject({ walks: 0, got: 0x77 });
  });

  it('functions of a slot with ACS of their own do not, once it is on', () => {
    for (const [control, walks] of [
      [0, 0],
      [0x0c, 1],
    ] as const) {
      const iommu = new Counting();
      const { root } = rig(iommu);
      const port = root.addBridge(root.rootBus, 8, 'root-port', true);
      const spec = { ...device().spec, express: { type: 'endpoint', acs: true } } as const;
      const a = root.addFunction(port.secondary, 0, new TestModel(spec));
      const b = root.addFunction(port.secondary, 1, new TestModel(spec));
      root.start();
      for (const fn of [a, b]) fn.configWrite(Header.COMMAND, 2, ALL_ON);
      a.configWrite(0x106, 2, control);
      enableMsix(a);
      program(a, 0, 1, b.bars.windows[0]!.base);
      a.raise(0);
      expect(iommu.walks).toBe(walks);
    }
  });

  it('root ports do not: the root complex translates first', () => {
    expect(fire('0000:01:00.0', '0000:05:00.0', false, false)).toMatchObject({ walks: 1 });
  });

  it('a function that writes its own ring register through the bus ends in a loss, not in a loop', () => {
    const { root, lost, ledger } = rig();
    const model = new TestModel({
      bars: [
        {
          type: 'memory32',
          size: 0x4000,
          ranges: [
            {
              kind: 'registers',
              offset: 0,
              size: 4,
              registers: { read: () => 0, write: () => void model.port!.raise(0) },
            },
          ],
        },
      ],
      msix: { vectors: 1, table: { bar: 0, offset: 0x1000 }, pba: { bar: 0, offset: 0x2000 } },
    });
    const fn = root.addFunction(root.rootBus, 8, model);
    root.start();
    fn.configWrite(Header.COMMAND, 2, ALL_ON);
    enableMsix(fn);
    program(fn, 0, 0, fn.bars.windows[0]!.base);
    expect(fn.raise(0)).toBe(false);
    expect([ledger[Count.SENT], lost(Loss.UNCLAIMED), lost(Loss.PEER_TO_PEER)]).toEqual([2, 1, 1]);
  });
});

describe('losses on the way up', () => {
  it('each has its reason', () => {
    for (const [answer, loss] of [
      [Status.FAULT, Loss.IOMMU_FAULT],
      [Status.STALL, Loss.IOMMU_FAULT],
      [Status.ABORT, Loss.IOMMU_ABORT],
    ] as const) {
      const iommu = new Counting();
      const { root, lost } = tree(false, iommu);
      const fn = root.function('0000:01:00.0')!;
      fn.configWrite(Header.COMMAND, 2, ALL_ON);
      enableMsix(fn);
      program(fn, 0, 1);
      iommu.answer = answer;
      expect(fn.raise(0)).toBe(false);
      expect(lost(loss)).toBe(1);
    }
  });

  it('a message to memory is a write to memory, and one to nowhere is unclaimed', () => {
    const { root, bus, lost, bell } = tree(false);
    const fn = root.function('0000:01:00.0')!;
    fn.configWrite(Header.COMMAND, 2, ALL_ON);
    enableMsix(fn);
    program(fn, 0, 0xcafe, RAM + 0x40);
    program(fn, 1, 1, 0x1000);
    expect([fn.raise(0), fn.raise(1)]).toEqual([false, false]);
    expect(bus.memory.read32(RAM + 0x40)).toBe(0xcafe);
    expect([lost(Loss.WENT_TO_MEMORY), lost(Loss.UNCLAIMED), bell.arrivals.length]).toEqual([1, 1, 0]);
    program(fn, 1, 2);
    expect([fn.raise(1), fn.raise(0), fn.raise(1)]).toEqual([true, false, true]);
    expect([lost(Loss.WENT_TO_MEMORY), bell.arrivals.length]).toEqual([2, 2]);
  });

  it('an observer is told the function, the IOMMU and the end', () => {
    const iommu = new Counting();
    const { root, tap } = tree(false, iommu);
    const fn = root.function('0000:01:00.0')!;
    fn.configWrite(Header.COMMAND, 2, ALL_ON);
    enableMsix(fn);
    program(fn, 1, 0x42);
    const hops: string[] = [];
    tap.observer = {
      hop: (hop) =>
        hops.push(
          hop.at === 'device'
            ? `device ${hop.how} ${hop.vector} ${hop.state}`
            : hop.at === 'lost'
              ? `lost at ${hop.where}: ${hop.why}`
              : hop.at,
        ),
    };
    fn.raise(1);
    fn.raise(0);
    fn.raise(0);
    iommu.answer = Status.ABORT;
    fn.raise(1);
    fn.raise(2);
    expect(hops).toEqual([
      'device msix 1 sent',
      'device msix 0 pending',
      'device msix 0 coalesced',
      'device msix 1 sent',
      'lost at 0000:01:00.0: vector 1 of test: the IOMMU aborts every request of requester 0x0100 silently',
      'device msix 2 lost',
      'lost at 0000:01:00.0: vector 2 of test: is beyond the vectors that software enabled',
    ]);
  });

  it('every capability list of the tree can be walked', () => {
    const { root } = tree(true);
    const ids = (id: number): number[] =>
      capabilities((offset, size) => root.configRead(id, offset, size)).map((each) => each.id);
    expect(ids(0x08)).toEqual([0x01, 0x10]);
    expect(ids(0x100)).toEqual([0x11, 0x10]);
    expect(extendedCapabilities((offset, size) => root.configRead(0x08, offset, size))).toEqual([
      { id: 0x0d, offset: 0x100, version: 1 },
    ]);
    expect(extendedCapabilities((offset, size) => root.configRead(0x200, offset, size))).toEqual([]);
  });
});
