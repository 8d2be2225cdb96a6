/** Random programs of map and unmap on a container and on an IOAS of two equal hosts: the same is mapped, and the same is refused. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AddressSpace, openDevice, VfioError, type Via } from '../src/vfio/index.ts';
import { DEVICE, testHost } from './support/host.ts';

const PAGE = 4096;
/** IOVAs around the window of the kernel's doorbell, where two programs could differ most; pages from here. */
const FIRST = 0x7ff_8000;
const PAGES = 0x110;
/** Pages of memory that mappings are made of. */
const MEMORY = 16;
/** The kernel's window: reserved on both ways. */
const WINDOW = { start: 0x800_0000, end: 0x80f_ffff };

type Step =
  | { readonly do: 'map'; readonly at: number; readonly pages: number; readonly from: number; readonly skew: number }
  | { readonly do: 'unmap'; readonly at: number; readonly pages: number }
  | { readonly do: 'unmapAll' };

/** Most of it at the two ends of the window. */
const place = fc.oneof(
  fc.integer({ min: 0, max: 15 }),
  fc.integer({ min: 0xff, max: PAGES }),
  fc.integer({ min: 0, max: PAGES }),
);
const pages = fc.integer({ min: 1, max: 8 });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('map' as const),
      at: place,
      pages,
      from: fc.integer({ min: 0, max: MEMORY - 8 }),
      skew: fc.constantFrom(0, 0, 0, 0, 0, 0, 0x800),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('unmap' as const), at: place, pages }) },
  { weight: 1, arbitrary: fc.constant({ do: 'unmapAll' as const }) },
);

/** What user code can rely on: the bytes that changed, or the errno; where the two kernels' differ by design, one name for both. */
function outcome(act: () => number): number | string {
  try {
    return act();
  } catch (error) {
    if (!(error instanceof VfioError)) throw error;
    return error.code;
  }
}

function run(space: AddressSpace, address: number, action: Step): number | string {
  switch (action.do) {
    case 'map':
      return outcome(() =>
        space.map(FIRST + action.at * PAGE + action.skew, address + action.from * PAGE, action.pages * PAGE),
      );
    case 'unmap': {
      const result = outcome(() => space.unmap(FIRST + action.at * PAGE, action.pages * PAGE));
      return result === 'EINVAL' || result === 'ENOENT' ? 'cut' : result;
    }
    case 'unmapAll':
      return space.unmapAll();
  }
}

/** What a plain list of mappings says of the step. */
class Model {
  private mapped = new Map<number, number>();

  step(action: Step): number | string {
    if (action.do === 'unmapAll') return this.drop([...this.mapped.keys()]);
    const start = FIRST + action.at * PAGE;
    const end = start + action.pages * PAGE;
    const hit = [...this.mapped].filter(([at, size]) => at < end && start < at + size);
    if (action.do === 'unmap') {
      return hit.some(([at, size]) => at < start || at + size > end) ? 'cut' : this.drop(hit.map(([at]) => at));
    }
    if (action.skew !== 0) return 'EINVAL';
    const reserved = start <= WINDOW.end && WINDOW.start < end;
    if (reserved) return hit.length > 0 ? 'EINVAL or EEXIST' : 'EINVAL';
    if (hit.length > 0) return 'EEXIST';
    this.mapped.set(start, action.pages * PAGE);
    return start;
  }

  /** The page of memory behind each page of IOVA is looked up by the caller; here it is whether there is one. */
  has(iova: number): boolean {
    return [...this.mapped].some(([at, size]) => at <= iova && iova < at + size);
  }

  private drop(starts: readonly number[]): number {
    return starts.reduce((sum, at) => {
      const size = this.mapped.get(at)!;
      this.mapped.delete(at);
      return sum + size;
    }, 0);
  }
}

function program(via: Via) {
  const host = testHost('arm-its');
  const { kernel, process } = host.process();
  const device = openDevice(kernel, DEVICE, { via });
  const memory = kernel.allocate(MEMORY * PAGE);
  if (typeof memory === 'number') throw new Error('no memory');
  const { domain } = host.pciDevices.find(({ name }) => name === DEVICE)!.iommuGroup!;
  return { device, process, address: memory.address, lookup: (iova: number) => domain.lookup(iova) };
}

describe('a container and an IOAS', () => {
  const ways = [program('container'), program('iommufd')] as const;

  it('map, refuse and unmap the same, for the same physical pages', () => {
    const property = fc.property(fc.array(step, { minLength: 1, maxLength: 24, size: 'max' }), (steps) => {
      const model = new Model();
      for (const { device } of ways) device.space.unmapAll();
      for (const action of steps) {
        const expected = model.step(action);
        for (const { device, address } of ways) {
          const actual = run(device.space, address, action);
          if (expected === 'EINVAL or EEXIST') expect(['EINVAL', 'EEXIST']).toContain(actual);
          else expect(actual).toBe(expected);
        }
      }
      for (let page = 0; page < PAGES + 8; page += 1) {
        const iova = FIRST + page * PAGE;
        if (iova >= WINDOW.start && iova <= WINDOW.end) continue;
        for (const { lookup } of ways) expect(lookup(iova) >= 0).toBe(model.has(iova));
      }
      for (const { device, process } of ways) {
        device.space.unmapAll();
        expect(process.lockedPages).toBe(0);
      }
    });
    fc.assert(property, { numRuns: 1000 });
  });
});
