/** MSI (PCI 3.0 section 6.8.1): 32 or 64-bit address, 1 to 32 messages, optionally a mask and a pending bit for each. */
import {
  Msi,
  MsiFlags,
  msiCapable,
  msiDataOffset,
  msiGranted,
  msiLength,
  msiMaskOffset,
  msiPendingOffset,
} from '../../arch/pci/index.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import type { ConfigSpace, ConfigWatcher } from './config-space.ts';
import type { MessageSender } from './msix.ts';

export class MsiCapability implements ConfigWatcher {
  readonly offset: number;
  /** Messages that the function asks for. */
  readonly capable: number;
  readonly perVectorMask: boolean;
  enabled = false;
  /** Messages that software granted. */
  granted = 1;
  addressHi = 0;
  addressLo = 0;
  /** With the bits below log2(granted) clear: a vector's number takes their place. */
  data = 0;
  mask = 0;
  pending = 0;
  private readonly config: ConfigSpace;
  private readonly flags: number;
  private readonly ledger: Float64Array;
  private readonly sender: MessageSender;

  constructor(config: ConfigSpace, offset: number, ledger: Float64Array, sender: MessageSender) {
    this.config = config;
    this.offset = offset;
    this.ledger = ledger;
    this.sender = sender;
    const flags = config.read(offset + Msi.FLAGS, 2);
    this.flags = flags;
    this.capable = msiCapable(flags);
    this.perVectorMask = (flags & MsiFlags.PER_VECTOR_MASK) !== 0;
    config.allow(offset + Msi.FLAGS, 2, MsiFlags.ENABLE | MsiFlags.ENABLED_MASK);
    config.allow(offset + Msi.ADDRESS_LO, 4, ~3);
    if ((flags & MsiFlags.ADDRESS_64) !== 0) config.allow(offset + Msi.ADDRESS_HI, 4, -1);
    config.allow(offset + msiDataOffset(flags), 2, 0xffff);
    if (this.perVectorMask) config.allow(offset + msiMaskOffset(flags), 4, this.vectorBits);
    config.watch(offset, msiLength(flags), this);
  }

  /** A one for each message that exists. */
  private get vectorBits(): number {
    return this.capable === 32 ? -1 : (1 << this.capable) - 1;
  }

  isMasked(vector: number): boolean {
    return (this.mask & (1 << vector)) !== 0;
  }

  /** Sets the pending bit; false when it was set already. */
  hold(vector: number): boolean {
    const bit = 1 << vector;
    if ((this.pending & bit) !== 0) return false;
    this.setPending(this.pending | bit);
    this.ledger[Count.PENDING] += 1;
    return true;
  }

  written(): void {
    const { config, offset, flags } = this;
    const control = config.read(offset + Msi.FLAGS, 2);
    this.enabled = (control & MsiFlags.ENABLE) !== 0;
    this.granted = msiGranted(control);
    this.addressLo = config.read(offset + Msi.ADDRESS_LO, 4) | 0;
    this.addressHi = (flags & MsiFlags.ADDRESS_64) !== 0 ? config.read(offset + Msi.ADDRESS_HI, 4) | 0 : 0;
    this.data = config.read(offset + msiDataOffset(flags), 2) & ~(this.granted - 1);
    if (this.perVectorMask) this.mask = config.read(offset + msiMaskOffset(flags), 4) | 0;
    this.sender.messagesChanged();
    this.sync();
  }

  /** Sends the pending vectors that no mask holds. */
  private sync(): void {
    for (let bits = this.pending & ~this.mask; bits !== 0 && this.enabled; bits &= bits - 1) {
      const vector = 31 - Math.clz32(bits & -bits);
      if (vector >= this.granted) return;
      this.setPending(this.pending & ~(1 << vector));
      this.ledger[Count.PENDING] -= 1;
      this.sender.release(vector);
    }
  }

  private setPending(bits: number): void {
    this.pending = bits | 0;
    this.config.set(this.offset + msiPendingOffset(this.flags), 4, bits);
  }

  /** Conventional or function level reset; the configuration space has been reset already. Pending interrupts end here. */
  reset(): void {
    let held = 0;
    for (let bits = this.pending; bits !== 0; bits &= bits - 1) held++;
    this.ledger[Count.PENDING] -= held;
    this.ledger[Count.LOST + Loss.TORN_DOWN] += held;
    this.pending = 0;
    this.written();
  }
}
