/** Random programs of IOAS requests and attachments against a plain model. BELFRY_PROGRAMS=34 runs ten thousand. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { testMemory } from '../test-context.ts';
import { type MapDomain, TestOps, testDevice } from '../vfio/test-host.ts';
import { userLockedPages } from './account.ts';
import { HwptPaging, Ioas } from './index.ts';
import { APERTURE, BUFFER, IommufdModel, ModelDevice, ModelGroup, ModelHwpt, ModelIoas, WINDOW } from './ioas-model.ts';
import { allocate, iommufdHost, READ, WRITE } from './testing.ts';

const PROGRAMS = 300 * Number(process.env['BELFRY_PROGRAMS'] ?? 1);
const PAGE = 4096;

const near = (page: number, by: number) => fc.integer({ min: Math.max(0, page - by), max: page + by });
const iova = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: 20 }) },
  { weight: 2, arbitrary: near(WINDOW.start, 8) },
  { weight: 1, arbitrary: near(WINDOW.last, 4) },
  { weight: 1, arbitrary: near(APERTURE, 5) },
);
const pages = fc.integer({ min: 0, max: 6 });
/** Devices are 1 to 3; objects are few, so that requests meet. */
const id = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 4, max: 7 }) },
  { weight: 1, arbitrary: fc.nat({ max: 9 }) },
);
const span = fc.tuple(iova, fc.integer({ min: 1, max: 12 }));
const device = fc.nat({ max: 2 });

const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ op: fc.constant('alloc' as const) }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('destroy' as const), id }) },
  {
    weight: 8,
    arbitrary: fc.record({
      op: fc.constant('map' as const),
      id,
      iova: fc.option(iova, { freq: 3 }),
      from: fc.integer({ min: 0, max: BUFFER }),
      pages,
      write: fc.boolean(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant('copy' as const),
      id,
      iova,
      pages,
      to: id,
      at: fc.option(iova),
      write: fc.boolean(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ op: fc.constant('unmap' as const), id, iova, pages: fc.integer({ min: 0, max: 30 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant('allow' as const), id, spans: fc.array(span, { maxLength: 3 }) }),
  },
  { weight: 6, arbitrary: fc.record({ op: fc.constant('attach' as const), device, id }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('detach' as const), device }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('hwpt' as const), device, id }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** Two devices in group 0, one in group 1, all bound; and the model of that. */
class Pair {
  readonly host;
  readonly model: IommufdModel;
  readonly devices: readonly number[];
  readonly modelDevices: readonly ModelDevice[];
  readonly va: number;
  readonly frame: number;

  constructor(memory: ReturnType<typeof testMemory>) {
    const process = { capabilities: ['CAP_DAC_OVERRIDE'] };
    this.host = iommufdHost({ groups: 2, memory, process });
    const { vfio, groups, events, context, client, iommufd } = this.host;
    vfio.register(testDevice('0000:01:00.1', groups[0]!), new TestOps('0000:01:00.1', events, context));
    this.host.memory.free();
    this.va = allocate(client, BUFFER * PAGE).address;
    const pinned = client.process.memory.pin(this.va, PAGE, true);
    if (typeof pinned === 'number') throw new Error('the buffer is not there');
    this.frame = pinned.runs[0]!.pa;
    pinned.release();
    this.devices = [this.host.devices[0]!, client.open('/dev/vfio/devices/vfio2'), this.host.devices[1]!];
    expect(this.devices.map((fd) => iommufd.bind(fd))).toEqual([1, 2, 3]);
    const modelGroups = [new ModelGroup(), new ModelGroup()];
    this.modelDevices = [0, 0, 1].map((group) => new ModelDevice(modelGroups[group]!));
    this.model = new IommufdModel(this.modelDevices);
  }

  /** What the kernel answers, in pages, and what the model does. */
  run(what: Step): [unknown, unknown] {
    const { model, va } = this;
    const { iommufd } = this.host;
    switch (what.op) {
      case 'alloc':
        return [iommufd.ioas(), model.alloc()];
      case 'destroy':
        return [iommufd.destroy(what.id), model.destroy(what.id)];
      case 'map': {
        const address = va + what.from * PAGE;
        const flags = READ | (what.write ? WRITE : 0);
        const length = what.pages * PAGE;
        const done =
          what.iova === null
            ? inPages(iommufd.map(what.id, address, length, flags))
            : iommufd.mapAt(what.id, what.iova * PAGE, address, length, flags);
        const expected = model.map(what.id, what.iova, address / PAGE, what.from, what.pages, what.write);
        return [done, what.iova !== null && typeof expected === 'number' ? 0 : expected];
      }
      case 'copy': {
        const { id: from, to, at, write } = what;
        const flags = READ | (write ? WRITE : 0);
        const target = at === null ? null : at * PAGE;
        const done = inPages(iommufd.copy(from, what.iova * PAGE, what.pages * PAGE, to, target, flags));
        return [done, model.copy(from, what.iova, what.pages, to, at, write, va / PAGE)];
      }
      case 'unmap':
        return [
          inPages(iommufd.unmap(what.id, what.iova * PAGE, what.pages * PAGE)),
          model.unmap(what.id, what.iova, what.pages),
        ];
      case 'allow': {
        const spans = what.spans.map(([start, count]) => ({ start, last: start + count - 1 }));
        const ranges = spans.map(({ start, last }) => [start * PAGE, (last + 1) * PAGE - 1] as const);
        return [iommufd.allow(what.id, ranges), model.allow(what.id, spans)];
      }
      case 'attach':
        return [
          iommufd.attach(this.devices[what.device]!, what.id),
          model.attach(this.modelDevices[what.device]!, what.id),
        ];
      case 'detach':
        return [iommufd.detach(this.devices[what.device]!), model.detach(this.modelDevices[what.device]!)];
      case 'hwpt':
        return [iommufd.hwpt(what.device + 1, what.id), model.hwpt(what.id)];
    }
  }

  /** Objects, users, areas, reserved ranges, tables, charges: all as the model has them. */
  compare(): void {
    const { model, frame } = this;
    const { iommufd, context } = this.host;
    const { objects } = iommufd.ctx;
    expect(objects.all.map((object) => object.id)).toEqual([...model.things.keys()].sort((a, b) => a - b));
    for (const object of objects.all) {
      const thing = model.things.get(object.id);
      if (object instanceof Ioas && thing instanceof ModelIoas) {
        expect(object.users).toBe(1 + thing.hwpts.length);
        const areas = object.iopt.areas.all().map((area) => [inPages(area.start), inPages(area.length)]);
        expect(areas).toEqual(thing.areas.map(({ iova, pages }) => [iova, pages]).sort((a, b) => a[0]! - b[0]!));
        expect(iommufd.ranges(object.id).list).toEqual(usable(model, thing));
      } else if (object instanceof HwptPaging && thing instanceof ModelHwpt) {
        expect([object.users, object.autoDomain]).toEqual([1 + thing.attached, thing.auto]);
        const mapped = [...(object.domain as MapDomain).pages].map(([at, { pa }]) => [at / PAGE, (pa - frame) / PAGE]);
        const wanted = thing.ioas.areas.flatMap(({ iova, pages, from }) =>
          Array.from({ length: pages }, (_, i) => [iova + i, from + i]),
        );
        const order = (a: number[], b: number[]): number => a[0]! - b[0]!;
        expect(mapped.sort(order)).toEqual(wanted.sort(order));
      } else {
        expect([object.type, thing instanceof ModelDevice]).toEqual(['device', true]);
      }
    }
    expect(userLockedPages(context, 0)).toBe(model.charged);
  }

  end(killed: boolean): void {
    const { client, kernel, context, groups, iommufd } = this.host;
    const { ctx } = iommufd;
    if (!killed) {
      for (const fd of this.devices) client.close(fd);
      iommufd.close();
      expect(ctx.objects.size).toBe(0);
    }
    kernel.exit(client.process);
    expect([ctx.objects.size, ctx.groupCount, userLockedPages(context, 0)]).toEqual([0, 0, 0]);
    for (const group of groups) {
      expect([group.dmaOwner, group.claims, group.domain]).toEqual([null, 0, group.defaultDomain]);
      expect(group.made.every((domain) => domain.freed && domain.stale === 0)).toBe(true);
    }
    expect(context.memory.allocated).toBe(0);
  }
}

const inPages = (answer: bigint | string | number): string | number =>
  typeof answer === 'bigint' ? Number(answer) / PAGE : answer;

function usable(model: IommufdModel, ioas: ModelIoas): bigint[][] {
  const list: bigint[][] = [];
  let at = 0n;
  for (const { start, last } of model.reserved(ioas)) {
    list.push([at, BigInt(start) * 4096n - 1n]);
    at = last === Number.POSITIVE_INFINITY ? -1n : (BigInt(last) + 1n) * 4096n;
  }
  if (at >= 0n) list.push([at, 0xffff_ffff_ffff_ffffn]);
  return list;
}

describe('random programs', () => {
  it('answer, map, reserve, charge and count as the model does, and leave nothing', () => {
    const memory = testMemory();
    const seen = new Set<string>();
    const answers = ['map EFAULT', 'map EEXIST', 'copy ENOENT', 'copy ok', 'unmap ok'];
    answers.push('attach EADDRINUSE', 'attach EINVAL', 'attach ok', 'destroy EBUSY', 'hwpt ok');
    const missing = (): string[] => answers.filter((answer) => !seen.has(answer));
    const run = (): void =>
      fc.assert(
        fc.property(fc.array(step, { minLength: 10, maxLength: 60, size: 'max' }), fc.boolean(), (steps, killed) => {
          const pair = new Pair(memory);
          for (const [i, what] of steps.entries()) {
            const [done, expected] = pair.run(what);
            expect({ what, answer: done }).toEqual({ what, answer: expected });
            seen.add(`${what.op} ${typeof done === 'string' ? done : 'ok'}`);
            if (i % 8 === 0) pair.compare();
          }
          pair.compare();
          pair.end(killed);
        }),
        { numRuns: PROGRAMS, verbose: 1 },
      );
    run();
    // The programs reach what they are for; an answer that is rare gets some more programs to come.
    for (let more = 0; more < 9 && missing().length > 0; more++) run();
    expect(missing()).toEqual([]);
  });
});
