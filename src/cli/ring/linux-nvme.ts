/**
 * An NVMe controller that rings its vectors by completing commands (NVM Express 1.4): vector 0 by Get Features of the admin queue,
 * vector n by a command of I/O queue n that no controller knows, so that nothing of the medium is touched.
 */
import { ProblemError } from '../usage.ts';
import type { Ringer } from './linux-ringer.ts';

/** BAR 0, by the device's file. */
export interface NvmeRegisters {
  read32(offset: number): number;
  write32(offset: number, value: number): void;
}

const R = { CAP_HI: 0x04, CC: 0x14, CSTS: 0x1c, AQA: 0x24, ASQ: 0x28, ACQ: 0x30, DOORBELLS: 0x1000 };
const ENABLED = 1;
const READY = 1;
/** log2 of the entries, 64 bytes and 16. */
const ENTRY_SIZES = (6 << 16) | (4 << 20);
const Opcode = { CREATE_SUBMISSION: 0x01, CREATE_COMPLETION: 0x05, SET_FEATURES: 0x09, GET_FEATURES: 0x0a, NONE: 0x7f };
const NUMBER_OF_QUEUES = 7;
const CONTIGUOUS = 1;
const INTERRUPTS = 2;
const ENTRIES = 16;
const PAGE = 4096;
const PATIENCE = 5_000;

interface Queue {
  /** Offsets in the memory. */
  readonly submission: number;
  readonly completion: number;
  tail: number;
  head: number;
  phase: number;
}

export class NvmeRinger implements Ringer {
  readonly how = 'commands of its queues (NVMe)';
  readonly byDevice = true;
  readonly vectors: number;
  private readonly registers: NvmeRegisters;
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private readonly iova: number;
  private readonly settle: () => void;
  private readonly queues: Queue[];
  private stride = 4;

  /** @param memory of `memoryFor(vectors)` bytes, which the device finds at `iova`; `settle` lets a simulated device work */
  constructor(
    registers: NvmeRegisters,
    memory: { readonly bytes: Uint8Array; readonly iova: number },
    vectors: number,
    settle: () => void,
  ) {
    const { bytes, iova } = memory;
    this.registers = registers;
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.iova = iova;
    this.settle = settle;
    this.vectors = vectors;
    this.queues = Array.from({ length: vectors }, (_, i) => ({
      ...{ submission: 2 * i * PAGE, completion: (2 * i + 1) * PAGE },
      ...{ tail: 0, head: 0, phase: 1 },
    }));
  }

  static memoryFor(vectors: number): number {
    return 2 * PAGE * vectors;
  }

  /** Resets the controller, enables it, makes a pair of queues for each vector. @throws ProblemError when it does not do so */
  async start(): Promise<void> {
    const { registers } = this;
    this.stride = 4 << (registers.read32(R.CAP_HI) & 0xf);
    registers.write32(R.CC, 0);
    await this.until('stop', () => (registers.read32(R.CSTS) & READY) === 0);
    registers.write32(R.AQA, ((ENTRIES - 1) << 16) | (ENTRIES - 1));
    this.write64(R.ASQ, this.iova + this.queues[0]!.submission);
    this.write64(R.ACQ, this.iova + this.queues[0]!.completion);
    registers.write32(R.CC, ENTRY_SIZES | ENABLED);
    await this.until('become ready', () => (registers.read32(R.CSTS) & READY) !== 0);
    const others = this.vectors - 1;
    if (others === 0) return;
    await this.admin(Opcode.SET_FEATURES, 0, NUMBER_OF_QUEUES, ((others - 1) << 16) | (others - 1));
    for (let i = 1; i <= others; i++) {
      const { submission, completion } = this.queues[i]!;
      const size = ((ENTRIES - 1) << 16) | i;
      await this.admin(Opcode.CREATE_COMPLETION, completion, size, (i << 16) | INTERRUPTS | CONTIGUOUS);
      await this.admin(Opcode.CREATE_SUBMISSION, submission, size, (i << 16) | CONTIGUOUS);
    }
  }

  ring(vector: number): void {
    if (vector === 0) this.submit(0, Opcode.GET_FEATURES, 0, NUMBER_OF_QUEUES, 0);
    else this.submit(vector, Opcode.NONE, 0, 0, 0);
  }

  /** Takes the completions; without that the queue would be full after a while. */
  done(vector: number): void {
    while (this.complete(vector) !== null);
  }

  /** A command of the set-up. @throws ProblemError when it fails */
  private async admin(opcode: number, page: number, word10: number, word11: number): Promise<void> {
    this.submit(0, opcode, page, word10, word11);
    let status: number | null = null;
    await this.until(`complete command ${opcode}`, () => {
      status = this.complete(0);
      return status !== null;
    });
    if (status !== 0) throw new ProblemError(`the NVMe controller refused admin command ${opcode}: status ${status}`);
  }

  private submit(id: number, opcode: number, page: number, word10: number, word11: number): void {
    const queue = this.queues[id]!;
    const at = queue.submission + queue.tail * 64;
    this.bytes.fill(0, at, at + 64);
    this.view.setUint32(at, opcode | (queue.tail << 16), true);
    this.view.setBigUint64(at + 24, BigInt(this.iova + page), true);
    this.view.setUint32(at + 40, word10, true);
    this.view.setUint32(at + 44, word11, true);
    queue.tail = (queue.tail + 1) % ENTRIES;
    this.registers.write32(R.DOORBELLS + 2 * id * this.stride, queue.tail);
    this.settle();
  }

  /** The status of the oldest completion, or null. */
  private complete(id: number): number | null {
    const queue = this.queues[id]!;
    const status = this.view.getUint16(queue.completion + queue.head * 16 + 14, true);
    if ((status & 1) !== queue.phase) return null;
    queue.head = (queue.head + 1) % ENTRIES;
    if (queue.head === 0) queue.phase ^= 1;
    this.registers.write32(R.DOORBELLS + (2 * id + 1) * this.stride, queue.head);
    return status >>> 1;
  }

  private async until(what: string, reached: () => boolean): Promise<void> {
    for (let waited = 0; waited < PATIENCE; waited += 5) {
      this.settle();
      if (reached()) return;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    throw new ProblemError(`the NVMe controller does not ${what}`);
  }

  private write64(register: number, value: number): void {
    this.registers.write32(register, value % 2 ** 32);
    this.registers.write32(register + 4, Math.floor(value / 2 ** 32));
  }
}
