/** A device's configuration space as VFIO shows it: partly the hardware's, partly the kernel's own copy. */
import {
  Command,
  capabilities,
  EXTENDED_CONFIG_SIZE,
  extendedCapabilities,
  type FoundCapability,
  Header,
} from '../arch/pci/index.ts';
import type { Region } from './region.ts';

/**
 * @example
 * const { config } = device;
 * console.log(config.vendorId.toString(16), config.find(CapabilityId.MSIX));
 * config.busMaster = true; // without it no DMA and no MSI leaves the device
 */
export class ConfigSpace {
  readonly region: Region;

  constructor(region: Region) {
    this.region = region;
  }

  /** 256 or 4096 bytes. */
  get size(): number {
    return this.region.size;
  }

  read8(offset: number): number {
    return this.region.read8(offset);
  }

  read16(offset: number): number {
    return this.region.read16(offset);
  }

  read32(offset: number): number {
    return this.region.read32(offset);
  }

  write8(offset: number, value: number): void {
    this.region.write8(offset, value);
  }

  write16(offset: number, value: number): void {
    this.region.write16(offset, value);
  }

  write32(offset: number, value: number): void {
    this.region.write32(offset, value);
  }

  get vendorId(): number {
    return this.read16(Header.VENDOR_ID);
  }

  get deviceId(): number {
    return this.read16(Header.DEVICE_ID);
  }

  /** May the device do DMA and send MSIs? Off after every open. */
  get busMaster(): boolean {
    return (this.read16(Header.COMMAND) & Command.BUS_MASTER) !== 0;
  }

  set busMaster(on: boolean) {
    this.#command(Command.BUS_MASTER, on);
  }

  /** Does the device answer at its memory BARs? */
  get memoryEnabled(): boolean {
    return (this.read16(Header.COMMAND) & Command.MEMORY) !== 0;
  }

  set memoryEnabled(on: boolean) {
    this.#command(Command.MEMORY, on);
  }

  /** The capability list, in its order. */
  capabilities(): readonly FoundCapability[] {
    return capabilities((offset, size) => this.#read(offset, size));
  }

  /** The extended capability list; empty when the space ends at 256 bytes. */
  extendedCapabilities(): readonly FoundCapability[] {
    return this.size < EXTENDED_CONFIG_SIZE ? [] : extendedCapabilities((offset, size) => this.#read(offset, size));
  }

  /** Offset of the first capability `id`, or null. */
  find(id: number): number | null {
    return this.capabilities().find((capability) => capability.id === id)?.offset ?? null;
  }

  findExtended(id: number): number | null {
    return this.extendedCapabilities().find((capability) => capability.id === id)?.offset ?? null;
  }

  #read(offset: number, size: number): number {
    if (size === 1) return this.read8(offset);
    return size === 2 ? this.read16(offset) : this.read32(offset);
  }

  #command(bit: number, on: boolean): void {
    const command = this.read16(Header.COMMAND);
    this.write16(Header.COMMAND, on ? command | bit : command & ~bit);
  }
}
