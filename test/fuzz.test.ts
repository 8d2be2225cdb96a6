/** The random programs of `npm run fuzz`, without Linux: they are plain data, they answer the same each time, and a difference shrinks to what makes it. */
import { describe, expect, it } from 'vitest';

interface Call {
  readonly op: string;
  readonly fd?: string;
  readonly request?: string;
}
type Program = readonly Call[];
type Answers = readonly (string | null)[];
interface Batch {
  readonly batch: readonly { program: Program; answers: Answers }[];
  readonly calls: number;
}
interface Small {
  readonly program: Program;
  readonly sim: Answers;
  readonly linux: Answers;
}
type Run = (programs: readonly Program[]) => Promise<readonly { sim: Answers; linux: Answers }[]>;

const load = (name: string): Promise<unknown> => import(new URL(`../conformance/${name}.mjs`, import.meta.url).href);
const { generate } = (await load('fuzz/generate')) as {
  generate: (platform: unknown, options: { seed: number; calls: number; most: number }) => Program[];
};
const { simulate } = (await load('fuzz/simulate')) as { simulate: (name: string, programs: Program[]) => Batch };
const { shrink } = (await load('fuzz/shrink')) as { shrink: (program: Program, run: Run) => Promise<Small | null> };
const { PLATFORMS } = (await load('platforms')) as { PLATFORMS: Record<string, unknown> };
interface StepsOf {
  readonly steps: readonly unknown[];
  end: () => void;
}
const { Subject } = (await load('subject')) as { Subject: new (kernel: unknown, platform: unknown) => StepsOf };
const { hostLike } = (await load('sim')) as { hostLike: (name: string) => { process: () => { kernel: unknown } } };
const { replayed } = (await load('replay')) as {
  replayed: (t: StepsOf) => (program: Program, answers: Answers) => void;
};
const { KNOWN } = (await load('fuzz/known')) as {
  KNOWN: readonly { why: string; source: string; kernels: string[] }[];
};

const programsOf = (name: string, calls = 600): Program[] =>
  generate(PLATFORMS[name], { seed: 20261122, calls, most: 60 });

describe('random programs', () => {
  it.each(Object.keys(PLATFORMS))('are plain data, and answer the same each time on a host like %s', (name) => {
    const programs = programsOf(name);
    const copy = JSON.parse(JSON.stringify(programs)) as Program[];
    expect(copy).toEqual(programs);
    const first = simulate(name, programs);
    expect(simulate(name, copy)).toEqual(first);
    expect(first.calls).toBeGreaterThan(400);
  });

  it('get somewhere: of all calls that are made a third succeed, and each request does on one machine or another', () => {
    const requests = new Map<string, number>();
    let [made, succeeded] = [0, 0];
    for (const name of ['arm64-nesting', 'x86']) {
      for (const { program, answers } of simulate(name, programsOf(name, 8000)).batch) {
        for (const [i, answer] of answers.entries()) {
          if (answer === null) continue;
          const well = !/^E[A-Z]/.test(answer);
          const { op, request = op } = program[i]!;
          made += 1;
          succeeded += well ? 1 : 0;
          requests.set(request, (requests.get(request) ?? 0) + (well ? 1 : 0));
        }
      }
    }
    expect(succeeded).toBeGreaterThan(made / 3);
    const never = [...requests].filter(([, count]) => count === 0).map(([request]) => request);
    // No function here can do these, or nobody knows them: only what refuses them is compared.
    const refused =
      /^(0x|VFIO_DEVICE_(PCI_HOT|GET_PCI_HOT|QUERY_GFX|GET_GFX)|VFIO_IOMMU_(EN|DIS)ABLE|IOMMU_HW_QUEUE|IOMMU_HWPT_(GET|SET)_DIRTY)/;
    expect(never.filter((request) => !refused.test(request))).toEqual([]);
  });

  it('leave nothing open', () => {
    const { batch } = simulate('arm64-its', [
      ...programsOf('arm64-its', 300),
      [{ op: 'open', as: 'g', path: 'group edu' } as Call],
    ]);
    expect(batch.at(-1)!.answers).toEqual(['fd']);
  });
});

describe('a difference', () => {
  /** A Linux that answers otherwise to the second RESET of a device whose MSI was set up, and only to that. */
  const run: Run = async (programs) =>
    programs.map((program) => {
      const sim = program.map(() => '0');
      const setUp = program.findIndex(({ op }) => op === 'set up');
      const resets = program.flatMap(({ op }, i) => (op === 'reset' && i > setUp ? [i] : []));
      const second = setUp < 0 ? undefined : resets[1];
      return { sim, linux: sim.map((answer, i) => (i === second ? 'EIO' : answer)) };
    });
  const noise = (count: number): Call[] => Array.from({ length: count }, (_, i) => ({ op: `other ${i}` }));

  it('is shrunk to the calls that make it', async () => {
    const program = [
      ...noise(40),
      { op: 'set up' },
      ...noise(25),
      { op: 'reset' },
      ...noise(9),
      { op: 'reset' },
      ...noise(30),
    ];
    const small = await shrink(program, run);
    expect(small?.program.map(({ op }) => op)).toEqual(['set up', 'reset', 'reset']);
    expect(small?.linux).toEqual(['0', '0', 'EIO']);
  });

  it('that the program alone does not make is none', async () => {
    expect(await shrink(noise(10), run)).toBeNull();
  });

  it('becomes a case: each call is a step, with what Linux answered expected of it', () => {
    const program = [
      { op: 'open', as: 'c0', path: 'container' },
      { op: 'ioctl', fd: 'c0', request: 'VFIO_GET_API_VERSION' },
    ] as Call[];
    const subject = new Subject(hostLike('arm64-its').process().kernel, PLATFORMS['arm64-its']);
    replayed(subject)(program, ['fd', 'EIO']);
    subject.end();
    expect(subject.steps).toEqual([
      { what: '0: open', expected: 'fd', got: 'fd' },
      { what: '1: VFIO_GET_API_VERSION', expected: 'EIO', got: '0' },
    ]);
  });

  it('that is known has a reason and a source', () => {
    expect(KNOWN.filter(({ why, source, kernels }) => why === '' || source === '' || kernels.length === 0)).toEqual([]);
  });
});
