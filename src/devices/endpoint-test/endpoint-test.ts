/**
 * `pci-endpoint-test`: the function that the kernel's endpoint framework offers for tests, with the ids by which Linux' host driver
 * pci_endpoint_test binds (TI J721E). It raises interrupts of each kind on command, reads, writes and copies memory and checks it by CRC-32,
 * has memory in every BAR, a doorbell in BAR 1, and BARs that can be mapped in two swapped halves.
 */
import type { BarSpec, FunctionSpec, PciFunction, PciPort, Registers } from '../../ports/pci.ts';
import { type DeviceOptions, OptionReader } from '../options.ts';
import { crc32 } from './crc32.ts';
import {
  EndpointCaps as Caps,
  EndpointCommand as Command,
  ENDPOINT_REGISTER_BYTES,
  IrqType,
  EndpointRegister as R,
  EndpointStatus as Status,
} from './registers.ts';

export const ENDPOINT_TEST_VENDOR = 0x104c;
export const ENDPOINT_TEST_DEVICE = 0xb00d;
/** BAR 0: registers, the MSI-X table, its pending bits, each in pages of its own; what is behind the registers is memory. */
const PAGE = 4096;
const TABLE = PAGE;
const PENDING = 0xa000;
const REGISTER_BAR_BYTES = 0x1_0000;
const MOST_VECTORS = 2048;
/** Sizes of the BARs of plain memory; 64-bit ones take two. */
const MEMORY_BARS = new Map([
  [2, 0x2_0000],
  [4, 0x10_0000],
]);
const DOORBELL_BAR = 1;
const DOORBELL_OFFSET = 0x40;
const DOORBELL_DATA = 0x0d00_0b31;
const FIRST_RANDOM = 0x2545_f491;

export class EndpointTest implements PciFunction {
  readonly spec: FunctionSpec;
  private port: PciPort | null = null;
  private readonly words = new Int32Array(ENDPOINT_REGISTER_BYTES / 4);
  private readonly behind = new Uint8Array(PAGE);
  private readonly doorbellBar = new Uint8Array(PAGE);
  private doorbell = false;
  private readonly swapped = new Set<number>();
  private random = FIRST_RANDOM;
  /** Counts resets: what was under way before one changes nothing. */
  private epoch = 0;

  /**
   * Options: `msi` 0, 1, 2, 4, 8, 16 or 32 messages (32), `msix` 0 to 2048 vectors (32), `intx` (true).
   * @throws RangeError naming the option.
   */
  constructor(options: DeviceOptions = {}) {
    const read = new OptionReader('pci-endpoint-test', options);
    const msi = read.oneOf('msi', 32, [0, 1, 2, 4, 8, 16, 32]);
    const msix = read.integer('msix', 32, 0, MOST_VECTORS);
    const intx = read.boolean('intx', true);
    read.finish();
    this.spec = {
      name: 'pci-endpoint-test',
      vendorId: ENDPOINT_TEST_VENDOR,
      deviceId: ENDPOINT_TEST_DEVICE,
      classCode: 0xff0000,
      bars: [this.registerBar(), this.barOfDoorbell(), ...[2, 4].flatMap((bar) => [memoryBar(bar), null])],
      ...(msi > 0 ? { msi: { vectors: msi, address64: true } } : {}),
      ...(msix > 0
        ? { msix: { vectors: msix, table: { bar: 0, offset: TABLE }, pba: { bar: 0, offset: PENDING } } }
        : {}),
      ...(intx ? { interruptPin: 1 } : {}),
      express: { type: 'endpoint', flr: true },
      powerManagement: true,
    };
  }

  connect(port: PciPort): void {
    this.port = port;
  }

  reset(): void {
    this.epoch += 1;
    this.words.fill(0);
    this.doorbell = false;
    this.swapped.clear();
    this.random = FIRST_RANDOM;
  }

  private get caps(): number {
    const { msi, msix, interruptPin } = this.spec;
    return (
      Caps.UNALIGNED_ACCESS |
      Caps.DYNAMIC_INBOUND_MAPPING |
      Caps.SUBRANGE_MAPPING |
      (msi === undefined ? 0 : Caps.MSI) |
      (msix === undefined ? 0 : Caps.MSIX) |
      (interruptPin === undefined ? 0 : Caps.INTX)
    );
  }

  private registerBar(): BarSpec {
    const registers: Registers = {
      read: (offset, size) => {
        const lane = offset & 3;
        if (offset >= ENDPOINT_REGISTER_BYTES || lane + size > 4) return load(this.behind, offset, size);
        const word = offset - lane === R.CAPS ? this.caps : this.words[offset >> 2];
        return size === 4 ? word : (word >>> (lane << 3)) & (size === 2 ? 0xffff : 0xff);
      },
      write: (offset, size, value) => {
        if (offset >= ENDPOINT_REGISTER_BYTES) store(this.behind, offset, size, value);
        else if (size === 4 && offset % 4 === 0) this.writeRegister(offset, value);
      },
    };
    return {
      type: 'memory32',
      size: REGISTER_BAR_BYTES,
      ranges: [{ kind: 'registers', offset: 0, size: PAGE, registers }],
    };
  }

  /** Memory, or while the doorbell is enabled a window on it alone. */
  private barOfDoorbell(): BarSpec {
    const registers: Registers = {
      read: (offset, size) => (this.doorbell ? 0 : load(this.doorbellBar, offset, size)),
      write: (offset, size, value) => {
        if (!this.doorbell) store(this.doorbellBar, offset, size, value);
        else if (offset === DOORBELL_OFFSET && size === 4 && value >>> 0 === DOORBELL_DATA)
          this.finish(Status.DOORBELL_SUCCESS);
      },
    };
    return { type: 'memory32', size: PAGE, ranges: [{ kind: 'registers', offset: 0, size: PAGE, registers }] };
  }

  private writeRegister(offset: number, value: number): void {
    if (offset === R.CAPS) return;
    if (offset !== R.COMMAND) {
      this.words[offset >> 2] = value;
      return;
    }
    if (value === 0) return;
    this.words[R.STATUS >> 2] = 0;
    if (this.word(R.IRQ_TYPE) <= IrqType.MSIX) this.command(value);
  }

  private command(command: number): void {
    switch (command) {
      case Command.RAISE_INTX:
      case Command.RAISE_MSI:
      case Command.RAISE_MSIX:
        this.finish(0);
        break;
      case Command.READ:
        this.readMemory();
        break;
      case Command.WRITE:
        this.writeMemory();
        break;
      case Command.COPY:
        this.copyMemory();
        break;
      case Command.ENABLE_DOORBELL:
        this.doorbell = true;
        this.words.set([DOORBELL_BAR, DOORBELL_OFFSET, DOORBELL_DATA], R.DB_BAR >> 2);
        this.finish(Status.DOORBELL_ENABLE_SUCCESS);
        break;
      case Command.DISABLE_DOORBELL:
        this.finish(this.doorbell ? Status.DOORBELL_DISABLE_SUCCESS : Status.DOORBELL_DISABLE_FAIL);
        this.doorbell = false;
        break;
      case Command.SUBRANGE_SETUP:
        this.finish(this.setUpHalves() ? Status.SUBRANGE_SETUP_SUCCESS : Status.SUBRANGE_SETUP_FAIL);
        break;
      case Command.SUBRANGE_CLEAR:
        this.finish(this.clearHalves() ? Status.SUBRANGE_CLEAR_SUCCESS : Status.SUBRANGE_CLEAR_FAIL);
        break;
    }
  }

  /** READ: the endpoint reads the host's memory and compares its checksum. */
  private readMemory(): void {
    this.fetch((ok, bytes) => {
      const matches = ok && crc32(bytes) === this.words[R.CHECKSUM >> 2];
      this.finish((matches ? Status.READ_SUCCESS : Status.READ_FAIL) | (ok ? 0 : Status.SRC_ADDR_INVALID));
    });
  }

  /** WRITE: the endpoint writes bytes of its own choice, and says their checksum. */
  private writeMemory(): void {
    const bytes = this.randomBytes(this.word(R.SIZE));
    this.words[R.CHECKSUM >> 2] = crc32(bytes);
    this.put(bytes, (ok) => this.finish(ok ? Status.WRITE_SUCCESS : Status.WRITE_FAIL | Status.DST_ADDR_INVALID));
  }

  private copyMemory(): void {
    this.fetch((readable, bytes) => {
      if (!readable) this.finish(Status.COPY_FAIL | Status.SRC_ADDR_INVALID);
      else this.put(bytes, (ok) => this.finish(ok ? Status.COPY_SUCCESS : Status.COPY_FAIL | Status.DST_ADDR_INVALID));
    });
  }

  private fetch(then: (ok: boolean, bytes: Uint8Array) => void): void {
    const { epoch } = this;
    this.port?.dmaRead(this.address(R.SRC_LO), this.word(R.SIZE), (ok, bytes) => {
      if (epoch === this.epoch) then(ok, bytes);
    });
  }

  private put(bytes: Uint8Array, then: (ok: boolean) => void): void {
    const { epoch } = this;
    this.port?.dmaWrite(this.address(R.DST_LO), bytes, (ok) => {
      if (epoch === this.epoch) then(ok);
    });
  }

  /** Halves of a BAR change places; each is filled with what tells which one it is. */
  private setUpHalves(): boolean {
    const bytes = this.barBytes(this.word(R.SIZE));
    if (bytes === null) return false;
    const half = bytes.length / 2;
    for (const index of [0, 1]) bytes.fill(0x50 + this.word(R.SIZE) * 8 + index, index * half, (index + 1) * half);
    this.swapped.add(this.word(R.SIZE));
    return true;
  }

  private clearHalves(): boolean {
    const bytes = this.barBytes(this.word(R.SIZE));
    if (bytes === null || !this.swapped.delete(this.word(R.SIZE))) return false;
    const half = bytes.length / 2;
    const first = bytes.slice(0, half);
    bytes.copyWithin(0, half);
    bytes.set(first, half);
    return true;
  }

  /** A BAR's bytes as the host sees them; null for the registers' BAR and for none. */
  private barBytes(bar: number): Uint8Array | null {
    if (bar === DOORBELL_BAR) return this.doorbellBar;
    const size = MEMORY_BARS.get(bar);
    return size === undefined ? null : (this.port?.barMemory(bar, 0, size) ?? null);
  }

  /** Adds to the status, then interrupts as IRQ_TYPE and IRQ_NUMBER ask. A pin is pulsed, as endpoints do that have no register to release it. */
  private finish(status: number): void {
    const { port } = this;
    this.words[R.STATUS >> 2] |= status | Status.IRQ_RAISED;
    if (port === null) return;
    const [type, number] = [this.word(R.IRQ_TYPE), this.word(R.IRQ_NUMBER)];
    if (type === IrqType.INTX) {
      port.setInterruptLine(true);
      port.setInterruptLine(false);
      return;
    }
    const count = (type === IrqType.MSI ? this.spec.msi?.vectors : this.spec.msix?.vectors) ?? 0;
    if (port.messagesEnabled && number >= 1 && number <= count) port.raise(number - 1);
  }

  /** The same bytes after each reset: xorshift. */
  private randomBytes(length: number): Uint8Array {
    // More than any carrier moves at once; the write is then refused.
    const bytes = new Uint8Array(Math.min(length, 2 ** 26 + 1));
    for (let at = 0; at < bytes.length; at++) {
      this.random ^= this.random << 13;
      this.random ^= this.random >>> 17;
      this.random ^= this.random << 5;
      bytes[at] = this.random;
    }
    return bytes;
  }

  private word(offset: number): number {
    return this.words[offset >> 2] >>> 0;
  }

  private address(lo: number): number {
    return this.word(lo + 4) * 2 ** 32 + this.word(lo);
  }
}

const memoryBar = (bar: number): BarSpec => {
  const size = MEMORY_BARS.get(bar) ?? 0;
  return { type: 'memory64', prefetchable: true, size, ranges: [{ kind: 'memory', offset: 0, size }] };
};

function load(bytes: Uint8Array, offset: number, size: number): number {
  let value = 0;
  for (let lane = 0; lane < size; lane++) value |= bytes[offset + lane] << (lane << 3);
  return value;
}

function store(bytes: Uint8Array, offset: number, size: number, value: number): void {
  for (let lane = 0; lane < size; lane++) bytes[offset + lane] = value >>> (lane << 3);
}
