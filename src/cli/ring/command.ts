/** `belfry ring`: the run with the doorbell, and the same without it. */
import { VfioError } from '../../vfio/index.ts';
import { openTrace } from '../trace-file.ts';
import { version } from '../version.ts';
import { explain } from './explain.ts';
import { HopList } from './hop-list.ts';
import { type DoorbellOption, parseRingOptions, type RingOptions } from './options.ts';
import { Progress } from './progress.ts';
import type { Report } from './report.ts';
import { JsonReport } from './report-json.ts';
import { TextReport } from './report-text.ts';
import { lossesOf, RingSession, type Totals } from './session.ts';

/** Interrupts between two looks at the clock. */
const BATCH = 20_000;
/** Interrupts that a trace holds. */
const TRACED = 10_000;

/** The exit status: 0 when everything sent was delivered, 1 when something was not. */
export function ring(args: readonly string[]): number {
  const options = parseRingOptions(args);
  const write = (text: string): void => void process.stdout.write(text);
  const report: Report = options.json ? new JsonReport(write) : new TextReport(write, version());
  const status = mainRun(options, report);
  if (options.doorbell.policy !== 'none') withoutDoorbell(options, report);
  report.end();
  return status;
}

function mainRun(options: RingOptions, report: Report): number {
  const session = setUp(options, report);
  const trace = options.trace === null ? null : openTrace(options.trace, () => session.host.machine.clock.now());
  report.setUp(session);
  const count = options.count ?? session.granted;
  const hops = new HopList();
  const { tap } = session.host.machine;
  tap.observer = trace === null ? hops : trace.with(hops);
  session.send(1);
  report.firstInterrupt(session, hops);
  let sent = 1;
  if (trace !== null) {
    tap.observer = trace.alone;
    const traced = Math.min(count, TRACED) - sent;
    session.send(traced);
    sent += traced;
    trace.end();
  }
  tap.observer = null;
  const seconds = sendRest(session, count - sent, sent, count, options);
  const totals = session.totals();
  report.totals(session, totals, { sent: count - sent, seconds });
  session.close();
  return statusOf(options, totals);
}

/** @throws VfioError of a refused request, which with --explain is explained first */
function setUp(options: RingOptions, report: Report): RingSession {
  try {
    const session = new RingSession(options, options.doorbell);
    const refusals = session.assignment.device.refusals;
    if (options.explain) for (const refusal of refusals) report.refused(explain(refusal, options));
    return session;
  } catch (error) {
    if (options.explain && error instanceof VfioError) report.refused(explain(error, options));
    throw error;
  }
}

/** The timed part: in batches, so that a progress bar can be drawn between them. */
function sendRest(session: RingSession, rest: number, done: number, count: number, options: RingOptions): number {
  const progress = options.json ? null : Progress.on(process.stderr, count);
  const started = process.hrtime.bigint();
  for (let left = rest, sent = done; left > 0; ) {
    const batch = Math.min(left, BATCH);
    session.send(batch);
    left -= batch;
    sent += batch;
    progress?.show(sent);
  }
  const seconds = Number(process.hrtime.bigint() - started) / 1e9;
  progress?.clear();
  return seconds;
}

/** One interrupt of each vector on a kernel that programs the physical address and maps nothing. */
function withoutDoorbell(options: RingOptions, report: Report): void {
  const none: DoorbellOption = { policy: 'none' };
  const session = new RingSession({ ...options, doorbell: none, acknowledge: true }, none);
  const hops = new HopList();
  const { tap } = session.host.machine;
  tap.observer = hops;
  session.send(1);
  tap.observer = null;
  session.send(session.granted - 1);
  report.without(session, hops, session.totals());
  session.close();
}

function statusOf(options: RingOptions, totals: Totals): number {
  if (lossesOf(totals) > 0 || totals.outOfOrder > 0) return 1;
  const accounted = totals.delivered + totals.coalesced + totals.pending;
  if (accounted !== totals.sent) return 1;
  return options.acknowledge && totals.delivered !== totals.sent ? 1 : 0;
}
