/** Serves the system calls that stopped, one after the other, until the program has ended. */
import type { Host } from '../kernel/boot/boot.ts';
import { Epoll } from '../libc/epoll.ts';
import type { Libc } from '../libc/index.ts';
import { hasTimers, loopDescriptor } from '../libc/loop.ts';
import { PollSet } from '../libc/poll-set.ts';
import type { SeccompListener } from '../libc/seccomp.ts';
import type { Refusal } from '../ports/kernel.ts';
import { ERRNO } from '../uapi/errno.ts';
import { fileCalls } from './file-calls.ts';
import type { FdRange } from './filter.ts';
import { type Handler, PROCEED } from './handler.ts';
import { memoryCalls } from './memory-calls.ts';
import type { CallName, CallTable } from './numbers.ts';
import { pathCalls } from './path-calls.ts';
import { type Held, Session } from './session.ts';

/** Milliseconds without a call after which Node's loop gets a turn, and again as long as it has timers or threads are traced. */
const IDLE = 500;
/** epoll_wait takes an int. */
const LONGEST = 0x7fff_ffff;

/** What is waited for, in the order in which it is looked at: a call, files that were let go before it, everything else. */
const CALLS = 0;
const FILES = 1;
const OTHERS = 2;

/** Looks for the next stop before sleeping: some 20 µs. */
const LOOKS = 40;
/** Stops that are served before others get their turn. */
const MOST_STOPS = 64;

/** A call that the simulated host answered. */
export interface ServedCall {
  readonly process: number;
  readonly thread: number;
  /** The program's name. */
  readonly program: string;
  /** `VFIO_IOMMU_MAP_DMA`, `open(/dev/vfio/1)`, or the system call's name. */
  readonly name: string;
  /** Of `performance.now()`, in milliseconds. */
  readonly start: number;
  readonly milliseconds: number;
  /** Zero or positive, or -errno; null: the real kernel went on with it. */
  readonly result: number | null;
  readonly refusal: Refusal | null;
}

export interface SupervisorOptions {
  readonly table: CallTable;
  readonly range: FdRange;
  /** Answers IOMMU_TEST_CMD, as a kernel with CONFIG_IOMMUFD_TEST does. */
  readonly iommufdTest?: boolean;
  /** Called for each call that the simulated kernel refused. */
  readonly onRefusal?: (refusal: Refusal, process: string) => void;
  /** Called for each call that the simulated host answered, before the program goes on. */
  readonly onCall?: (call: ServedCall) => void;
  /** Called when a program has ended that had made calls; `left` is what others hold. */
  readonly onEnd?: (program: string, left: Held) => void;
  /** Called for what goes wrong here: the program's call fails with EIO. */
  readonly onError?: (error: unknown) => void;
}

export class Supervisor {
  readonly session: Session;
  private readonly libc: Libc;
  private readonly poll: PollSet;
  private readonly epoll: Epoll;
  private readonly options: SupervisorOptions;
  private readonly handlers: (Handler | undefined)[] = [];
  /** Of the system calls, by number. */
  private readonly names: (string | undefined)[] = [];
  private readonly waiting = new Map<number, () => void>();
  private listener: SeccompListener | null = null;
  private ended = false;
  /** Node's loop has something to do. */
  private turn = false;
  /** Node's loop had its turn and has no timer, and nothing has happened since: this thread sleeps until something does. */
  private quiet = false;
  private readonly seesLoop: boolean;
  private readonly started = performance.now();

  constructor(host: Host, libc: Libc, options: SupervisorOptions) {
    this.libc = libc;
    this.options = options;
    this.epoll = new Epoll(libc);
    const waiter = {
      wait: (fd: number, readable: () => void) => this.wait(fd, readable),
      stop: (fd: number) => this.stop(fd),
    };
    this.session = new Session(host, libc, options.range, waiter, options.iommufdTest);
    const { numbers } = options.table;
    const handlers = { ...pathCalls(this.session), ...fileCalls(this.session), ...memoryCalls(this.session) };
    for (const [name, handler] of Object.entries(handlers)) {
      const number = numbers[name as CallName];
      if (number === undefined) continue;
      this.handlers[number] = handler;
      this.names[number] = name;
    }
    const loop = loopDescriptor(libc);
    this.seesLoop = loop >= 0;
    if (loop >= 0) this.wait(loop, () => (this.turn = true));
    this.poll = new PollSet(libc, [-1, this.session.inotify.fd, this.epoll.fd]);
    this.session.onEnd = ({ comm }) => options.onEnd?.(comm, this.session.held);
    this.session.registers.onRefusal = (why, thread) => this.accessRefused(why, thread);
  }

  /** Takes the listener of a program, and watches for the end of process `pid` through `pidfd`. */
  attach(listener: SeccompListener, pidfd: number, pid: number): void {
    this.session.registers.tracer.program = pid;
    this.listener = listener;
    this.poll.set(CALLS, listener.fd);
    this.wait(pidfd, () => {
      this.stop(pidfd);
      this.ended = true;
    });
  }

  /** The listener came with a call that was received already. */
  serveInHand(): void {
    if (this.listener !== null) this.answer(this.listener, false);
  }

  /**
   * Serves until the program has ended. Waiting blocks this thread, which answers sooner than Node's loop would; the loop gets a turn after
   * each signal, once all is idle, and whenever something of its own is ready.
   */
  async run(): Promise<void> {
    const { tracer } = this.session.registers;
    while (!this.ended) {
      // After the loop's turn, which may have taken the signal of a stop, and before the next wait, which a later signal ends.
      const more = tracer.active && this.serveStops();
      const count = this.poll.wait(more ? 0 : this.timeout());
      this.advance();
      if (tracer.active && count <= 0) this.serveStops();
      this.turn = count <= 0;
      if (count > 0) this.dispatch();
      if (this.turn) await new Promise((resolve) => setImmediate(resolve));
      this.quiet = count === 0 && this.seesLoop && !tracer.active && !hasTimers();
    }
    this.finish();
  }

  /** Registers are read and written in rows: whoever has just been served is looked at for a while before this thread sleeps. True: there may be more. */
  private serveStops(): boolean {
    const { tracer } = this.session.registers;
    let stops = 0;
    for (let idle = 0; idle < LOOKS && stops < MOST_STOPS; idle += 1) {
      const count = tracer.serve();
      if (count === 0 && stops === 0) break;
      if (count === 0) continue;
      stops += count;
      idle = 0;
    }
    return stops >= MOST_STOPS || tracer.adopt();
  }

  private dispatch(): void {
    const { poll, listener, session } = this;
    if (poll.ready(OTHERS)) this.dispatchOthers();
    if (poll.ready(FILES) && session.files.collect() > 0) session.settle();
    // Every program of the filter is gone.
    if (poll.hungUp(CALLS)) poll.set(CALLS, -1);
    // A call that waited when the files were looked at comes after everything that was closed before it.
    else if (listener !== null && poll.ready(CALLS) && listener.receive() >= 0) this.answer(listener, listener.follows);
  }

  private dispatchOthers(): void {
    const { epoll } = this;
    const ready: number[] = [];
    for (let i = 0, count = epoll.wait(0); i < count; i += 1) ready.push(epoll.ready(i));
    for (const fd of ready) this.waiting.get(fd)?.();
  }

  private answer(listener: SeccompListener, swept: boolean): void {
    const { session } = this;
    const handler = this.handlers[listener.number];
    const start = this.options.onCall === undefined ? 0 : performance.now();
    let result = PROCEED;
    if (handler !== undefined) {
      const { refusals } = session.host.context;
      refusals.last = null;
      refusals.request = '';
      try {
        session.begin(listener, swept);
        result = handler(listener);
      } catch (error) {
        result = -ERRNO.EIO;
        this.options.onError?.(error);
      }
    }
    if (result < 0 && result !== PROCEED) this.refused(listener);
    // Before the program goes on: what its call set off has happened when it returns, each time alike.
    session.end();
    if (this.options.onCall !== undefined) this.served(listener, result, start, this.options.onCall);
    if (result === PROCEED) listener.proceed();
    else listener.respond(result);
  }

  private refused({ pid }: SeccompListener): void {
    const { session, options } = this;
    const { last } = session.host.context.refusals;
    if (last === null) return;
    session.counts.refused += 1;
    options.onRefusal?.(last, session.tracees.of(pid)?.comm ?? String(pid));
  }

  private served(
    { pid, number }: SeccompListener,
    result: number,
    start: number,
    tell: (call: ServedCall) => void,
  ): void {
    const { session } = this;
    const { request, last } = session.host.context.refusals;
    if (result === PROCEED && request === '') return;
    const process = session.tracees.of(pid);
    tell({
      process: process?.tgid ?? pid,
      thread: pid,
      program: process?.comm ?? String(pid),
      name: request === '' ? (this.names[number] ?? `call ${number}`) : request,
      start,
      milliseconds: performance.now() - start,
      result: result === PROCEED ? null : result,
      refusal: last,
    });
  }

  private accessRefused(why: string, thread: number): void {
    const { session, options } = this;
    session.counts.refused += 1;
    const refusal: Refusal = { errno: ERRNO.EFAULT, code: 'SIGBUS', request: 'access to a mapped BAR', why };
    options.onRefusal?.(refusal, session.tracees.of(thread)?.comm ?? String(thread));
  }

  /** The simulated clock follows the real one. */
  private advance(): void {
    const { clock } = this.session.host.machine;
    const now = Math.floor((performance.now() - this.started) * 1e6);
    if (now > clock.now()) clock.advance(now - clock.now());
    this.session.settle();
  }

  private timeout(): number {
    const { clock } = this.session.host.machine;
    if (clock.next === Infinity) return this.quiet ? -1 : IDLE;
    const due = Math.max(0, Math.ceil((clock.next - clock.now()) / 1e6));
    return Math.min(this.quiet ? LONGEST : IDLE, due);
  }

  private finish(): void {
    const { session } = this;
    session.registers.tracer.release();
    session.files.collect();
    session.tracees.endAll();
    session.files.releaseAll();
    session.settle();
    session.world.remove();
    session.inotify.close();
    if (this.listener !== null) this.libc.close(this.listener.fd);
    this.epoll.close();
  }

  private wait(fd: number, readable: () => void): void {
    this.waiting.set(fd, readable);
    this.epoll.add(fd);
  }

  private stop(fd: number): void {
    if (this.waiting.delete(fd)) this.epoll.remove(fd);
  }
}
