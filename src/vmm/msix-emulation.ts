/** The guest's MSI-X: its table and pending bits, which never reach the device, and what they make the host do (QEMU hw/vfio/pci.c). */
import { MsixEntry, MsixFlags } from '../arch/pci/msix.ts';
import type { GsiRoutes, RawMessage } from './gsi-routes.ts';
import type { HostInterrupts } from './host-interrupts.ts';
import type { KvmVm } from './kvm-vm.ts';
import { Vector } from './vector.ts';

export interface MsixOptions {
  readonly kvm: KvmVm;
  readonly routes: GsiRoutes;
  readonly host: HostInterrupts;
  readonly vectors: number;
  /** The device's requester id in the guest. */
  readonly devid: number;
  /** Called when MSI-X goes on (INTx must be off by then) and off. */
  readonly onMode: (enabled: boolean) => void;
  /** 32 bits of the device's own pending bits; vectors that never had a handler wait there. */
  readonly hostPending?: (offset: number) => number;
  /** Told what the guest cannot be told. */
  readonly warn: (text: string) => void;
}

/**
 * The host's vectors are allocated all at once when they cannot be added later: QEMU adds them as the guest unmasks, for which it
 * disables MSI-X altogether, and an interrupt in that moment is lost. Vectors without a handler cost the host an interrupt each.
 */
export class MsixEmulation {
  readonly vectors: number;
  readonly #options: MsixOptions;
  readonly #table: DataView;
  readonly #pending: Uint8Array;
  readonly #used: (Vector | null)[];
  #enabled = false;
  #functionMask = false;
  /** Host vectors that exist: program() reaches [0, allocated). */
  #allocated = 0;
  #limit: number;

  constructor(options: MsixOptions) {
    this.#options = options;
    this.vectors = options.vectors;
    this.#limit = options.vectors;
    this.#table = new DataView(new ArrayBuffer(options.vectors * MsixEntry.SIZE));
    this.#pending = new Uint8Array(Math.ceil(options.vectors / 64) * 8);
    this.#used = new Array<Vector | null>(options.vectors).fill(null);
    this.#resetTable();
  }

  get enabled(): boolean {
    return this.#enabled;
  }

  /** The message control word as the guest reads it. */
  get flags(): number {
    const enable = this.#enabled ? MsixFlags.ENABLE : 0;
    return (this.vectors - 1) | enable | (this.#functionMask ? MsixFlags.FUNCTION_MASK : 0);
  }

  /** The guest wrote the message control word. */
  writeFlags(value: number): void {
    const enable = (value & MsixFlags.ENABLE) !== 0;
    const before = this.#functionMask;
    this.#functionMask = (value & MsixFlags.FUNCTION_MASK) !== 0;
    if (enable !== this.#enabled) {
      if (enable) this.#enable();
      else this.disable();
    } else if (enable && before !== this.#functionMask) {
      for (let i = 0; i < this.vectors; i++) this.#maskChanged(i, before || this.#entryMasked(i));
      this.#options.routes.commit();
    }
  }

  readTable(offset: number, size: number): number {
    return readBytes(this.#table, offset, size);
  }

  writeTable(offset: number, size: number, value: number): void {
    const index = Math.floor(offset / MsixEntry.SIZE);
    if (index >= this.vectors) return;
    const masked = this.isMasked(index);
    writeBytes(this.#table, offset, size, value);
    if (!this.#enabled) return;
    this.#maskChanged(index, masked);
    if (!masked && !this.isMasked(index)) this.#redirect(index);
  }

  /** The pending bits: what is held here, and what the device holds for vectors that never had a handler. */
  readPending(offset: number, size: number): number {
    for (let i = 0; i < this.vectors; i++) this.#collect(i);
    const own = readBytes(new DataView(this.#pending.buffer), offset, size);
    const aligned = offset & ~3;
    const host = (this.#options.hostPending?.(aligned) ?? 0) >>> ((offset & 3) * 8);
    return size === 4 ? (own | host) >>> 0 : (own | host) & (2 ** (size * 8) - 1);
  }

  isMasked(index: number): boolean {
    return this.#functionMask || this.#entryMasked(index);
  }

  /** Host vectors that exist now, and those that the host said it can give. */
  get allocated(): number {
    return this.#allocated;
  }

  /** The host's vectors go first, so that nothing arrives at an irqfd that is going away. */
  disable(): void {
    if (!this.#enabled) return;
    this.#enabled = false;
    this.#options.host.disable();
    this.#allocated = 0;
    for (const [i, vector] of this.#used.entries()) {
      if (vector === null) continue;
      this.#collect(i);
      vector.close();
      this.#used[i] = null;
    }
    this.#options.routes.commit();
    this.#options.onMode(false);
  }

  /** A reset of the function. */
  reset(): void {
    this.disable();
    this.#functionMask = false;
    this.#pending.fill(0);
    this.#resetTable();
  }

  /** Routes first and in one batch, then irqfds, then the host: an interrupt finds its whole way. */
  #enable(): void {
    const { host, routes, onMode } = this.#options;
    onMode(true);
    this.#enabled = true;
    const unmasked = this.#used.map((_, i) => i).filter((i) => !this.isMasked(i));
    for (const i of unmasked) this.#use(i);
    routes.commit();
    for (const i of unmasked) this.#used[i]?.arm();
    const highest = unmasked.at(-1) ?? 0;
    this.#allocate(host.info().resizable ? highest + 1 : this.vectors);
    for (const i of unmasked) this.#release(i);
  }

  /** A short answer is taken as it is: the guest keeps its table, and its vectors beyond cannot fire. */
  #allocate(count: number): void {
    const { host, warn } = this.#options;
    let wanted = Math.min(count, this.#limit);
    for (;;) {
      const fds = Array.from({ length: wanted }, (_, i) => this.#target(i));
      const granted = host.program(0, fds);
      if (granted === 0) break;
      if (granted >= wanted) throw new RangeError(`SET_IRQS offers ${granted} vectors instead of ${wanted}`);
      warn(
        `MSI-X: the host has ${granted} of ${wanted} vectors; vectors ${granted} to ${this.vectors - 1} of the guest cannot fire`,
      );
      this.#limit = granted;
      wanted = granted;
    }
    this.#allocated = wanted;
  }

  /** -1 for a vector that the guest never unmasked. */
  #target(index: number): number {
    const vector = this.#used[index];
    if (vector === null || vector === undefined) return -1;
    return this.isMasked(index) || vector.gsi < 0 ? vector.held.fd : vector.bypass.fd;
  }

  #maskChanged(index: number, before: boolean): void {
    const masked = this.isMasked(index);
    if (masked === before) return;
    if (masked) this.#program(index);
    else {
      this.#use(index);
      this.#options.routes.commit();
      this.#used[index]?.arm();
      this.#program(index);
      this.#release(index);
    }
  }

  /** The guest changed the message of a vector that it had not masked. */
  #redirect(index: number): void {
    this.#used[index]?.stage(this.#message(index), this.#options.devid);
    this.#options.routes.commit();
    this.#used[index]?.arm();
  }

  #use(index: number): void {
    const { kvm, routes, devid, warn } = this.#options;
    this.#used[index] ??= new Vector(kvm, routes, index);
    const vector = this.#used[index];
    vector.stage(this.#message(index), devid);
    if (vector.gsi < 0) warn(`MSI-X ${index}: the guest's message leads to no interrupt of its controller`);
  }

  #program(index: number): void {
    const { host } = this.#options;
    if (index < this.#allocated) host.program(index, [this.#target(index)]);
    else if (index >= this.#limit) return;
    else if (host.info().resizable) {
      const short = host.program(index, [this.#target(index)]);
      if (short === 0) this.#allocated = index + 1;
    } else {
      host.disable();
      this.#allocate(index + 1);
    }
  }

  /** What waited while the vector was masked goes on now. */
  #release(index: number): void {
    this.#collect(index);
    if (!this.#isPending(index)) return;
    this.#pending[index >> 3] &= ~(1 << (index & 7));
    this.#used[index]?.forward();
  }

  #collect(index: number): void {
    if ((this.#used[index]?.takeHeld() ?? 0) > 0) this.#pending[index >> 3] |= 1 << (index & 7);
  }

  #isPending(index: number): boolean {
    return (this.#pending[index >> 3] & (1 << (index & 7))) !== 0;
  }

  #entryMasked(index: number): boolean {
    return (this.#table.getUint32(index * MsixEntry.SIZE + MsixEntry.CONTROL, true) & MsixEntry.MASKED) !== 0;
  }

  #message(index: number): RawMessage {
    const at = index * MsixEntry.SIZE;
    return {
      addressLo: this.#table.getUint32(at + MsixEntry.ADDRESS_LO, true),
      addressHi: this.#table.getUint32(at + MsixEntry.ADDRESS_HI, true),
      data: this.#table.getUint32(at + MsixEntry.DATA, true),
    };
  }

  #resetTable(): void {
    new Uint8Array(this.#table.buffer).fill(0);
    for (let i = 0; i < this.vectors; i++) {
      this.#table.setUint32(i * MsixEntry.SIZE + MsixEntry.CONTROL, MsixEntry.MASKED, true);
    }
  }
}

/** 1, 2 or 4 bytes, unsigned; zero beyond the end. */
export function readBytes(view: DataView, offset: number, size: number): number {
  let value = 0;
  for (let i = 0; i < size && offset + i < view.byteLength; i++) value += view.getUint8(offset + i) * 2 ** (8 * i);
  return value;
}

export function writeBytes(view: DataView, offset: number, size: number, value: number): void {
  for (let i = 0; i < size && offset + i < view.byteLength; i++) view.setUint8(offset + i, (value >>> (8 * i)) & 0xff);
}
