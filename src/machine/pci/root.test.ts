import { describe, expect, it } from 'vitest';
import { capabilities, extendedCapabilities, Header, Header1 } from '../../arch/pci/index.ts';
import type { Iommu } from '../../ports/iommu.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import { Status, type StatusCode, type Transaction } from '../../ports/transaction.ts';
import type { SlotSpec } from '../spec.ts';
import type { PciRoot } from './root.ts';
import { ALL_ON, BELL, enableMsix, program, RAM, rig, TestModel } from './testing/rig.ts';

const device = (): TestModel =>
  new TestModel({
    bars: [
      { type: 'memory32', size: 0x1000, ranges: [{ kind: 'memory', offset: 0, size: 0x1000 }] },
      null,
      { type: 'memory64', prefetchable: true, size: 0x4000 },
    ],
    msix: { vectors: 2, table: { bar: 2, offset: 0 }, pba: { bar: 2, offset: 0x2000 } },
    express: { type: 'endpoint', flr: true },
  });

/** A root port with one device; a switch with two; a bridge with two conventional ones; a slot of three functions. */
const slots = (acs: boolean): SlotSpec[] => {
  const fn = (at: string): SlotSpec => ({ at, kind: 'function', device: 'test' });
  return [
    { at: '01.0', kind: 'root-port', acs, below: [fn('00.0')] },
    {
      at: '02.0',
      kind: 'root-port',
      acs,
      below: [
        {
          at: '00.0',
          kind: 'switch-upstream',
          acs: false,
          below: [
            { at: '00.0', kind: 'switch-downstream', acs, below: [fn('00.0')] },
            { at: '01.0', kind: 'switch-downstream', acs, below: [fn('00.0')] },
          ],
        },
      ],
    },
    {
      at: '03.0',
      kind: 'root-port',
      acs,
      below: [{ at: '00.0', kind: 'pci-bridge', below: [fn('04.0'), fn('05.0')] }],
    },
    { at: '04.0', kind: 'root-port', acs, below: [fn('00.0'), fn('00.1'), fn('00.2')] },
    fn('1f.3'),
    fn('1f.0'),
  ];
};

function tree(acs: boolean, iommu: Iommu | null = null) {
  const made = rig(iommu);
  made.root.addSlots(slots(acs), () => device());
  made.root.start();
  return made;
}

/** What an operating system does: configuration cycles alone, from bus 0 down, through the bus numbers that firmware left. */
function enumerate(root: PciRoot, bus = 0): string[] {
  const found: string[] = [];
  for (let slot = 0; slot < 32; slot++) {
    for (let fn = 0; fn < 8; fn++) {
      const id = (bus << 8) | (slot << 3) | fn;
      if (root.configRead(id, Header.VENDOR_ID, 2) === 0xffff) {
        if (fn === 0) break;
        continue;
      }
      const type = root.configRead(id, Header.HEADER_TYPE, 1);
      found.push(
        `${bus.toString(16).padStart(2, '0')}:${slot.toString(16).padStart(2, '0')}.${fn}${(type & 0x7f) === 1 ? '>' : ''}`,
      );
      if ((type & 0x7f) === 1) found.push(...enumerate(root, root.configRead(id, Header1.SECONDARY_BUS, 1)));
      if (fn === 0 && (type & 0x80) === 0) break;
    }
  }
  return found;
}

const TOPOLOGY = [
  '00:01.0>',
  '01:00.0',
  '00:02.0>',
  '02:00.0>',
  '03:00.0>',
  '04:00.0',
  '03:01.0>',
  '05:00.0',
  '00:03.0>',
  '06:00.0>',
  '07:04.0',
  '07:05.0',
  '00:04.0>',
  '08:00.0',
  '08:00.1',
  '08:00.2',
  '00:1f.0',
  '00:1f.3',
];

describe('a segment', () => {
  it('is found whole by configuration cycles alone, through ECAM as well', () => {
    const { root } = tree(true);
    expect(enumerate(root)).toEqual(TOPOLOGY);
    const names = root.functions.map(({ address }) => address);
    expect(names).toHaveLength(10);
    expect(root.function('0000:08:00.2')?.requester).toBe(0x802);
    expect(root.function('0000:08:00.3')).toBeNull();
    expect(root.ecam.read((0x802 << 12) | 0x00, 4)).toBe(0x5678_1234);
    root.ecam.write((0x802 << 12) | 0x04, 2, 0x6);
    expect(root.configRead(0x802, 4, 2)).toBe(6);
    expect(root.ecam.read(0xff << 20, 4)).toBe(0xffff_ffff);
    expect(root.configRead(0x1_0802, 0, 4)).toBe(0xffff_ffff);
  });

  it('can be numbered anew by software, and requester ids follow', () => {
    const { root } = tree(false);
    const fn = root.function('0000:01:00.0')!;
    root.configWrite(0x08, Header1.PRIMARY_BUS, 4, 0x0040_4000);
    expect(fn.requester).toBe(0x4000);
    expect(fn.streamId).toBe(0x4000);
    expect(root.configRead(0x4000, 0, 2)).toBe(0x1234);
    expect(root.configRead(0x0100, 0, 2)).toBe(0xffff);
  });

  it('is the same after every start', () => {
    const dump = (): number[] =>
      tree(true).root.functions.flatMap((fn) => [
        fn.requester,
        fn.configRead(0x10, 4),
        fn.configRead(0x18, 4),
        fn.configRead(0x1c, 4),
      ]);
    expect(dump()).toEqual(dump());
  });

  it('gives every memory BAR a place that its bridges forward', () => {
    const { root, bus } = tree(false);
    for (const fn of root.functions) {
      fn.configWrite(Header.COMMAND, 2, ALL_ON);
      expect(fn.bars.windows.filter((window) => window !== null).map(({ decoded }) => decoded)).toEqual([true, true]);
    }
    const fn = root.function('0000:05:00.0')!;
    const base = fn.bars.windows[0]!.base;
    root.configWrite(0x308, Header.COMMAND, 2, 0x4);
    expect(bus.claimant(base)).toBeNull();
    root.configWrite(0x308, Header.COMMAND, 2, 0x6);
    expect(bus.claimant(base)).toBe('test BAR 0');
    root.configWrite(0x308, Header1.MEMORY_LIMIT, 2, 0);
    expect(bus.claimant(base)).toBeNull();
  });

  it('forwards nothing up through a bridge without bus mastering', () => {
    const { root, lost } = tree(false);
    const fn = root.function('0000:01:00.0')!;
    fn.configWrite(Header.COMMAND, 2, ALL_ON);
    enableMsix(fn);
    program(fn, 0, 1);
    root.configWrite(0x08, Header.COMMAND, 2, 0x3);
    expect(fn.raise(0)).toBe(false);
    expect(lost(Loss.BUS_MASTER_OFF)).toBe(1);
    root.configWrite(0x08, Header.COMMAND, 2, 0x7);
    expect(fn.raise(0)).toBe(true);
  });

  it('resets everything below a bridge by its secondary bus reset', () => {
    const { root } = tree(false);
    const fn = root.function('0000:05:00.0')!;
    fn.configWrite(Header.COMMAND, 2, ALL_ON);
    root.configWrite(0x10, Header1.BRIDGE_CONTROL, 2, 0x40);
    expect((fn.model as TestModel).resets).toBe(1);
    fn.configWrite(Header.COMMAND, 2, ALL_ON);
    expect(fn.mayIssue).toBe(false);
    expect(root.configRead(0x0500, 0, 2)).toBe(0xffff);
    root.configWrite(0x10, Header1.BRIDGE_CONTROL, 2, 0);
    // The switch forgot its bus numbers with the reset: only its upstream port is found before software numbers it again.
    expect(root.configRead(0x0200, 0, 2)).toBe(0x1b36);
    expect(root.configRead(0x0500, 0, 2)).toBe(0xffff);
    expect((root.function('0000:01:00.0')!.model as TestModel).resets).toBe(0);
  });

  it('says what of a slot cannot be', () => {
    const fn = (at: string): SlotSpec => ({ at, kind: 'function', device: 'test' });
    const refused: [SlotSpec[], RegExp][] = [
      [[fn('01.0'), fn('01.0')], /slot 01\.0: is taken/],
      [[fn('01.1')], /no function 0/],
      [[fn('20.0')], /devices 00 to 1f/],
      [[{ at: '01.0', kind: 'root-port', acs: true, below: [fn('01.0')] }], /a link has one device/],
      [[{ at: '01.0', kind: 'switch-downstream', acs: true, below: [] }], /downstream port/],
      [[{ at: '01.0', kind: 'switch-upstream', acs: true, below: [] }], /upstream port/],
      [
        [
          {
            at: '01.0',
            kind: 'root-port',
            acs: true,
            below: [{ at: '00.0', kind: 'root-port', acs: true, below: [] }],
          },
        ],
        /root port/,
      ],
      [
        [
          {
            at: '01.0',
            kind: 'root-port',
            acs: true,
            below: [{ at: '00.0', kind: 'switch-upstream', acs: false, below: [fn('00.0')] }],
          },
        ],
        /only downstream/,
      ],
    ];
    for (const [bad, message] of refused) {
      const { root } = rig();
      expect(() => {
        root.addSlots(bad, () => device());
        root.start();
      }).toThrow(message);
    }
  });

  it('tells which BAR does not fit', () => {
    const { root } = rig();
    root.addFunction(root.rootBus, 8, new TestModel({ bars: [{ type: 'memory32', size: 2 ** 30 }] }));
    expect(() => root.start()).toThrow(/test BAR 0: 0x4000_0000 bytes do not fit pci\.mmio32/);
  });
});

describe('requester ids that the IOMMU sees', () => {
  it('a PCIe-to-PCI bridge stands for all that is below it', () => {
    const { root, bell } = tree(false);
    const fn = root.function('0000:07:05.0')!;
    expect([fn.requester, fn.streamId]).toEqual([0x728, 0x700]);
    fn.configWrite(Header.COMMAND, 2, ALL_ON);
    enableMsix(fn);
    program(fn, 0, 5);
    fn.raise(0);
    expect(bell.arrivals).toEqual([{ requester: 0x700, address: BELL + 0x40, data: 5 }]);
  });

  it('of two bridges, the one nearest the root', () => {
    const { root } = rig();
    const port = root.addBridge(root.rootBus, 8, 'root-port');
    const outer = root.addBridge(port.secondary, 0, 'pci-bridge');
    const inner = root.addBridge(outer.secondary, 3 << 3, 'pci-bridge');
    const fn = root.addFunction(inner.secondary, 1 << 3, device());
    root.start();
    expect(fn.streamId).toBe(0x200);
    expect([outer.isExpress, inner.isExpress]).toEqual([true, false]);
  });
});

class Counting implements Iommu {
  readonly name = 'counting';
  walks = 0;
  answer: StatusCode = Status.OK;
  translate(tx: Transaction): StatusCode {
    this.walks++;
    tx.paHi = tx.iovaHi;
    tx.paLo = tx.iovaLo;
    return this.answer;
  }
  explain(): ReturnType<Iommu['explain']> {
    return { kind: 'abort', why: 'test', steps: [] };
  }
}

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
