/** Random programs of SET_IRQS against a model of eight vectors: who has which eventfd, and what each call answers. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Rig } from './testing/rig.ts';

const VECTORS = 8;
const MSIX = 2;
const NONE_TRIGGER = 0x21;
const EVENTFD_TRIGGER = 0x24;
const BAD_FD = 9999;

/** An fd is the number of an eventfd (0 to 3), -1, or one that is not open. */
type Fd = 0 | 1 | 2 | 3 | -1 | typeof BAD_FD;
type Step =
  | { readonly do: 'set'; readonly start: number; readonly fds: readonly Fd[] }
  | { readonly do: 'disable' }
  | { readonly do: 'loopback'; readonly start: number; readonly count: number }
  | { readonly do: 'fire'; readonly vector: number }
  | { readonly do: 'limit'; readonly available: number };

const fd = fc.constantFrom<Fd>(0, 1, 2, 3, -1, 0, 1, BAD_FD);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('set' as const),
      start: fc.nat(VECTORS),
      fds: fc.array(fd, { maxLength: 4 }),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ do: 'disable' as const }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('loopback' as const), start: fc.nat(VECTORS), count: fc.nat(4) }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('fire' as const), vector: fc.nat(VECTORS - 1) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('limit' as const), available: fc.integer({ min: 1, max: VECTORS }) }),
  },
);

/** What vfio_main.c and vfio_pci_intrs.c say, for MSI-X without dynamic allocation. */
class Model {
  allocated = 0;
  available = VECTORS;
  /** Eventfd of each vector, or -1. */
  readonly fds: number[] = Array(VECTORS).fill(-1);
  readonly counts = [0, 0, 0, 0];

  set(start: number, fds: readonly Fd[]): string | number {
    if (start >= VECTORS || start + fds.length > VECTORS) return 'EINVAL';
    const enabling = this.allocated === 0;
    if (enabling) {
      const wanted = start + fds.length;
      if (wanted === 0) return 'ERANGE';
      if (wanted > this.available) return this.available;
      this.allocated = wanted;
    }
    for (const [i, wanted] of fds.entries()) {
      const vector = start + i;
      const known = this.fds[vector] !== -1;
      this.fds[vector] = -1;
      const error = wanted === -1 ? 0 : !known && vector >= this.allocated ? 'EINVAL' : wanted === BAD_FD ? 'EBADF' : 0;
      if (error === 0) {
        this.fds[vector] = wanted;
        continue;
      }
      this.fds.fill(-1, start, vector + 1);
      if (enabling) this.disable();
      return error;
    }
    return 0;
  }

  disable(): string | number {
    if (this.allocated === 0) return 'EINVAL';
    this.allocated = 0;
    this.fds.fill(-1);
    return 0;
  }

  loopback(start: number, count: number): string | number {
    if (start >= VECTORS || start + count > VECTORS) return 'EINVAL';
    if (count === 0) return this.disable();
    if (this.allocated === 0) return 'EINVAL';
    for (let vector = start; vector < start + count; vector += 1) this.fire(vector);
    return 0;
  }

  fire(vector: number): void {
    const at = this.fds[vector]!;
    if (at >= 0) this.counts[at]! += 1;
  }
}

describe('SET_IRQS, random programs', () => {
  it('answers as the model does, and interrupts reach the eventfd that was set last', () => {
    const rig = new Rig().open();
    const eventfds = Array.from({ length: 4 }, () => rig.eventfd());
    const real = (wanted: Fd): number => (wanted >= 0 && wanted < 4 ? eventfds[wanted]!.fd : wanted);
    const run = (model: Model, each: Step): void => {
      switch (each.do) {
        case 'set':
          expect(rig.setIrqs(EVENTFD_TRIGGER, MSIX, each.start, each.fds.map(real))).toBe(
            model.set(each.start, each.fds),
          );
          break;
        case 'disable':
          expect(rig.setIrqs(NONE_TRIGGER, MSIX, 0, 0)).toBe(model.disable());
          break;
        case 'loopback':
          expect(rig.setIrqs(NONE_TRIGGER, MSIX, each.start, each.count)).toBe(model.loopback(each.start, each.count));
          break;
        case 'fire':
          rig.irqs.fire(100 + each.vector);
          model.fire(each.vector);
          break;
        default:
          rig.irqs.available = each.available;
          model.available = each.available;
      }
      expect(rig.irqs.allocated).toBe(model.allocated);
      expect(rig.core.state.irqType).toBe(model.allocated === 0 ? 5 : MSIX);
    };
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        const model = new Model();
        rig.irqs.available = VECTORS;
        for (const each of steps) run(model, each);
        expect(eventfds.map(({ eventfd }) => eventfd.drain())).toEqual(model.counts);
        if (model.allocated > 0) rig.setIrqs(NONE_TRIGGER, MSIX, 0, 0);
        expect(rig.irqs.handlers.size).toBe(0);
        rig.irqs.calls.length = 0;
      }),
      { numRuns: 1500 },
    );
  });
});
