/**
 * What the ITS and the redistributors remember of (device, event): direct mapped, four int32 a line. A disabled LPI is remembered
 * too: its property byte counts again only after an INV, as the architecture lets a cache behave.
 */
const LINES = 8192;
const SHIFT = 32 - 13;

/** The word at which the line of (device, event) begins. Events of a device take consecutive lines. */
export function lineAt(device: number, event: number): number {
  return (((Math.imul(device, 0x9e3779b1) >>> SHIFT) + event) & (LINES - 1)) << 2;
}

export class ItsCache {
  /** Device, event, LPI, state: CPU + 1 when the LPI can be delivered, -(CPU + 1) when it is disabled, 0: nothing here. */
  readonly lines = new Int32Array(LINES * 4);

  fill(device: number, event: number, lpi: number, state: number): void {
    const at = lineAt(device, event);
    this.lines[at] = device;
    this.lines[at + 1] = event;
    this.lines[at + 2] = lpi;
    this.lines[at + 3] = state;
  }

  holds(device: number, event: number): boolean {
    const { lines } = this;
    const at = lineAt(device, event);
    return lines[at] === (device | 0) && lines[at + 1] === (event | 0) && lines[at + 3] !== 0;
  }

  evict(device: number, event: number): void {
    if (this.holds(device, event)) this.lines[lineAt(device, event) + 3] = 0;
  }

  evictDevice(device: number): void {
    for (let at = 0; at < this.lines.length; at += 4) if (this.lines[at] === (device | 0)) this.lines[at + 3] = 0;
  }

  flush(): void {
    this.lines.fill(0);
  }
}
