/** The guest's MSI capability: control, address and data are kept here; mask and pending bits are the device's own (QEMU vfio_msi_enable). */
import { Msi, MsiFlags, msiCapable, msiDataOffset, msiGranted } from '../arch/pci/msi.ts';
import type { GsiRoutes, RawMessage } from './gsi-routes.ts';
import type { HostInterrupts } from './host-interrupts.ts';
import type { KvmVm } from './kvm-vm.ts';
import { readBytes, writeBytes } from './msix-emulation.ts';
import { sameMessage, Vector } from './vector.ts';

export interface MsiOptions {
  readonly kvm: KvmVm;
  readonly routes: GsiRoutes;
  readonly host: HostInterrupts;
  /** The device's message control word at open. */
  readonly flags: number;
  readonly devid: number;
  readonly onMode: (enabled: boolean) => void;
  readonly warn: (text: string) => void;
}

export class MsiEmulation {
  /** Bytes of the capability that are emulated: up to the data word. */
  readonly length: number;
  readonly #options: MsiOptions;
  /** The capability from its id on. */
  readonly #registers: DataView;
  #vectors: Vector[] = [];

  constructor(options: MsiOptions) {
    this.#options = options;
    this.length = msiDataOffset(options.flags) + 2;
    this.#registers = new DataView(new ArrayBuffer(this.length));
    this.#registers.setUint16(Msi.FLAGS, options.flags & ~(MsiFlags.ENABLE | MsiFlags.ENABLED_MASK), true);
  }

  get enabled(): boolean {
    return (this.#flags & MsiFlags.ENABLE) !== 0;
  }

  /** Vectors that the host gave; 0 while MSI is off. */
  get allocated(): number {
    return this.#vectors.length;
  }

  /** `offset` from the capability's start, 2 to `length`. */
  read(offset: number, size: number): number {
    return readBytes(this.#registers, offset, size);
  }

  write(offset: number, size: number, value: number): void {
    const before = this.#flags;
    const message = this.#message();
    writeBytes(this.#registers, offset, size, value);
    this.#registers.setUint16(Msi.FLAGS, writable(before, this.#flags), true);
    const was = (before & MsiFlags.ENABLE) !== 0;
    if (was && !this.enabled) this.#disable();
    else if (!was && this.enabled) this.#enable();
    else if (was && !sameMessage(message, this.#message())) this.#redirect();
  }

  /** A reset of the function, or the end. */
  reset(): void {
    if (this.enabled) this.#disable();
    this.#registers.setUint16(Msi.FLAGS, this.#flags & ~(MsiFlags.ENABLE | MsiFlags.ENABLED_MASK), true);
  }

  /** All vectors with one request; a host that has fewer says so, and that number is enabled. */
  #enable(): void {
    const { kvm, routes, host, onMode, warn } = this.#options;
    onMode(true);
    const wanted = msiGranted(this.#flags);
    this.#make(wanted);
    for (;;) {
      const granted = host.program(
        0,
        this.#vectors.map((vector) => (vector.gsi < 0 ? vector.held.fd : vector.bypass.fd)),
      );
      if (granted === 0) break;
      if (granted >= this.#vectors.length)
        throw new RangeError(`SET_IRQS offers ${granted} vectors instead of ${wanted}`);
      warn(`MSI: the host has ${granted} of ${wanted} vectors; the guest's others cannot fire`);
      for (const vector of this.#vectors.splice(granted)) vector.close();
      routes.commit();
    }
    if (kvm.isClosed) this.#disable();
  }

  #make(count: number): void {
    const { kvm, routes, devid } = this.#options;
    this.#vectors = Array.from({ length: count }, (_, i) => new Vector(kvm, routes, i));
    for (const [i, vector] of this.#vectors.entries()) vector.stage(this.#messageOf(i), devid);
    routes.commit();
    for (const vector of this.#vectors) vector.arm();
  }

  /** Whether INTx comes back is for the device to say: a device with nothing but MSI has none. */
  #disable(): void {
    const { host, routes, onMode } = this.#options;
    host.disable();
    for (const vector of this.#vectors) vector.close();
    this.#vectors = [];
    routes.commit();
    onMode(false);
  }

  #redirect(): void {
    const { routes, devid } = this.#options;
    for (const [i, vector] of this.#vectors.entries()) vector.stage(this.#messageOf(i), devid);
    routes.commit();
    for (const vector of this.#vectors) vector.arm();
  }

  /** With several messages the vector's number replaces the low bits of the data. */
  #messageOf(index: number): RawMessage {
    const message = this.#message();
    return { ...message, data: (message.data & ~(msiGranted(this.#flags) - 1)) | index };
  }

  #message(): RawMessage {
    const wide = (this.#flags & MsiFlags.ADDRESS_64) !== 0;
    return {
      addressLo: (this.#registers.getUint32(Msi.ADDRESS_LO, true) & ~3) >>> 0,
      addressHi: wide ? this.#registers.getUint32(Msi.ADDRESS_HI, true) : 0,
      data: this.#registers.getUint16(msiDataOffset(this.#flags), true),
    };
  }

  get #flags(): number {
    return this.#registers.getUint16(Msi.FLAGS, true);
  }
}

/** Enable and the number of messages are the guest's, the latter up to what the device has; the rest is read-only. */
function writable(before: number, after: number): number {
  const most = Math.log2(msiCapable(before)) << MsiFlags.ENABLED_SHIFT;
  const messages = Math.min(after & MsiFlags.ENABLED_MASK, most);
  return (before & ~(MsiFlags.ENABLE | MsiFlags.ENABLED_MASK)) | (after & MsiFlags.ENABLE) | messages;
}
