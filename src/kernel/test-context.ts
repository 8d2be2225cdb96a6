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

export function testContext(
  options: { pageSize?: number; abi?: 'linux-7.2' | 'belfry'; memory?: number } = {},
): TestContext {
  const memory = new RamMemory([{ base: 0x4000_0000, size: options.memory ?? 0x2000_0000 }]);
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
