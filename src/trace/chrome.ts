/** A trace for a timeline: Chrome's trace event format (JSON array), which ui.perfetto.dev and chrome://tracing open. */
import type { Hop, HopObserver } from '../ports/tap.ts';
import { hopText } from './hop-text.ts';
import { hopObject } from './jsonl.ts';

export interface ChromeTraceOptions {
  /** The caller's clock, in nanoseconds. */
  readonly now: () => number;
  /** Nanoseconds that each hop is drawn long; hops that the clock cannot tell apart stand this far from each other. */
  readonly spacing?: number;
}

/** What a program did, on a track of its own. Times are the caller's clock's, in nanoseconds. */
export interface ChromeSlice {
  readonly process: number;
  readonly program: string;
  readonly thread: number;
  readonly name: string;
  readonly category: string;
  readonly start: number;
  readonly duration: number;
  readonly args: Readonly<Record<string, unknown>>;
}

/** One thread each, from top to bottom in the order of an interrupt's way. */
const THREADS: readonly Hop['at'][] = [
  'device',
  'iommu',
  'controller',
  'irq',
  'eventfd',
  'irqfd',
  'guest-controller',
  'guest-cpu',
  'lost',
];
/** Guest interrupts that wait to be acknowledged, of which the trace remembers the flow; older ones lose their last arrow. */
const MOST_WAITING = 4096;
/** Programs whose names are remembered; beyond them a name is written again. */
const MOST_PROGRAMS = 4096;
const PID = 1;

/**
 * Each hop is a slice on the thread of its room, and arrows join the hops of one interrupt, to the guest CPU's acknowledge.
 * Everything is written at once; what is kept does not grow with the trace.
 *
 * @example
 * const trace = new ChromeTrace((text) => file.write(text), { now: () => clock.now() });
 * tap.observer = trace;
 * // …
 * trace.end();
 */
export class ChromeTrace implements HopObserver {
  readonly #write: (text: string) => void;
  readonly #now: () => number;
  readonly #spacing: number;
  readonly #waiting = new Map<number, number>();
  readonly #programs = new Map<number, string>();
  #flow = 0;
  #arrowOpen = false;
  #free = Number.NEGATIVE_INFINITY;
  #ended = false;

  constructor(write: (text: string) => void, options: ChromeTraceOptions) {
    this.#write = write;
    this.#now = options.now;
    this.#spacing = options.spacing ?? 100;
    const name = { name: 'process_name', ph: 'M', pid: PID, args: { name: 'belfry' } };
    this.#write(`[\n${JSON.stringify(name)}`);
    for (const [i, at] of THREADS.entries()) {
      this.#event({ name: 'thread_name', ph: 'M', pid: PID, tid: i + 1, args: { name: at } });
      this.#event({ name: 'thread_sort_index', ph: 'M', pid: PID, tid: i + 1, args: { sort_index: i + 1 } });
    }
  }

  hop(hop: Hop): void {
    if (this.#ended) return;
    const nanoseconds = Math.max(this.#now(), this.#free);
    this.#free = nanoseconds + this.#spacing;
    const where = { pid: PID, tid: THREADS.indexOf(hop.at) + 1, ts: nanoseconds / 1000 };
    const { who, what, end } = hopText(hop);
    const args = { ...hopObject(hop), summary: `${what} ${end}` };
    this.#event({ name: `${who} ${end}`, cat: hop.at, ph: 'X', ...where, dur: this.#spacing / 1000, args });
    this.#arrow(hop, where);
  }

  /** Programs stand below the simulated host, each with its name. */
  slice({ process, program, thread, name, category, start, duration, args }: ChromeSlice): void {
    if (this.#ended) return;
    if (this.#programs.get(process) !== program) {
      if (this.#programs.size >= MOST_PROGRAMS) this.#programs.clear();
      this.#programs.set(process, program);
      this.#event({ name: 'process_name', ph: 'M', pid: process, args: { name: program } });
    }
    const where = { pid: process, tid: thread, ts: start / 1000, dur: duration / 1000 };
    this.#event({ name, cat: category, ph: 'X', ...where, args });
  }

  /** Ends the array. Readers also take a file that stops without it. Later hops are dropped. */
  end(): void {
    if (!this.#ended) this.#write('\n]\n');
    this.#ended = true;
  }

  #arrow(hop: Hop, where: object): void {
    if (hop.at === 'device') {
      this.#flow++;
      this.#arrowOpen = true;
      this.#event({ name: 'interrupt', cat: 'flow', ph: 's', id: this.#flow, ...where });
      return;
    }
    const flow = hop.at === 'guest-cpu' ? this.#takeWaiting(hop) : this.#arrowOpen ? this.#flow : null;
    if (flow === null) return;
    const last = hop.at === 'lost' || hop.at === 'guest-cpu';
    this.#event({
      name: 'interrupt',
      cat: 'flow',
      ph: last ? 'f' : 't',
      ...(last ? { bp: 'e' } : {}),
      id: flow,
      ...where,
    });
    if (hop.at === 'lost') this.#arrowOpen = false;
    if (hop.at === 'guest-controller') this.#wait(hop.intid, flow);
  }

  #takeWaiting(hop: Hop & { readonly at: 'guest-cpu' }): number | null {
    const flow = hop.action === 'acknowledge' ? this.#waiting.get(hop.intid) : undefined;
    if (flow === undefined) return null;
    this.#waiting.delete(hop.intid);
    return flow;
  }

  #wait(intid: number, flow: number): void {
    this.#waiting.delete(intid);
    this.#waiting.set(intid, flow);
    if (this.#waiting.size <= MOST_WAITING) return;
    for (const oldest of this.#waiting.keys()) {
      this.#waiting.delete(oldest);
      return;
    }
  }

  #event(event: object): void {
    this.#write(`,\n${JSON.stringify(event)}`);
  }
}
