/**
 * One channel of the engine: fetches descriptors as far as DMACOUNT allows, one after the other, copies or fills, and says so in CHANSTS, in memory
 * and by an interrupt. An error halts it with its bit in CHANERR; it starts again after a reset, or when CHANERR was cleared and a chain written.
 */
import type { PciPort } from '../../ports/pci.ts';
import {
  Chancmd,
  Chanctrl,
  Chanerr,
  Chansts,
  Control,
  IOAT_DESCRIPTOR_BYTES,
  IOAT_OP_COPY,
  IOAT_OP_FILL,
  ChannelRegister as R,
} from './registers.ts';

/** What a channel asks of the engine that it belongs to. */
export interface ChannelOwner {
  readonly port: PciPort | null;
  readonly largest: number;
  interrupt(channel: number): void;
}

interface Descriptor {
  readonly at: number;
  readonly size: number;
  readonly control: number;
  readonly source: number;
  /** The eight bytes that a fill has in place of a source. */
  readonly pattern: Uint8Array;
  readonly destination: number;
  readonly next: number;
}

export class IoatChannel {
  private readonly owner: ChannelOwner;
  private readonly index: number;
  private state: number = Chansts.HALTED;
  private control = 0;
  private intDisabled = false;
  private dmaCount = 0;
  /** Descriptors done since the chain's address was written, modulo 2^16. */
  private done = 0;
  private completed = 0;
  private current = 0;
  private next = 0;
  private errors = 0;
  private errorMask = 0;
  private dcaControl = 0;
  /** CHAINADDR and CHANCMP: low and high word of each. */
  private readonly addresses = new Int32Array(4);
  /** Is a request of its own under way? A reset or a suspension waits for it. */
  private busy = false;
  private resetting = false;
  private suspending = false;
  /** Counts resets of the function: what was under way before one is nobody's. */
  private epoch = 0;

  constructor(owner: ChannelOwner, index: number) {
    this.owner = owner;
    this.index = index;
  }

  /** Reset of the whole function: everything as at power-on. */
  powerOn(): void {
    this.epoch += 1;
    this.busy = false;
    this.control = 0;
    this.errorMask = 0;
    this.dcaControl = 0;
    this.intDisabled = false;
    this.halt();
  }

  /** The 32-bit word at `offset`, a multiple of 4. */
  readWord(offset: number): number {
    switch (offset) {
      case R.CHANCTRL:
        return this.control | (this.intDisabled ? Chanctrl.INT_DISABLE : 0) | (2 << 16);
      case R.CHANCMD:
        return (this.resetting ? Chancmd.RESET : 0) | (this.suspending ? Chancmd.SUSPEND : 0) | (this.dmaCount << 16);
      case R.CHANSTS:
        return (this.completed | this.state) >> 0;
      case R.CHANSTS + 4:
        return high(this.completed);
      case R.CDAR:
        return this.current | 0;
      case R.CDAR + 4:
        return high(this.current);
      case R.CHANERR:
        return this.errors;
      case R.CHANERRMSK:
        return this.errorMask;
      case R.DCACTRL:
        return this.dcaControl;
      default:
        return offset >= R.CHAINADDR && offset < R.CDAR ? this.addresses[(offset - R.CHAINADDR) >> 2] : 0;
    }
  }

  /** A write of 1, 2 or 4 bytes. CHANCTRL takes 16 bits, CHANCMD 8, DMACOUNT 16, the others 32; other sizes are dropped. */
  write(offset: number, size: number, value: number): void {
    switch (offset) {
      case R.CHANCTRL:
        if (size === 1) return;
        this.control = value & Chanctrl.WRITABLE;
        if ((value & Chanctrl.INT_DISABLE) !== 0) this.intDisabled = false;
        return;
      case R.CHANCMD:
        this.command(value & 0xff);
        return;
      case R.DMACOUNT:
        if (size !== 2) return;
        this.dmaCount = value & 0xffff;
        this.start();
        return;
      default:
        if (size === 4) this.writeWord(offset, value);
    }
  }

  private writeWord(offset: number, value: number): void {
    if (offset === R.CHANERR) this.errors &= ~value;
    else if (offset === R.CHANERRMSK) this.errorMask = value;
    else if (offset === R.DCACTRL) this.dcaControl = value;
    else if (offset >= R.CHAINADDR && offset < R.CDAR && offset % 4 === 0) {
      this.addresses[(offset - R.CHAINADDR) >> 2] = value;
      if (offset < R.CHANCMP) this.newChain();
    }
  }

  /** A new chain: its count begins at zero. A channel at work goes on with the old one, as its next address is known already. */
  private newChain(): void {
    if (this.busy) return;
    this.next = this.address(0);
    this.done = 0;
    this.dmaCount = 0;
    this.completed = 0;
    if (this.state === Chansts.DONE) this.state = Chansts.SUSPENDED;
    else if (this.state === Chansts.HALTED && (this.errors & ~this.errorMask) === 0) this.state = Chansts.ARMED;
  }

  private command(command: number): void {
    if ((command & Chancmd.RESET) !== 0) {
      this.resetting = true;
      if (!this.busy) this.halt();
    } else if ((command & Chancmd.SUSPEND) !== 0 && this.state !== Chansts.HALTED) {
      if (this.busy) this.suspending = true;
      else this.state = Chansts.SUSPENDED;
    }
  }

  /** A known state (Halted). CHANCTRL, CHANERRMSK and DCACTRL are the software's and stay. */
  private halt(): void {
    this.state = Chansts.HALTED;
    this.resetting = false;
    this.suspending = false;
    this.dmaCount = 0;
    this.done = 0;
    this.completed = 0;
    this.current = 0;
    this.next = 0;
    this.errors = 0;
    this.addresses.fill(0);
  }

  private start(): void {
    if (this.busy || this.dmaCount === this.done || (this.errors & ~this.errorMask) !== 0) return;
    this.state = Chansts.ACTIVE;
    this.fetch();
  }

  /** Goes on with the next descriptor, or comes to rest. */
  private advance(): void {
    this.busy = false;
    if (this.resetting) this.halt();
    else if (this.suspending) {
      this.suspending = false;
      this.state = Chansts.SUSPENDED;
    } else if (this.state === Chansts.ACTIVE) {
      if (this.dmaCount === this.done) this.state = Chansts.DONE;
      else this.fetch();
    }
  }

  private fetch(): void {
    const { port } = this.owner;
    const at = this.next;
    if (port === null) return;
    this.busy = true;
    this.current = at;
    if (at % IOAT_DESCRIPTOR_BYTES !== 0) {
      this.fail(at === this.address(0) ? Chanerr.CHAIN_ADDR_VALUE : Chanerr.NEXT_DESC_ALIGN);
      return;
    }
    const { epoch } = this;
    port.dmaRead(at, IOAT_DESCRIPTOR_BYTES, (ok, bytes) => {
      if (epoch !== this.epoch) return;
      if (this.resetting) this.advance();
      else if (ok) this.perform(port, decode(at, bytes));
      else this.fail(Chanerr.NEXT_ADDR);
    });
  }

  private perform(port: PciPort, descriptor: Descriptor): void {
    const { size, control, source, destination } = descriptor;
    const operation = control >>> 24;
    if (operation !== IOAT_OP_COPY && operation !== IOAT_OP_FILL) this.fail(Chanerr.CONTROL);
    else if (size === 0 || size > this.owner.largest) this.fail(Chanerr.LENGTH);
    else if ((control & Control.NULL) !== 0) this.complete(port, descriptor);
    else if (operation === IOAT_OP_FILL) this.store(port, destination, filled(size, descriptor.pattern), descriptor);
    else {
      const { epoch } = this;
      port.dmaRead(source, size, (readable, bytes) => {
        if (epoch !== this.epoch) return;
        if (this.resetting) this.advance();
        else if (readable) this.store(port, destination, bytes, descriptor);
        else this.fail(Chanerr.READ_DATA);
      });
    }
  }

  private store(port: PciPort, destination: number, bytes: Uint8Array, descriptor: Descriptor): void {
    const { epoch } = this;
    port.dmaWrite(destination, bytes, (ok) => {
      if (epoch !== this.epoch) return;
      if (ok) this.complete(port, descriptor);
      else this.fail(Chanerr.WRITE_DATA);
    });
  }

  private complete(port: PciPort, { at, control, next }: Descriptor): void {
    if (this.resetting) {
      this.advance();
      return;
    }
    this.done = (this.done + 1) & 0xffff;
    this.completed = at;
    this.next = next;
    const last = this.dmaCount === this.done;
    const interrupt = (control & Control.INT_EN) !== 0;
    if ((control & Control.COMPL_WRITE) === 0) {
      this.advance();
      if (interrupt) this.interrupt();
      return;
    }
    this.report(port, last ? Chansts.DONE : Chansts.ACTIVE, (ok) => {
      if (ok) {
        this.advance();
        if (interrupt) this.interrupt();
      } else this.fail(Chanerr.COMPLETION_ADDR);
    });
  }

  /** Halts with an error; what CHANCTRL asks for follows: CHANSTS in memory, an interrupt. */
  private fail(error: number): void {
    const { port } = this.owner;
    if (this.resetting || port === null) {
      this.advance();
      return;
    }
    this.errors |= error;
    this.state = Chansts.HALTED;
    const masked = (error & ~this.errorMask) === 0;
    const finish = (): void => {
      this.suspending = false;
      this.advance();
      if ((this.control & Chanctrl.ERR_INT_EN) !== 0 && !masked) this.interrupt();
    };
    if ((this.control & Chanctrl.ERR_COMPLETION_EN) === 0 || error === Chanerr.COMPLETION_ADDR) finish();
    else
      this.report(port, Chansts.HALTED, (ok) => {
        if (!ok) this.errors |= Chanerr.COMPLETION_ADDR;
        finish();
      });
  }

  /** Writes CHANSTS to CHANCMP. */
  private report(port: PciPort, state: number, written: (ok: boolean) => void): void {
    const { epoch } = this;
    const bytes = new Uint8Array(8);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, (this.completed | state) >>> 0, true);
    view.setUint32(4, high(this.completed), true);
    port.dmaWrite(this.address(2) - (this.address(2) % 8), bytes, (ok) => {
      if (epoch === this.epoch) written(ok);
    });
  }

  private interrupt(): void {
    if (this.intDisabled) return;
    this.intDisabled = true;
    this.owner.interrupt(this.index);
  }

  private address(word: number): number {
    return (this.addresses[word + 1] >>> 0) * 2 ** 32 + (this.addresses[word] >>> 0);
  }
}

const high = (address: number): number => Math.floor(address / 2 ** 32) | 0;

function decode(at: number, bytes: Uint8Array): Descriptor {
  const view = new DataView(bytes.buffer, bytes.byteOffset, IOAT_DESCRIPTOR_BYTES);
  const word = (offset: number): number => view.getUint32(offset, true);
  const address = (offset: number): number => word(offset + 4) * 2 ** 32 + word(offset);
  return {
    at,
    size: word(0),
    control: word(4),
    source: address(8),
    pattern: bytes.slice(8, 16),
    destination: address(16),
    next: address(24),
  };
}

/** The pattern again and again from its first byte, cut off at `size`. */
function filled(size: number, pattern: Uint8Array): Uint8Array {
  return new Uint8Array(size).map((_, i) => pattern[i % pattern.length]!);
}
