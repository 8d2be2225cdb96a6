/** A guest's software for its local APIC and I/O APIC (Intel SDM volume 3, chapter 12). */
import type { GuestCpu } from '../ports/guest.ts';
import type { GuestController, GuestInterrupt } from './guest-controller.ts';

const LAPIC = 0xfee0_0000;
const IOAPIC = 0xfec0_0000;
const TPR = 0x80;
const SVR = 0xf0;
const FIRST_VECTOR = 0x30;
const LAST_VECTOR = 0xfe;
const LEVEL = 1 << 15;

export class GuestApics implements GuestController {
  readonly #cpu: GuestCpu;
  readonly #index: number;
  readonly #taken = new Set<number>();

  /** Software enable, all priorities open. */
  constructor(cpu: GuestCpu, index: number) {
    this.#cpu = cpu;
    this.#index = index;
    cpu.mmioWrite(LAPIC + SVR, 4, 0x1ff);
    cpu.mmioWrite(LAPIC + TPR, 4, 0);
  }

  allocateMsis(_device: number, count: number): readonly GuestInterrupt[] {
    return Array.from({ length: count }, () => {
      const intid = this.#vector();
      return { intid, message: { address: LAPIC + this.#index * 0x1000, data: intid } };
    });
  }

  freeMsis(_device: number, interrupts: readonly GuestInterrupt[]): void {
    for (const { intid } of interrupts) this.#taken.delete(intid);
  }

  enableLine(gsi: number): number {
    const vector = this.#vector();
    this.#redirect(gsi * 2 + 0x11, (this.#index << 24) >>> 0);
    this.#redirect(gsi * 2 + 0x10, vector | LEVEL);
    return vector;
  }

  #redirect(register: number, value: number): void {
    this.#cpu.mmioWrite(IOAPIC, 4, register);
    this.#cpu.mmioWrite(IOAPIC + 0x10, 4, value);
  }

  #vector(): number {
    for (let vector = FIRST_VECTOR; vector <= LAST_VECTOR; vector++) {
      if (this.#taken.has(vector)) continue;
      this.#taken.add(vector);
      return vector;
    }
    throw new RangeError(`CPU ${this.#index} of the guest has no free vector`);
  }
}
