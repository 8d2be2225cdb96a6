import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Program, type Step } from './testing/doorbell-program.ts';

const number = fc.integer({ min: 0, max: 999 });
const step: fc.Arbitrary<Step> = fc.tuple(
  fc.integer({ min: 0, max: 11 }),
  fc.integer({ min: 0, max: 3 }),
  number,
  number,
  number,
);

describe('any program of set, clear, enable, disable, fd -1, map, unmap, attach, replace, detach, affinity, close', () => {
  it('a message always translates to its own doorbell; reservations never overlap; counts return to zero', () => {
    let moved = 0;
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 40, size: 'max' }), (steps) => {
        const program = new Program();
        for (const [at, each] of steps.entries()) {
          program.step(each);
          const faults = program.faults();
          if (faults.length > 0) throw new Error(`step ${at} ${JSON.stringify(each)}: ${faults.join('; ')}`);
          moved += program.devs.reduce((sum, dev) => sum + program.host.msi.vectors(dev).length, 0);
        }
        program.end();
        expect(program.faults()).toEqual([]);
        expect(program.leftovers).toBe(0);
      }),
      { numRuns: 1500, verbose: 1 },
    );
    expect(moved).toBeGreaterThan(2500);
  });
});
