/** The host's memory as the controller sees it: DMA of which a reset forgets what should follow, and knows when none is under way any more. */
import type { PciPort } from '../../ports/pci.ts';

/** What was started between two resets. */
interface Era {
  inFlight: number;
  quiet: (() => void) | null;
}

export class HostMemory {
  port: PciPort | null = null;
  private era: Era = { inFlight: 0, quiet: null };

  read(address: number, length: number, then: (ok: boolean, bytes: Uint8Array) => void): void {
    const { era, port } = this;
    if (port === null) return;
    era.inFlight += 1;
    port.dmaRead(address, length, (ok, bytes) => {
      if (this.landed(era)) then(ok, bytes);
    });
  }

  write(address: number, bytes: Uint8Array, then: (ok: boolean) => void): void {
    const { era, port } = this;
    if (port === null) return;
    era.inFlight += 1;
    port.dmaWrite(address, bytes, (ok) => {
      if (this.landed(era)) then(ok);
    });
  }

  /** Controller reset: what is under way still lands, and nothing follows it; `quiet` is called once all of it has. */
  stop(quiet: () => void): void {
    const { era } = this;
    this.era = { inFlight: 0, quiet: null };
    if (era.inFlight === 0) quiet();
    else era.quiet = quiet;
  }

  /** Function reset: the carrier has ended what was under way. */
  forget(): void {
    this.era.quiet = null;
    this.era = { inFlight: 0, quiet: null };
  }

  private landed(era: Era): boolean {
    era.inFlight -= 1;
    if (era === this.era) return true;
    if (era.inFlight === 0) era.quiet?.();
    return false;
  }
}
