/** The program's process before it is the program: it installs the filter on itself, hands its listener over, and waits to be let go. */
import { fileURLToPath } from 'node:url';
import type { Libc } from '../libc/index.ts';
import { setSoftLimit } from '../libc/limits.ts';
import { makePipe, type SpawnOrder, spawnProgram, type WaitStatus, waitForEnd } from '../libc/spawn.ts';
import { findProgram } from './find-program.ts';
import { stubImage } from './stub/image.ts';

/** Where it finds its pipes. */
const REPORT = 3;
const GO = 4;
const RLIMIT_NOFILE = 7;

export interface Launched {
  readonly pid: number;
  /** The next number that it tells (first the listener's descriptor or -errno, then the errno of exec); null: it has become the program, or is gone. Waits. */
  report(): number | null;
  /** Lets it exec, with the program's limit of descriptors. */
  go(): void;
  kill(signal: NodeJS.Signals): void;
  /** How it ended. Waits until it has. */
  end(): WaitStatus;
  close(): void;
}

export interface Order {
  /** struct sock_filter, 8 bytes each. */
  readonly filter: Uint8Array;
  /** The soft limit of descriptors that the program gets: Node raises its own. */
  readonly descriptorLimit: number;
  readonly argv: readonly string[];
  /** Through a second Node, as where no image can be executed. */
  readonly throughNode?: boolean;
}

/** @throws RangeError when no process can be made */
export function launch(libc: Libc, order: Order): Launched {
  const report = makePipe(libc);
  const go = makePipe(libc);
  if (typeof report === 'number' || typeof go === 'number') throw new RangeError('no descriptors for two pipes');
  const shared = {
    environment: Object.entries(process.env).map(([name, value]) => `${name}=${value}`),
    descriptors: [
      [0, 0],
      [1, 1],
      [2, 2],
      [report[1], REPORT],
      [go[0], GO],
    ] as const,
  };
  let pid = order.throughNode === true ? -1 : spawnImage(libc, order, shared);
  if (pid < 0) pid = spawnNode(libc, order, shared);
  libc.close(report[1]);
  libc.close(go[0]);
  if (pid < 0) throw new RangeError(`no process could be made: errno ${-pid}`);
  return new LaunchedProcess(libc, pid, order.descriptorLimit, report[0], go[1]);
}

type Shared = Pick<SpawnOrder, 'environment' | 'descriptors'>;

/** -errno where the architecture has no image, or files in memory may not be executed (the sysctl vm.memfd_noexec, a security module). */
function spawnImage(libc: Libc, { filter, argv }: Order, shared: Shared): number {
  const image = stubImage(process.arch, filter, findProgram(argv[0] ?? '', process.env['PATH']));
  if (image === null) return -1;
  const fd = libc.memfd('belfry', 0);
  if (fd < 0) return fd;
  const written = libc.pwrite(fd, image, 0);
  const path = `/proc/self/fd/${fd}`;
  const pid = written === image.length ? spawnProgram(libc, { path, argv, ...shared }) : -1;
  libc.close(fd);
  return pid;
}

function spawnNode(libc: Libc, { filter, argv }: Order, shared: Shared): number {
  const launcher = fileURLToPath(new URL('./launcher.js', import.meta.url));
  const text = Buffer.from(filter).toString('hex');
  const path = process.execPath;
  return spawnProgram(libc, { path, argv: [path, '--no-warnings', launcher, text, ...argv], ...shared });
}

class LaunchedProcess implements Launched {
  readonly pid: number;
  private readonly libc: Libc;
  private readonly descriptorLimit: number;
  private readonly reportFd: number;
  private readonly goFd: number;
  private readonly word = new Int32Array(new ArrayBuffer(128), 0, 1);
  private readonly bytes = new Uint8Array(this.word.buffer, 0, 4);
  private ended = false;

  constructor(libc: Libc, pid: number, descriptorLimit: number, reportFd: number, goFd: number) {
    this.libc = libc;
    this.pid = pid;
    this.descriptorLimit = descriptorLimit;
    this.reportFd = reportFd;
    this.goFd = goFd;
  }

  report(): number | null {
    return this.libc.read(this.reportFd, this.bytes) === 4 ? this.word[0]! : null;
  }

  go(): void {
    setSoftLimit(this.libc, this.pid, RLIMIT_NOFILE, this.descriptorLimit);
    this.libc.write(this.goFd, this.bytes.subarray(0, 1));
  }

  kill(signal: NodeJS.Signals): void {
    if (this.ended) return;
    try {
      process.kill(this.pid, signal);
    } catch {
      // It ended meanwhile.
    }
  }

  end(): WaitStatus {
    this.ended = true;
    return waitForEnd(this.libc, this.pid);
  }

  close(): void {
    this.libc.close(this.reportFd);
    this.libc.close(this.goFd);
  }
}
