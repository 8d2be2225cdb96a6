/** The least of an NVMe driver: the controller enabled with an admin queue, and Identify (NVM Express 1.4, 3.1, 5.15 and 7.6.1). */
import { settled } from './kernel.mjs';

const Register = { CAP_HI: 0x04, CC: 0x14, CSTS: 0x1c, AQA: 0x24, ASQ: 0x28, ACQ: 0x30, DOORBELLS: 0x1000 };
const ENABLE = 1;
const READY = 1;
/** Entries of 64 bytes to submit, of 16 to complete: log2 in CC. */
const ENTRY_SIZES = (6 << 16) | (4 << 20);
const ENTRIES = 16;
const IDENTIFY = 0x06;
const CONTROLLER = 1;
/** Where in the memory: the two queues, and what Identify writes. */
const SUBMISSION = 0;
const COMPLETION = 4096;
const ANSWER = 8192;

export class NvmeAdmin {
  static MEMORY = 3 * 4096;
  #tail = 0;
  #head = 0;
  #phase = 1;

  /**
   * @param registers BAR 0, mapped
   * @param bytes MEMORY bytes of this process, which the device finds at `iova`
   */
  constructor(kernel, registers, bytes, iova) {
    this.kernel = kernel;
    this.registers = registers;
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.iova = iova;
  }

  /** Resets the controller and enables it. @throws Error when it does not become ready */
  async start() {
    const { registers, iova } = this;
    const ready = () => (registers.read32(Register.CSTS) & READY) !== 0;
    registers.write32(Register.CC, 0);
    if (!(await settled(this.kernel, () => !ready()))) throw new Error('the controller does not stop');
    registers.write32(Register.AQA, ((ENTRIES - 1) << 16) | (ENTRIES - 1));
    this.#write64(Register.ASQ, iova + SUBMISSION);
    this.#write64(Register.ACQ, iova + COMPLETION);
    registers.write32(Register.CC, ENTRY_SIZES | ENABLE);
    if (!(await settled(this.kernel, ready))) throw new Error('the controller does not become ready');
  }

  /** Submits Identify Controller; the completion comes with vector 0. */
  submitIdentify() {
    const at = SUBMISSION + this.#tail * 64;
    this.bytes.fill(0, at, at + 64);
    this.bytes.fill(0, ANSWER, ANSWER + 4096);
    this.view.setUint32(at, IDENTIFY | (this.#tail << 16), true);
    this.view.setBigUint64(at + 24, BigInt(this.iova + ANSWER), true);
    this.view.setUint32(at + 40, CONTROLLER, true);
    this.#tail = (this.#tail + 1) % ENTRIES;
    this.registers.write32(Register.DOORBELLS, this.#tail);
  }

  /** Takes a completion: the model's name after Identify, or null where none is there. @throws Error of a command that failed */
  complete() {
    const at = COMPLETION + this.#head * 16;
    const status = this.view.getUint16(at + 14, true);
    if ((status & 1) !== this.#phase) return null;
    this.#head = (this.#head + 1) % ENTRIES;
    if (this.#head === 0) this.#phase ^= 1;
    this.registers.write32(Register.DOORBELLS + this.#stride(), this.#head);
    if (status >>> 1 !== 0) throw new Error(`the command ended with status 0x${(status >>> 1).toString(16)}`);
    return new TextDecoder('latin1').decode(this.bytes.subarray(ANSWER + 24, ANSWER + 64)).trim();
  }

  /** Of the queue heads' registers behind the tails': 4 bytes, or what the controller says. */
  #stride() {
    return 4 << (this.registers.read32(Register.CAP_HI) & 0xf);
  }

  #write64(register, value) {
    this.registers.write32(register, value % 2 ** 32);
    this.registers.write32(register + 4, Math.floor(value / 2 ** 32));
  }
}
