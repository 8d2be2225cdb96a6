/** The kernel's log: the last lines, as dmesg keeps them. */

/** Lines that are kept; the oldest go first. */
const CAPACITY = 4096;

export class KernelLog {
  readonly lines: string[] = [];

  write(line: string): void {
    this.lines.push(line);
    if (this.lines.length > CAPACITY) this.lines.splice(0, CAPACITY / 2);
  }
}
