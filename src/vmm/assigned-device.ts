/** A device in the guest: configuration space and BARs as the guest sees them, with its interrupts emulated in front of VFIO. */
import { CapabilityId } from '../arch/pci/capability.ts';
import { Header } from '../arch/pci/config.ts';
import { MSIX_BAR_MASK, Msix, msixPbaSize, msixTableSize, msixVectors } from '../arch/pci/msix.ts';
import type { Device } from '../vfio/device.ts';
import { VfioError } from '../vfio/error.ts';
import type { GsiRoutes } from './gsi-routes.ts';
import { GuestBars } from './guest-bars.ts';
import type { HostInterrupts } from './host-interrupts.ts';
import { Intx } from './intx.ts';
import type { KvmVm } from './kvm-vm.ts';
import { MsiEmulation } from './msi-emulation.ts';
import { MsixEmulation } from './msix-emulation.ts';

/** A part of a BAR that the guest never reaches on the device. */
interface Trap {
  readonly bar: number;
  readonly offset: number;
  readonly size: number;
  read(offset: number, size: number): number;
  write(offset: number, size: number, value: number): void;
}

export class AssignedDevice {
  readonly device: Device;
  /** Requester id in the guest; what the guest's ITS knows the device by. */
  readonly guestId: number;
  readonly bars: GuestBars;
  readonly msix: MsixEmulation | null;
  readonly msi: MsiEmulation | null;
  readonly intx: Intx | null;
  /** Offsets of the capabilities, 0 without. */
  readonly msixCapability: number;
  readonly msiCapability: number;
  /** What the guest could not be told, and what VFIO refused on the guest's behalf. */
  readonly warnings: string[] = [];
  /** Those of the warnings that are VFIO's, as errors. */
  readonly refusals: VfioError[] = [];
  readonly #traps: readonly Trap[];

  /** @param host what MSI-X is programmed through, when that is not the device itself */
  constructor(kvm: KvmVm, routes: GsiRoutes, device: Device, guestId: number, host: HostInterrupts = device.msix) {
    this.device = device;
    this.guestId = guestId;
    const { config } = device;
    const warn = (text: string): void => void this.warnings.push(`${device.name}: ${text}`);
    const onMode = (enabled: boolean): void => this.#lineMode(!enabled);
    const common = { kvm, routes, devid: guestId, onMode, warn };
    this.bars = new GuestBars(config, (index) => device.region(index).size);
    this.msixCapability = config.find(CapabilityId.MSIX) ?? 0;
    this.msiCapability = config.find(CapabilityId.MSI) ?? 0;
    const pin = config.read8(Header.INTERRUPT_PIN);
    const line = kvm.map.pci.intx + (((guestId >> 3) + Math.max(pin - 1, 0)) & 3);
    this.intx = pin === 0 ? null : new Intx(kvm, device.intx, line);
    this.msi =
      this.msiCapability === 0
        ? null
        : new MsiEmulation({ ...common, host: device.msi, flags: config.read16(this.msiCapability + Msix.FLAGS) });
    if (this.msixCapability === 0) {
      this.msix = null;
      this.#traps = [];
      return;
    }
    const vectors = msixVectors(config.read16(this.msixCapability + Msix.FLAGS));
    const table = location(config.read32(this.msixCapability + Msix.TABLE));
    const pba = location(config.read32(this.msixCapability + Msix.PBA));
    const hostPending = (offset: number): number => device.bar(pba.bar).read32(pba.offset + offset);
    const msix = new MsixEmulation({ ...common, host, vectors, hostPending });
    this.msix = msix;
    this.#traps = [
      {
        ...table,
        size: msixTableSize(vectors),
        read: (o, s) => msix.readTable(o, s),
        write: (o, s, v) => msix.writeTable(o, s, v),
      },
      { ...pba, size: msixPbaSize(vectors), read: (o, s) => msix.readPending(o, s), write: () => {} },
    ];
  }

  /** `size` 1, 2 or 4; all ones where the device has nothing, as on a bus. */
  configRead(offset: number, size: number): number {
    let value = this.#guard(2 ** (size * 8) - 1, () => this.#hostConfig(offset, size));
    for (let i = 0; i < size; i++) {
      const own = this.#emulatedByte(offset + i);
      if (own !== null) value = value - ((Math.floor(value / 2 ** (8 * i)) & 0xff) - own) * 2 ** (8 * i);
    }
    return value;
  }

  configWrite(offset: number, size: number, value: number): void {
    this.#guard(undefined, () => {
      if (this.#writeMsix(offset, size, value) || this.#writeMsi(offset, size, value)) return;
      const { config } = this.device;
      if (size === 1) config.write8(offset, value & 0xff);
      else if (size === 2) config.write16(offset, value & 0xffff);
      else config.write32(offset, value >>> 0);
      const bars = offset < Header.BAR0 + 24 && offset + size > Header.BAR0;
      if (bars || (offset < Header.STATUS && offset + size > Header.COMMAND)) this.bars.refresh();
    });
  }

  /** Null: no BAR of this device decodes the address. */
  mmioRead(gpa: number, size: number): number | null {
    const place = this.bars.find(gpa);
    if (place === null) return null;
    const offset = gpa - place.base;
    const trap = this.#trap(place.index, offset);
    if (trap !== null) return trap.read(offset - trap.offset, size);
    return this.#guard(2 ** (size * 8) - 1, () => {
      const region = this.device.bar(place.index);
      return size === 1 ? region.read8(offset) : size === 2 ? region.read16(offset) : region.read32(offset);
    });
  }

  mmioWrite(gpa: number, size: number, value: number): boolean {
    const place = this.bars.find(gpa);
    if (place === null) return false;
    const offset = gpa - place.base;
    const trap = this.#trap(place.index, offset);
    this.#guard(undefined, () => {
      const region = this.device.bar(place.index);
      if (trap !== null) trap.write(offset - trap.offset, size, value);
      else if (size === 1) region.write8(offset, value & 0xff);
      else if (size === 2) region.write16(offset, value & 0xffff);
      else region.write32(offset, value >>> 0);
    });
    return true;
  }

  /** Lets the device's line reach the guest, as before any driver enabled MSIs. */
  start(): void {
    this.#lineMode(true);
  }

  /** The guest is reset: interrupts off, the device back to power-on state where it can be, its line on again. @throws VfioError */
  reset(): void {
    this.msix?.reset();
    this.msi?.reset();
    this.intx?.disable();
    if (this.device.info().resettable) this.device.reset();
    this.bars.refresh();
    this.start();
  }

  /** Interrupts off, in the order that loses none on the way. */
  stop(): void {
    this.msix?.disable();
    this.msi?.reset();
    this.intx?.disable();
  }

  /** A device with nothing but MSI has no line to come back to. */
  #lineMode(on: boolean): void {
    if (on) this.intx?.enable();
    else this.intx?.disable();
  }

  #writeMsix(offset: number, size: number, value: number): boolean {
    const at = this.msixCapability + Msix.FLAGS;
    if (this.msix === null || offset >= at + 2 || offset + size <= at) return false;
    const bytes = new DataView(new ArrayBuffer(2));
    bytes.setUint16(0, this.msix.flags, true);
    for (let i = 0; i < size; i++) {
      const byte = offset + i - at;
      if (byte === 0 || byte === 1) bytes.setUint8(byte, (value >>> (8 * i)) & 0xff);
    }
    this.msix.writeFlags(bytes.getUint16(0, true));
    return true;
  }

  #writeMsi(offset: number, size: number, value: number): boolean {
    const at = this.msiCapability;
    if (this.msi === null || offset >= at + this.msi.length || offset + size <= at + Msix.FLAGS) return false;
    // A dword from the capability's id on: its first half is read-only.
    const skip = Math.max(at + Msix.FLAGS - offset, 0);
    this.msi.write(offset + skip - at, size - skip, value >>> (8 * skip));
    return true;
  }

  #emulatedByte(offset: number): number | null {
    const { msix, msi, msixCapability, msiCapability } = this;
    const flag = offset - msixCapability - Msix.FLAGS;
    if (msix !== null && (flag === 0 || flag === 1)) return (msix.flags >> (8 * flag)) & 0xff;
    const inMsi = offset - msiCapability;
    if (msi !== null && inMsi >= Msix.FLAGS && inMsi < msi.length) return msi.read(inMsi, 1);
    return null;
  }

  #hostConfig(offset: number, size: number): number {
    const { config } = this.device;
    return size === 1 ? config.read8(offset) : size === 2 ? config.read16(offset) : config.read32(offset);
  }

  #trap(bar: number, offset: number): Trap | null {
    return (
      this.#traps.find((trap) => trap.bar === bar && offset >= trap.offset && offset - trap.offset < trap.size) ?? null
    );
  }

  /** A guest's access never throws: what VFIO refuses is noted, and the guest reads all ones. */
  #guard<T>(otherwise: T, act: () => T): T {
    try {
      return act();
    } catch (error) {
      if (!(error instanceof VfioError)) throw error;
      this.warnings.push(`${this.device.name}: ${error.message}`);
      this.refusals.push(error);
      return otherwise;
    }
  }
}

const location = (register: number): { bar: number; offset: number } => ({
  bar: register & MSIX_BAR_MASK,
  offset: (register & ~MSIX_BAR_MASK) >>> 0,
});
