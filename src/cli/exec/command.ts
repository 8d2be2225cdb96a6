/** `belfry exec`: an unmodified program on a simulated host. */
import { constants } from 'node:os';
import { ProgramNotStarted, type RunResult, runProgram } from '../../exec/index.ts';
import type { Host } from '../../kernel/boot/boot.ts';
import type { PresetName } from '../../machine/presets.ts';
import type { Refusal } from '../../ports/kernel.ts';
import { Count, LEDGER_SIZE, lossName } from '../../ports/ledger.ts';
import { type ExecOptions, parseExecOptions } from './options.ts';

/** The program's own exit status; when a signal ended it, belfry ends by the same signal. */
export async function exec(args: readonly string[]): Promise<number> {
  const options = parseExecOptions(args);
  let host: Host | null = null;
  const boot = async (): Promise<Host> => {
    const { bootHost } = await import('./setup.ts');
    host = await bootHost(options);
    return host;
  };
  try {
    const result = await runProgram(boot, options.argv, {
      iommufdTest: options.iommufdTest,
      // A preset with its own devices boots; what a user wrote is checked before the program starts.
      bootWhenTouched: PRESETS.has(options.host) && options.devices.length === 0,
      onRefusal: (refusal, program) => options.explain && tell(explanation(options, refusal, program)),
      onError: (error) =>
        tell(`belfry: a call of the program failed with EIO: ${error instanceof Error ? error.stack : error}\n`),
    });
    if (!options.quiet) tell(summary(options, host, result));
    return statusOf(result);
  } catch (error) {
    if (!(error instanceof ProgramNotStarted)) throw error;
    tell(`belfry: ${error.message}\n`);
    return error.status;
  }
}

/** What machine/presets.ts has: named here, so that a program which touches no device need not load it. */
const PRESETS: ReadonlySet<string> = new Set<PresetName>(['arm-its', 'arm-v2m', 'x86']);

const tell = (text: string): void => void process.stderr.write(text);

function explanation(options: ExecOptions, { request, code, why, field, hint }: Refusal, program: string): string {
  if (options.json) return `${JSON.stringify({ kind: 'refusal', program, request, code, field, why, hint })}\n`;
  const advice = hint === undefined ? '' : `; ${hint}`;
  return `belfry: ${program}: ${request}: ${code}: ${why}${advice}\n`;
}

function summary(options: ExecOptions, host: Host | null, { counts, nodes, status, signal }: RunResult): string {
  const ledger = host?.machine.tap.ledger ?? [];
  const name = host?.machine.spec.name ?? options.host;
  const sent = ledger[Count.SENT] ?? 0;
  const delivered = ledger[Count.DELIVERED] ?? 0;
  const lost: Record<string, number> = {};
  for (let slot: number = Count.LOST; slot < LEDGER_SIZE; slot += 1) {
    if ((ledger[slot] ?? 0) > 0) lost[lossName(slot - Count.LOST)] = ledger[slot] ?? 0;
  }
  if (options.json) {
    const interrupts = { sent, delivered, lost };
    return `${JSON.stringify({ kind: 'summary', host: name, nodes, ...counts, interrupts, status, signal })}\n`;
  }
  const parts = [
    `${name}: ${nodes.length === 0 ? 'no device node opened' : nodes.join(' ')}`,
    `${counts.ioctls} requests, ${counts.refused} refused${counts.refused > 0 && !options.explain ? ' (--explain says why)' : ''}`,
    `${delivered} of ${sent} interrupts delivered`,
    ...Object.entries(lost).map(([where, count]) => `${count} lost: ${where}`),
  ];
  return `belfry: ${parts.join('; ')}\n`;
}

/** As a shell would say it, where this process cannot end by the same signal. */
function statusOf({ status, signal }: RunResult): number {
  if (signal === null) return status ?? 1;
  process.kill(process.pid, signal);
  return 128 + (constants.signals[signal] ?? 0);
}
