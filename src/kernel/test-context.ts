/** A kernel context over a small machine of RAM alone, for the tests of this room. */
import { SystemBus } from '../machine/bus.ts';
import { RamMemory } from '../machine/memory.ts';
import { createTap } from '../machine/tap.ts';
import { JobQueue, SimClock } from '../machine/work.ts';
import { defaultModuleParameters, type KernelContext } from './context.ts';
import { RefusalLog } from './refusal.ts';

export interface TestContext extends KernelContext {
  readonly lines: string[];
}

export interface TestContextOptions {
  readonly pageSize?: number;
  readonly abi?: 'linux-7.2' | 'belfry';
  /** RAM of another context, to make many in a row without an array of 64 MiB for each. */
  readonly memory?: RamMemory;
}

export const testMemory = (): RamMemory => new RamMemory([{ base: 0x4000_0000, size: 0x2000_0000 }]);

export function testContext(options: TestContextOptions = {}): TestContext {
  const memory = options.memory ?? testMemory();
  const tap = createTap();
  const lines: string[] = [];
  return {
    abi: options.abi ?? 'linux-7.2',
    pageSize: options.pageSize ?? 4096,
    memory,
    bus: new SystemBus(memory),
    tap,
    work: new JobQueue(),
    clock: new SimClock(),
    refusals: new RefusalLog(),
    modules: defaultModuleParameters(),
    lines,
    log: (line) => lines.push(line),
  };
}
