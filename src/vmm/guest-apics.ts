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

/** The local APICs of all CPUs: interrupts go to the CPU with the most free vectors. */
export class GuestApics implements GuestController {
  readonly #cpus: readonly GuestCpu[];
  /** Vectors in use, by CPU. */
  readonly #taken: readonly Set<number>[];

  /** Software enable, all priorities open. */
  constructor(cpus: readonly GuestCpu[]) {
    this.#cpus = cpus;
    this.#taken = cpus.map(() => new Set());
    for (const cpu of cpus) {
      cpu.mmioWrite(LAPIC + SVR, 4, 0x1ff);
      cpu.mmioWrite(LAPIC + TPR, 4, 0);
    }
  }

  allocateMsis(_device: number, count: number): readonly GuestInterrupt[] {
    return Array.from({ length: count }, () => {
      const { cpu, vector } = this.#vector();
      return { intid: vector, cpu, message: { address: LAPIC + cpu * 0x1000, data: vector } };
    });
  }

  freeMsis(_device: number, interrupts: readonly GuestInterrupt[]): void {
    for (const { cpu, intid } of interrupts) this.#taken[cpu]?.delete(intid);
  }

  enableLine(gsi: number): { readonly cpu: number; readonly intid: number } {
    const { cpu, vector } = this.#vector();
    this.#redirect(gsi * 2 + 0x11, (cpu << 24) >>> 0);
    this.#redirect(gsi * 2 + 0x10, vector | LEVEL);
    return { cpu, intid: vector };
  }

  #redirect(register: number, value: number): void {
    this.#cpus[0]?.mmioWrite(IOAPIC, 4, register);
    this.#cpus[0]?.mmioWrite(IOAPIC + 0x10, 4, value);
  }

  #vector(): { cpu: number; vector: number } {
    const sizes = this.#taken.map(({ size }) => size);
    const cpu = sizes.indexOf(Math.min(...sizes));
    const taken = this.#taken[cpu] ?? new Set();
    for (let vector = FIRST_VECTOR; vector <= LAST_VECTOR; vector++) {
      if (taken.has(vector)) continue;
      taken.add(vector);
      return { cpu, vector };
    }
    throw new RangeError(
      `no CPU of the guest has a free vector: ${sizes.length} CPUs have ${LAST_VECTOR - FIRST_VECTOR + 1} each`,
    );
  }
}
