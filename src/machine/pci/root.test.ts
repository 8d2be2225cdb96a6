import { describe, expect, it } from 'vitest';
import { Header, Header1 } from '../../arch/pci/index.ts';
import { Loss } from '../../ports/ledger.ts';
import type { SlotSpec } from '../spec.ts';
import type { PciRoot } from './root.ts';
import { ALL_ON, BELL, enableMsix, program, rig, TestModel } from './testing/rig.ts';
import { device, tree } from './testing/tree.ts';

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
