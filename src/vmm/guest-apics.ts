/** A guest's software for its local APIC and I/O APIC (Intel SDM volume 3, chapter 12). */
import type { GuestCpu } from '../ports/guest.ts';
import type { GuestController, GuestInterrupt } from './guest-controller.ts';
import { GuestError } from './guest-error.ts';

const LAPIC = 0xfee0_0000;
const IOAPIC = 0xfec0_0000;
const TPR = 0x80;
const SVR = 0xf0;
const FIRST_VECTOR = 0x30;
const LAST_VECTOR = 0xfe;
const VECTORS = LAST_VECTOR - FIRST_VECTOR + 1;
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

  allocateMsis(_device: number, count: number, together = false): readonly GuestInterrupt[] {
    const free = this.#taken.reduce((sum, taken) => sum + VECTORS - taken.size, 0);
    if (count > free) {
      throw new GuestError(`the guest's ${this.#cpus.length} CPUs have ${free} free vectors, not ${count}`);
    }
    const places = together ? this.#block(count) : Array.from({ length: count }, () => this.#vector());
    return places.map(({ cpu, vector }) => ({
      intid: vector,
      cpu,
      message: { address: LAPIC + cpu * 0x1000, data: vector },
    }));
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
    throw new GuestError(`no CPU of the guest has a free vector: ${sizes.length} CPUs have ${VECTORS} each`);
  }

  /** Vectors that follow each other on one CPU, from an aligned one: the device puts its message's number into the low bits of its data. */
  #block(count: number): { cpu: number; vector: number }[] {
    const size = 2 ** Math.ceil(Math.log2(count));
    for (const [cpu, taken] of this.#taken.entries()) {
      for (let first = Math.ceil(FIRST_VECTOR / size) * size; first + count - 1 <= LAST_VECTOR; first += size) {
        const block = Array.from({ length: count }, (_, i) => first + i);
        if (block.some((vector) => taken.has(vector))) continue;
        for (const vector of block) taken.add(vector);
        return block.map((vector) => ({ cpu, vector }));
      }
    }
    throw new GuestError(`no CPU of the guest has ${count} free vectors in a row`);
  }
}
