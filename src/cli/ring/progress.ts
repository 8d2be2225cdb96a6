/** A bar on a terminal for runs that take longer than a moment. */
import type { WriteStream } from 'node:tty';

const WIDTH = 32;
/** Nanoseconds before the bar appears, and between two of its states. */
const PATIENCE = 500_000_000n;
const STEP = 100_000_000n;

export class Progress {
  private readonly stream: WriteStream;
  private readonly total: number;
  private readonly started = process.hrtime.bigint();
  private drawn = 0n;

  private constructor(stream: WriteStream, total: number) {
    this.stream = stream;
    this.total = total;
  }

  /** null when the stream is no terminal. */
  static on(stream: WriteStream, total: number): Progress | null {
    return stream.isTTY ? new Progress(stream, total) : null;
  }

  show(done: number): void {
    const now = process.hrtime.bigint();
    if (now - this.started < PATIENCE || now - this.drawn < STEP) return;
    this.drawn = now;
    const part = done / this.total;
    const full = Math.floor(part * WIDTH);
    const rate = done / (Number(now - this.started) / 1e9);
    const left = Math.ceil((this.total - done) / rate);
    const bar = '█'.repeat(full) + '░'.repeat(WIDTH - full);
    this.stream.write(
      `\r  ${bar} ${(part * 100).toFixed(0).padStart(3)} %  ${done.toLocaleString('en')} interrupts, ${left} s left \x1b[K`,
    );
  }

  clear(): void {
    if (this.drawn !== 0n) this.stream.write('\r\x1b[K');
  }
}
