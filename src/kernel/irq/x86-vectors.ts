/** The vectors of every CPU (arch/x86/kernel/apic/vector.c and kernel/irq/matrix.c): the CPU with the most free ones gives its lowest. */
import { VECTORS, x86Intid } from '../../arch/x86/index.ts';

/** FIRST_EXTERNAL_VECTOR and what lies behind it is not for devices; above are the system's own (arch/x86/include/asm/irq_vectors.h). */
const FIRST_DEVICE_VECTOR = 0x22;
const FIRST_SYSTEM_VECTOR = 0xec;
/** ISA interrupts, and the 32-bit system call. */
const ISA_FIRST = 0x30;
const ISA_LAST = 0x3f;
const SYSCALL_VECTOR = 0x80;

const isUsable = (vector: number): boolean =>
  vector >= FIRST_DEVICE_VECTOR &&
  vector < FIRST_SYSTEM_VECTOR &&
  !(vector >= ISA_FIRST && vector <= ISA_LAST) &&
  vector !== SYSCALL_VECTOR;

export class X86Vectors {
  readonly cpus: number;
  /** 1 where (CPU, vector) is taken or not for devices. */
  private readonly taken: Uint8Array;
  private readonly free: Int32Array;

  constructor(cpus: number) {
    this.cpus = cpus;
    this.taken = new Uint8Array(cpus * VECTORS);
    this.free = new Int32Array(cpus);
    for (let cpu = 0; cpu < cpus; cpu++) {
      for (let vector = 0; vector < VECTORS; vector++) {
        if (isUsable(vector)) this.free[cpu]!++;
        else this.taken[x86Intid(cpu, vector)] = 1;
      }
    }
  }

  /** Vectors that nobody has, on all CPUs. */
  get available(): number {
    return this.free.reduce((sum, free) => sum + free, 0);
  }

  /** (CPU, vector) as an interrupt id, or -1 when all are taken. */
  allocate(): number {
    let best = 0;
    for (let cpu = 1; cpu < this.cpus; cpu++) if (this.free[cpu]! > this.free[best]!) best = cpu;
    if (this.free[best] === 0) return -1;
    const intid = this.taken.indexOf(0, x86Intid(best, 0));
    this.taken[intid] = 1;
    this.free[best]!--;
    return intid;
  }

  release(intid: number): void {
    const cpu = Math.floor(intid / VECTORS);
    if (this.taken[intid] !== 1 || !isUsable(intid % VECTORS)) return;
    this.taken[intid] = 0;
    this.free[cpu]!++;
  }
}
