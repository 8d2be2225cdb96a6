/** A machine with one of everything: ports, a switch, a bridge, a slot of several functions; and an IOMMU that counts. */
import type { Iommu } from '../../../ports/iommu.ts';
import { Status, type StatusCode, type Transaction } from '../../../ports/transaction.ts';
import type { SlotSpec } from '../../spec.ts';
import { rig, TestModel } from './rig.ts';

export const device = (): TestModel =>
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

export function tree(acs: boolean, iommu: Iommu | null = null) {
  const made = rig(iommu);
  made.root.addSlots(slots(acs), () => device());
  made.root.start();
  return made;
}

export class Counting implements Iommu {
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
