/**
 * Random programs on a whole host (map, unmap, attach, enable, mask, fire, doorbells set, moved and cleared while vectors are armed,
 * reset, close, open again, kill): at every step each interrupt that was sent is accounted for, no message reaches what is not its own,
 * DMA goes where the owner mapped it and nowhere else; and in the end nothing is left.
 *
 * BELFRY_PROGRAMS=20 runs twenty times as many.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PresetName } from '../src/machine/presets.ts';
import { DriverOwner } from './support/driver-owner.ts';
import { GuestOwner, IommufdGuestOwner } from './support/guest-owner.ts';
import { type Owner, type Step, World } from './support/world.ts';

const PROGRAMS = Number(process.env['BELFRY_PROGRAMS'] ?? 1);

/** Without fast-check's liking for the ends of a range: every operation is as likely as it is listed. */
const number = fc.noBias(fc.integer({ min: 0, max: 999 }));
const program = (): fc.Arbitrary<{ steps: Step[]; armed: boolean; observed: boolean; killed: boolean }> =>
  fc.record({
    steps: fc.array(fc.tuple(number, fc.integer({ min: 0, max: 1 }), number, number), {
      minLength: 10,
      maxLength: 50,
      size: 'max',
    }),
    armed: fc.boolean(),
    observed: fc.boolean(),
    killed: fc.boolean(),
  });

/** Hosts are used again for as long as all goes well. */
class Worlds {
  private idle: World | null = null;
  private readonly name: PresetName;

  constructor(name: PresetName) {
    this.name = name;
  }

  with(run: (world: World) => void): World {
    const world = this.idle ?? this.fresh();
    this.idle = null;
    run(world);
    this.idle = world;
    return world;
  }

  /** What a first program leaves for good (tables of the ITS, the kernel's window of the host's own domains) is there before it. */
  private fresh(): World {
    const world = new World(this.name);
    world.checkNothingLeft();
    world.checkNothingLeft();
    return world;
  }
}

function run(world: World, owner: Owner, steps: readonly Step[], observed: boolean, killed: boolean): void {
  world.observe(observed);
  for (const [at, step] of steps.entries()) {
    try {
      owner.step(step);
      world.checkLedger();
      world.checkMessages();
    } catch (error) {
      throw new Error(`step ${at} ${JSON.stringify(step)}: ${(error as Error).stack}`);
    }
  }
  if (killed) owner.kill();
  else owner.close();
  world.settle();
  world.checkLedger();
  world.checkNothingLeft();
}

const OWNERS = { driver: DriverOwner, guest: GuestOwner, 'guest on iommufd': IommufdGuestOwner } as const;

describe('sent = delivered + coalesced + pending + lost, at every step of any program', () => {
  it.each([
    ['driver', 'arm-its', 500],
    ['driver', 'arm-v2m', 100],
    ['driver', 'x86', 200],
    ['guest', 'arm-its', 150],
    ['guest', 'arm-v2m', 40],
    ['guest', 'x86', 60],
    ['guest on iommufd', 'arm-its', 100],
    ['guest on iommufd', 'arm-v2m', 20],
    ['guest on iommufd', 'x86', 20],
  ] as const)('a %s on %s: %i programs', (kind, name, programs) => {
    const worlds = new Worlds(name);
    const total = { sent: 0, delivered: 0 };
    fc.assert(
      fc.property(program(), ({ steps, armed, observed, killed }) => {
        const { counts } = worlds.with((world) => run(world, new OWNERS[kind](world, armed), steps, observed, killed));
        total.sent = counts.sent;
        total.delivered = counts.delivered;
      }),
      { numRuns: programs * PROGRAMS, verbose: 1 },
    );
    // The programs are long enough to be about something; how many interrupts a random program sends varies widely.
    expect(total.sent).toBeGreaterThan((programs * PROGRAMS) / 5);
    expect(total.delivered).toBeGreaterThan((programs * PROGRAMS) / 5);
  });
});
