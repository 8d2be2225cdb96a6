/** Random programs of attaches, replaces and detaches of PASIDs on two devices, against a plain model. BELFRY_PROGRAMS=20 runs ten thousand. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Count } from '../../ports/ledger.ts';
import { Iommufd } from './testing.ts';
import { PasidLab } from './testing-pasid.ts';

const PROGRAMS = 500 * Number(process.env['BELFRY_PROGRAMS'] ?? 1);
/** PASIDs below 16 exist; 0 stands for none. */
const PASIDS = [0, 1, 2, 15, 16];
const TABLES = 4;
/** Of those, the last was not made for PASIDs. */
const PLAIN = 3;

const device = fc.nat({ max: 1 });
const pasid = fc.constantFrom(...PASIDS);
const table = fc.nat({ max: TABLES - 1 });
const step = fc.oneof(
  { weight: 8, arbitrary: fc.record({ op: fc.constant('pasid' as const), device, pasid, table }) },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('attach' as const), device, table }) },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('leave' as const), device, pasid }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('detach' as const), device }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('look' as const), device, pasid }) },
);

/** What one device goes through: `own` without a PASID, attached with the flag and PASID 0 (`flagged`) or without. */
interface Model {
  own: number | null;
  flagged: boolean;
  readonly pasids: Map<number, number>;
}

/** What ATTACH answers, as device_cdev.c and iommufd/device.c say: the table, or an errno. */
function attach(model: Model, target: number, named: number | null): number | string {
  if (named === null || named === 0) {
    const attachedHere = model.own !== null && model.flagged === (named === 0);
    if (!attachedHere && model.own !== null) return 'EBUSY';
    if (model.own !== target && target === PLAIN && model.pasids.size > 0) return 'EINVAL';
    model.own = target;
    model.flagged = named === 0;
    return target;
  }
  if (model.pasids.get(named) === target) return target;
  if (target === PLAIN || model.own === PLAIN || named >= 16) return 'EINVAL';
  model.pasids.set(named, target);
  return target;
}

describe('random PASIDs of two devices', () => {
  it('answer as the model does, DMA reaches what is attached and nothing else, and in the end nothing is left', () => {
    const lab = new PasidLab();
    const { memory, tap } = lab.host.context;
    // The process has its pages from the first pin on.
    lab.iommufd.mapAt(lab.iommufd.ioas(), 0, lab.memory.address, lab.memory.length);
    lab.iommufd.close();
    for (const file of lab.devices) lab.client.close(file);
    const before = { allocated: memory.allocated, pinned: lab.client.process.lockedPages };
    let looks = 0;
    fc.assert(
      fc.property(fc.array(step, { minLength: 4, maxLength: 24 }), fc.boolean(), (program, kill) => {
        const iommufd = new Iommufd(lab.client);
        const devices = [0, 1].map((n) => lab.client.open(`/dev/vfio/devices/vfio${n}`));
        lab.use(iommufd, devices);
        expect([lab.bind(0), lab.bind(1)]).toEqual([1, 2]);
        const spaces = Array.from({ length: TABLES }, (_, i) => lab.space(i === PLAIN ? 0 : undefined, 1, i));
        const models: Model[] = [0, 1].map(() => ({ own: null, flagged: false, pasids: new Map() }));
        const id = (answer: number | string) => (typeof answer === 'string' ? answer : spaces[answer]!.hwpt);
        for (const each of program) {
          const model = models[each.device]!;
          const file = devices[each.device]!;
          if (each.op === 'pasid') {
            const expected = attach(model, each.table, each.pasid);
            expect(iommufd.attachPasid(file, each.pasid, spaces[each.table]!.hwpt)).toBe(id(expected));
          } else if (each.op === 'attach') {
            expect(iommufd.attach(file, spaces[each.table]!.hwpt)).toBe(id(attach(model, each.table, null)));
          } else if (each.op === 'detach') {
            expect(iommufd.detach(file)).toBe(0);
            if (!model.flagged) model.own = null;
          } else if (each.op === 'leave') {
            expect(iommufd.detachPasid(file, each.pasid)).toBe(0);
            model.pasids.delete(each.pasid);
            if (each.pasid === 0 && model.flagged) Object.assign(model, { own: null, flagged: false });
          } else {
            looks += 1;
            const goes = each.pasid === 0 ? model.own : (model.pasids.get(each.pasid) ?? null);
            const reached = lab.reach(each.device, each.pasid === 0 ? null : each.pasid);
            expect(reached).toBe(goes === null ? -1 : spaces[goes]!.page);
          }
          for (const [i, { hwpt }] of spaces.entries()) {
            const uses = models.flatMap(({ own, pasids }) => [own, ...pasids.values()]).filter((at) => at === i).length;
            expect(iommufd.ctx.objects.find(hwpt)!.users).toBe(1 + uses);
          }
        }
        const { ctx } = iommufd;
        if (kill) iommufd.close();
        for (const file of devices) lab.client.close(file);
        if (!kill) iommufd.close();
        expect([ctx.objects.size, ctx.groupCount]).toEqual([0, 0]);
        for (const n of [0, 1]) {
          const group = lab.group(n);
          expect([group.domain === group.defaultDomain, group.pasids.empty, group.dmaOwner]).toEqual([
            true,
            true,
            null,
          ]);
        }
        expect([memory.allocated, lab.client.process.lockedPages]).toEqual([before.allocated, before.pinned]);
      }),
      { numRuns: PROGRAMS },
    );
    expect(looks).toBeGreaterThan(PROGRAMS / 10);
    expect(tap.ledger[Count.FAULTS]).toBeGreaterThan(0);
  });
});
