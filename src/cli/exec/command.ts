/** `belfry exec`: an unmodified program on a simulated host. */
import {
  endBySignal,
  Losses,
  type LostInterrupts,
  ProgramNotStarted,
  type RunResult,
  runProgram,
  type ServedCall,
  signalName,
} from '../../exec/index.ts';
import type { Host } from '../../kernel/boot/boot.ts';
import type { PresetName } from '../../machine/presets.ts';
import type { Refusal } from '../../ports/kernel.ts';
import { Count, LEDGER_SIZE, lossName } from '../../ports/ledger.ts';
import type { ChromeSlice } from '../../trace/index.ts';
import { openTrace } from '../trace-file.ts';
import { type ExecOptions, parseExecOptions } from './options.ts';
import { tell } from './tell.ts';

/** The program's own exit status; when a signal ended it, belfry ends by the same signal. */
export async function exec(args: readonly string[]): Promise<number> {
  const options = parseExecOptions(args);
  try {
    const { status, signal } = await run(options);
    return signal === null ? (status ?? 1) : await endBySignal(signal);
  } catch (error) {
    if (!(error instanceof ProgramNotStarted)) throw error;
    tell(`belfry: ${error.message}\n`);
    return error.status;
  }
}

/** Until everything is told, and the trace is written. */
async function run(options: ExecOptions): Promise<RunResult> {
  const losses = new Losses(options.doorbell !== 'none');
  const trace = options.trace === null ? null : openTrace(options.trace, nanoseconds, traceLost);
  let host: Host | null = null;
  const boot = async (): Promise<Host> => {
    const { bootHost } = await import('./setup.ts');
    host = await bootHost(options, losses.watch);
    const { tap } = host.machine;
    losses.tap = tap;
    if (trace !== null) tap.observer = trace.alone;
    return host;
  };
  const tellLosses = (): void => {
    for (const lost of losses.take()) if (!options.quiet || options.explain) tell(lossText(options, lost));
  };
  try {
    const result = await runProgram(boot, options.argv, {
      iommufdTest: options.iommufdTest,
      // A preset with its own devices boots; what a user wrote is checked before the program starts.
      bootWhenTouched: PRESETS.has(options.host) && options.devices.length === 0,
      onRefusal: (refusal, program) => options.explain && tell(explanation(options, refusal, program)),
      onError: (error) => tell(`belfry: a call of the program failed with EIO: ${reasonOf(error)}\n`),
      onEnd: tellLosses,
      ...(trace === null ? {} : { onCall: (call: ServedCall) => trace.slice(sliceOf(call)) }),
    });
    tellLosses();
    if (!options.quiet) tell(summary(options, host, result));
    return result;
  } finally {
    trace?.end();
  }
}

/** What machine/presets.ts has: named here, so that a program which touches no device need not load it. */
const PRESETS: ReadonlySet<string> = new Set<PresetName>(['arm-its', 'arm-v2m', 'x86']);

function explanation(options: ExecOptions, { request, code, why, field, hint }: Refusal, program: string): string {
  if (options.json) return `${JSON.stringify({ kind: 'refusal', program, request, code, field, why, hint })}\n`;
  const advice = hint === undefined ? '' : `; ${hint}`;
  return `belfry: ${program}: ${request}: ${code}: ${why}${advice}\n`;
}

/** What this machine lacks is said in a sentence; anything else is a defect, and where it is helps. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.name === 'ProblemError' ? error.message : (error.stack ?? error.message);
}

/** Where interrupts were lost, for who waited for them. */
function lossText({ json }: ExecOptions, lost: LostInterrupts): string {
  if (json) return `${JSON.stringify({ kind: 'lost', ...lost })}\n`;
  const { count, loss, device, how, vector, address, where, why, hint } = lost;
  const names = { msi: `MSI vector ${vector}`, msix: `MSI-X vector ${vector}`, intx: 'INTx' };
  const which = how === null ? (vector === null ? null : `vector ${vector}`) : names[how];
  const way = [device, which, address === null ? null : `to ${address}`];
  const from = way.filter((part) => part !== null).join(' ');
  const parts = [
    `belfry: lost: ${count} interrupt${count === 1 ? '' : 's'}${from === '' ? '' : ` of ${from}`}`,
    `${loss}${where === null || where === device ? '' : ` at ${where}`}`,
    why,
  ];
  return `${parts.join(': ')}${hint === null ? '' : `; ${hint}`}\n`;
}

/** The program is not to suffer from it. */
const traceLost = ({ message }: Error): void => tell(`belfry: ${message}; the trace ends there\n`);

/** The clock of a trace, in which calls and hops stand side by side. */
const nanoseconds = (): number => performance.now() * 1e6;

function sliceOf({ process, thread, program, name, start, milliseconds, result, refusal }: ServedCall): ChromeSlice {
  const answer = result === null ? { result: 'done by the real kernel' } : { result };
  const why =
    refusal === null ? {} : { code: refusal.code, why: refusal.why, field: refusal.field, hint: refusal.hint };
  const args = { ...answer, ...why };
  const category = refusal === null ? 'request' : 'refused';
  return { process, program, thread, name, category, start: start * 1e6, duration: milliseconds * 1e6, args };
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
    const signalled = signal === null ? null : signalName(signal);
    return `${JSON.stringify({ kind: 'summary', host: name, nodes, ...counts, interrupts, status, signal: signalled })}\n`;
  }
  const parts = [
    `${name}: ${nodes.length === 0 ? 'no device node opened' : nodes.join(' ')}`,
    `${counts.ioctls} requests, ${counts.refused} refused${counts.refused > 0 && !options.explain ? ' (--explain says why)' : ''}`,
    `${delivered} of ${sent} interrupts delivered`,
    ...Object.entries(lost).map(([where, count]) => `${count} lost: ${where}`),
  ];
  return `belfry: ${parts.join('; ')}\n`;
}
