/** IOVAs that a doorbell of user space's choice took out of a container (belfry's ABI; Linux has none). They do not overlap. */
import type { IovaRange } from './iova-list.ts';

export class Reservations {
  private list: readonly IovaRange[] = [];

  get all(): readonly IovaRange[] {
    return this.list;
  }

  /** `end` is inclusive. */
  add(start: number, end: number): void {
    this.list = [...this.list, { start, end }].sort((a, b) => a.start - b.start);
  }

  remove(start: number, end: number): void {
    this.list = this.list.filter((taken) => taken.start !== start || taken.end !== end);
  }

  /** The first reservation that touches [start, end], or null. */
  overlapping(start: number, end: number): IovaRange | null {
    return this.list.find((taken) => taken.start <= end && start <= taken.end) ?? null;
  }

  /** The last address of a reservation that touches [start, end], or -1: what the kernel's window steps over. */
  takenEnd(start: number, end: number): number {
    return this.overlapping(start, end)?.end ?? -1;
  }
}
