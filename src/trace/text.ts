/** A trace for people: one aligned line for each hop. */
import { hex } from '../ports/address.ts';
import type { WalkStep } from '../ports/outcome.ts';
import type { Hop, HopObserver } from '../ports/tap.ts';
import { hopText } from './hop-text.ts';

export interface TextTraceOptions {
  /** Lists each step of a table walk below the IOMMU's line. */
  readonly walk?: boolean;
}

/**
 * Hops are numbered within what a device began: `4.3` is the third hop of the fourth raise (or DMA). What happens before any
 * device acted counts as 0.
 *
 * @example
 * tap.observer = new TextTrace((text) => process.stdout.write(text));
 * //    1.1  device            0000:01:00.0  msix 3: 0x0000_0003 to 0x0809_0040             sent
 * //    1.2  iommu             smmu          0000:01:00.0 iova 0x0809_0040                  0x0808_0040
 */
export class TextTrace implements HopObserver {
  readonly #write: (text: string) => void;
  readonly #walk: boolean;
  #journey = 0;
  #hop = 0;

  constructor(write: (text: string) => void, options: TextTraceOptions = {}) {
    this.#write = write;
    this.#walk = options.walk === true;
  }

  hop(hop: Hop): void {
    if (hop.at === 'device') {
      this.#journey++;
      this.#hop = 0;
    }
    this.#hop++;
    const { who, what, end } = hopText(hop);
    const number = `${this.#journey}.${this.#hop}`.padStart(8);
    const line = `${number}  ${hop.at.padEnd(16)}  ${who.padEnd(12)}  ${what.padEnd(52)}  ${end}`;
    const steps = this.#walk && hop.at === 'iommu' && 'steps' in hop.outcome ? hop.outcome.steps : [];
    this.#write(`${line}\n${steps.map(stepLine).join('')}`);
  }
}

function stepLine({ table, level, at, entry }: WalkStep): string {
  const where = level < 0 ? table : `${table} level ${level}`;
  return `${' '.repeat(28)}${where.padEnd(22)}  ${hex(at)}  ${hex(entry, 16)}\n`;
}
