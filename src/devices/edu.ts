/**
 * `edu`: the educational device of QEMU, as its specification (docs/specs/edu) and its behaviour in a guest show it: liveness, a
 * factorial unit, an interrupt register, and a DMA engine with a buffer of 4 KiB, one MSI and INTx.
 */
import type { FunctionSpec, PciFunction, PciPort, Registers } from '../ports/pci.ts';
import { type DeviceOptions, OptionReader } from './options.ts';

/** Offsets in BAR 0. */
export const EduRegister = {
  ID: 0x00,
  LIVENESS: 0x04,
  FACTORIAL: 0x08,
  STATUS: 0x20,
  INTERRUPT_STATUS: 0x24,
  INTERRUPT_RAISE: 0x60,
  INTERRUPT_ACKNOWLEDGE: 0x64,
  DMA_SOURCE: 0x80,
  DMA_DESTINATION: 0x88,
  DMA_COUNT: 0x90,
  DMA_COMMAND: 0x98,
} as const;

export const EDU_ID = 0x0100_00ed;
export const EduStatus = { COMPUTING: 0x01, INTERRUPT: 0x80 } as const;
export const EduInterrupt = { FACTORIAL: 0x001, DMA: 0x100 } as const;
/** FROM_DEVICE: from the buffer to memory. */
export const EduDma = { START: 0x1, FROM_DEVICE: 0x2, INTERRUPT: 0x4 } as const;
/** Where the DMA engine sees its own buffer, and how long that is. */
export const EDU_BUFFER = { base: 0x4_0000, size: 4096 } as const;

/** From 34! on a factorial has 32 factors of two: nothing is left of it in 32 bits. */
const FACTORIAL_ZERO = 34;
const FACTORIAL_NS = 1_000;
const DMA_NS = 100_000_000;
const ALL_ONES = -1;

export class Edu implements PciFunction, Registers {
  readonly spec: FunctionSpec;
  private readonly dmaMask: number;
  private port: PciPort | null = null;
  private readonly buffer = new Uint8Array(EDU_BUFFER.size);
  private liveness = 0;
  private factorial = 0;
  private status = 0;
  private interrupts = 0;
  /** Source, destination, count, command: pairs of low and high words, as the registers lie. */
  private readonly dma = new Int32Array(8);
  private cancel: (() => void)[] = [];

  /**
   * Options: `dmaMask`, bits that the engine keeps of an address (0x0fff_ffff: 28 bits, as in QEMU; up to 2^53 - 1).
   * @throws RangeError naming the option.
   */
  constructor(options: DeviceOptions = {}) {
    const read = new OptionReader('edu', options);
    this.dmaMask = read.integer('dmaMask', 0x0fff_ffff, 0, Number.MAX_SAFE_INTEGER);
    read.finish();
    this.spec = {
      name: 'edu',
      vendorId: 0x1234,
      deviceId: 0x11e8,
      subsystemVendorId: 0x1af4,
      subsystemId: 0x1100,
      revision: 0x10,
      classCode: 0x00ff00,
      bars: [
        {
          type: 'memory32',
          size: 0x10_0000,
          ranges: [{ kind: 'registers', offset: 0, size: 0x10_0000, registers: this }],
        },
      ],
      msi: { vectors: 1, address64: true },
      interruptPin: 1,
    };
  }

  connect(port: PciPort): void {
    this.port = port;
  }

  reset(): void {
    for (const cancel of this.cancel) cancel();
    this.cancel = [];
    this.buffer.fill(0);
    this.dma.fill(0);
    this.liveness = 0;
    this.factorial = 0;
    this.status = 0;
    this.interrupts = 0;
  }

  read(offset: number, size: number): number {
    if (size !== 4) return ALL_ONES;
    switch (offset) {
      case EduRegister.ID:
        return EDU_ID;
      case EduRegister.LIVENESS:
        return this.liveness;
      case EduRegister.FACTORIAL:
        return this.factorial;
      case EduRegister.STATUS:
        return this.status;
      case EduRegister.INTERRUPT_STATUS:
        return this.interrupts;
      default:
        return isDma(offset) ? this.dma[(offset - EduRegister.DMA_SOURCE) >> 2] : ALL_ONES;
    }
  }

  write(offset: number, size: number, value: number): void {
    if (size !== 4) return;
    switch (offset) {
      case EduRegister.LIVENESS:
        this.liveness = ~value;
        return;
      case EduRegister.FACTORIAL:
        this.compute(value >>> 0);
        return;
      case EduRegister.STATUS:
        this.status = (this.status & ~EduStatus.INTERRUPT) | (value & EduStatus.INTERRUPT);
        return;
      case EduRegister.INTERRUPT_RAISE:
        this.raise(value);
        return;
      case EduRegister.INTERRUPT_ACKNOWLEDGE:
        this.acknowledge(value);
        return;
      default:
        if (isDma(offset)) this.writeDma(offset, value);
    }
  }

  private compute(operand: number): void {
    if ((this.status & EduStatus.COMPUTING) !== 0) return;
    this.factorial = operand | 0;
    this.status |= EduStatus.COMPUTING;
    this.later(FACTORIAL_NS, () => {
      this.factorial = factorial(operand);
      this.status &= ~EduStatus.COMPUTING;
      if ((this.status & EduStatus.INTERRUPT) !== 0) this.raise(EduInterrupt.FACTORIAL);
    });
  }

  private raise(bits: number): void {
    this.interrupts |= bits;
    if (this.interrupts === 0) return;
    if (this.port?.messagesEnabled === true) this.port.raise(0);
    else this.port?.setInterruptLine(true);
  }

  private acknowledge(bits: number): void {
    this.interrupts &= ~bits;
    if (this.interrupts === 0) this.port?.setInterruptLine(false);
  }

  /** A low word clears its high one, so that a driver that writes 32 bits only gets what it wrote. Nothing changes while a DMA runs. */
  private writeDma(offset: number, value: number): void {
    const { dma } = this;
    const at = (offset - EduRegister.DMA_SOURCE) >> 2;
    if ((dma[6] & EduDma.START) !== 0) return;
    if (offset === EduRegister.DMA_COMMAND && (value & EduDma.START) === 0) return;
    dma[at] = value;
    if (at % 2 === 0) dma[at + 1] = 0;
    if (offset === EduRegister.DMA_COMMAND) this.later(DMA_NS, () => this.transfer());
  }

  private transfer(): void {
    const { port } = this;
    const [source, destination, count] = [this.pair(0), this.pair(2), this.pair(4)];
    const fromDevice = (this.dma[6] & EduDma.FROM_DEVICE) !== 0;
    const local = (fromDevice ? source : destination) - EDU_BUFFER.base;
    // QEMU ends the whole machine for a range outside of the buffer; here nothing moves.
    if (port === null || local < 0 || local + count > EDU_BUFFER.size) {
      this.finish();
      return;
    }
    const here = this.buffer.subarray(local, local + count);
    if (fromDevice) port.dmaWrite(this.clamp(destination), here, () => this.finish());
    else
      port.dmaRead(this.clamp(source), count, (_, bytes) => {
        here.set(bytes);
        this.finish();
      });
  }

  /** The engine does not see whether its accesses succeeded: it is done in any case. */
  private finish(): void {
    const command = this.dma[6];
    this.dma[6] = command & ~EduDma.START;
    if ((command & EduDma.INTERRUPT) !== 0) this.raise(EduInterrupt.DMA);
  }

  private pair(at: number): number {
    return (this.dma[at + 1] >>> 0) * 2 ** 32 + (this.dma[at] >>> 0);
  }

  private clamp(address: number): number {
    return Number(BigInt(address) & BigInt(this.dmaMask));
  }

  private later(delay: number, run: () => void): void {
    const { port } = this;
    if (port === null) return;
    const cancel = port.clock.after(delay, {
      run: () => {
        this.cancel = this.cancel.filter((other) => other !== cancel);
        run();
      },
    });
    this.cancel.push(cancel);
  }
}

const isDma = (offset: number): boolean =>
  offset >= EduRegister.DMA_SOURCE && offset < EduRegister.DMA_COMMAND + 8 && offset % 4 === 0;

/** n! modulo 2^32. */
function factorial(n: number): number {
  if (n >= FACTORIAL_ZERO) return 0;
  let result = 1;
  for (let factor = 2; factor <= n; factor++) result = Math.imul(result, factor);
  return result;
}
