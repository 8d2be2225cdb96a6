/** The program's process before it is the program: it installs the filter on itself, hands its listener over, and waits to be let go. */
import { fileURLToPath } from 'node:url';
import type { Libc } from '../libc/index.ts';
import { makePipe, spawnProgram, type WaitStatus, waitForEnd } from '../libc/spawn.ts';

/** Where the launcher finds its pipes. */
const REPORT = 3;
const GO = 4;

export interface Launched {
  readonly pid: number;
  /** The next number that it tells (first the listener's descriptor or -errno, then the errno of exec); null: it has become the program, or is gone. Waits. */
  report(): number | null;
  /** Lets it exec. */
  go(): void;
  kill(signal: NodeJS.Signals): void;
  /** How it ended. Waits until it has. */
  end(): WaitStatus;
  close(): void;
}

/** @throws RangeError when no process can be made */
export function launch(libc: Libc, args: readonly string[]): Launched {
  const report = makePipe(libc);
  const go = makePipe(libc);
  if (typeof report === 'number' || typeof go === 'number') throw new RangeError('no descriptors for two pipes');
  const launcher = fileURLToPath(new URL('./launcher.js', import.meta.url));
  const pid = spawnProgram(libc, {
    path: process.execPath,
    argv: [process.execPath, '--no-warnings', launcher, ...args],
    environment: Object.entries(process.env).map(([name, value]) => `${name}=${value}`),
    descriptors: [
      [0, 0],
      [1, 1],
      [2, 2],
      [report[1], REPORT],
      [go[0], GO],
    ],
  });
  libc.close(report[1]);
  libc.close(go[0]);
  if (pid < 0) throw new RangeError(`no process could be made: errno ${-pid}`);
  return new LaunchedProcess(libc, pid, report[0], go[1]);
}

class LaunchedProcess implements Launched {
  readonly pid: number;
  private readonly libc: Libc;
  private readonly reportFd: number;
  private readonly goFd: number;
  private readonly word = new Int32Array(new ArrayBuffer(128), 0, 1);
  private readonly bytes = new Uint8Array(this.word.buffer, 0, 4);
  private ended = false;

  constructor(libc: Libc, pid: number, reportFd: number, goFd: number) {
    this.libc = libc;
    this.pid = pid;
    this.reportFd = reportFd;
    this.goFd = goFd;
  }

  report(): number | null {
    return this.libc.read(this.reportFd, this.bytes) === 4 ? this.word[0]! : null;
  }

  go(): void {
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
