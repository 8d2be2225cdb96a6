/** A guest's interrupt translation service (IHI 0069 5; arch/arm64/kvm/vgic/vgic-its.c): registers and translation. */
import { ERRNO } from '../../../uapi/errno.ts';
import type { IoDevice } from '../io-bus.ts';
import { executeItsCommand } from './its-commands.ts';
import { ItsError } from './its-errors.ts';
import {
  type DeviceEntry,
  type EventEntry,
  entryAddress,
  eventAddress,
  readCollection,
  readDevice,
  readEvent,
  writeCollection,
  writeDevice,
} from './its-tables.ts';
import { half, withHalf } from './redistributor.ts';
import type { Vgic } from './vgic.ts';
import type { VgicCpu } from './vgic-cpu.ts';
import type { VgicIrq } from './vgic-irq.ts';

const CTLR = 0x0;
const IIDR = 0x4;
const TYPER = 0x8;
const CBASER = 0x80;
const CWRITER = 0x88;
const CREADR = 0x90;
const BASER0 = 0x100;
const BASER1 = 0x108;
const PIDR2 = 0xffe8;
/** Of the second 64 KiB. */
const TRANSLATER = 0x1_0040;

const ENABLED = 1;
const QUIESCENT = 0x8000_0000;
const VALID = 1n << 63n;
const INDIRECT = 1n << 62n;
/** Physical LPIs, 8-byte entries, 16 bits of event and of device identifiers. */
const TYPER_VALUE = 0x1_ef71n;
/** Type [58:56] and entry size [52:48] are fixed, the page size [9:8] is 64 KiB, address bits [51:48] do not exist. */
const BASER_FIXED = (7n << 56n) | (0x1fn << 48n) | (3n << 8n) | 0xf000n;
const BASER_DEVICE = (1n << 56n) | (7n << 48n) | (2n << 8n);
const BASER_COLLECTION = (4n << 56n) | (7n << 48n) | (2n << 8n);
const COMMAND = 32;

export class Its implements IoDevice {
  readonly name = 'ITS';
  readonly vgic: Vgic;
  /** Base of its 128 KiB; null until user space set it. */
  base: number | null = null;
  enabled = false;
  private cbaser = 0n;
  private cwriter = 0;
  private creadr = 0;
  deviceTable = BASER_DEVICE;
  collectionTable = BASER_COLLECTION;
  /** Identifiers that commands mapped: what a change of a table's base drops. */
  readonly devices = new Set<number>();
  readonly collections = new Set<number>();
  /** Commands that failed, and the last code: KVM skips them silently, and these are for people. */
  failures = 0;
  lastFailure = 0;
  /** KVM's translation cache: device << 16 | event, as one number. */
  private readonly cache = new Map<number, VgicIrq>();

  constructor(vgic: Vgic) {
    this.vgic = vgic;
  }

  /** The interrupt of a message: -EBUSY while the ITS or the CPU's LPIs are off, a positive code when the guest mapped nothing. */
  translate(deviceId: number, event: number): VgicIrq | number {
    const key = (deviceId & 0xffff) * 65536 + (event & 0xffff);
    const fits = deviceId >>> 16 === 0 && event >>> 16 === 0;
    const cached = fits ? this.cache.get(key) : undefined;
    if (cached !== undefined) return cached;
    const irq = this.resolve(deviceId, event);
    if (typeof irq !== 'number') this.cache.set(key, irq);
    return irq;
  }

  dropCache(): void {
    this.cache.clear();
  }

  /** vgic_its_resolve_lpi, in its order. */
  private resolve(deviceId: number, event: number): VgicIrq | number {
    if (!this.enabled) return -ERRNO.EBUSY;
    const entry = this.event(deviceId, event);
    const target = entry === null ? null : this.target(entry.collection);
    const cpu = target === null ? undefined : this.vgic.cpus[target];
    if (entry === null || cpu === undefined) return ItsError.E_ITS_INT_UNMAPPED_INTERRUPT;
    if (!cpu.lpisEnabled) return -ERRNO.EBUSY;
    const irq = this.vgic.lpi(entry.intid);
    // MOVALL moves interrupts away from their collection's CPU; only an interrupt without one takes it from here.
    if (irq.cpu === null) this.adopt(irq, entry.collection, cpu);
    return irq;
  }

  /** Notes which collection an interrupt belongs to, and sends it to that collection's CPU. */
  adopt(irq: VgicIrq, collection: number, cpu: VgicCpu | null): void {
    irq.its = this;
    irq.collection = collection;
    irq.retarget(cpu);
  }

  device(id: number): DeviceEntry | null {
    const at = entryAddress(this.vgic.vm.memory, this.deviceTable, id);
    return at === null ? null : readDevice(this.vgic.vm.memory, at);
  }

  event(deviceId: number, event: number): EventEntry | null {
    const device = this.device(deviceId);
    if (device === null || event < 0 || event >= 2 ** device.eventBits) return null;
    return readEvent(this.vgic.vm.memory, eventAddress(device, event));
  }

  /** The CPU of a collection, or null while it is not mapped. */
  target(collection: number): number | null {
    const at = entryAddress(this.vgic.vm.memory, this.collectionTable, collection);
    return at === null ? null : readCollection(this.vgic.vm.memory, at);
  }

  read(offset: number): number {
    switch (offset) {
      case CTLR:
        return (this.enabled ? ENABLED : 0) + (this.creadr === this.cwriter ? QUIESCENT : 0);
      case IIDR:
        return 0x4b00_043b;
      case TYPER:
      case TYPER + 4:
        return half(TYPER_VALUE, offset - TYPER);
      case CBASER:
      case CBASER + 4:
        return half(this.cbaser, offset - CBASER);
      case CWRITER:
        return this.cwriter;
      case CREADR:
        return this.creadr;
      case BASER0:
      case BASER0 + 4:
        return half(this.deviceTable, offset - BASER0);
      case BASER1:
      case BASER1 + 4:
        return half(this.collectionTable, offset - BASER1);
      case PIDR2:
        return 0x30;
      default:
        return 0;
    }
  }

  /** Writes of 4 bytes; a CPU's write to TRANSLATER has no device identifier and is dropped, as in KVM. */
  write(offset: number, size: number, value: number): void {
    if (size !== 4 || offset === TRANSLATER) return;
    if (offset === CTLR) this.writeControl((value & ENABLED) !== 0);
    else if (offset === CBASER || offset === CBASER + 4) this.writeCommandBase(offset - CBASER, value);
    else if (offset === CWRITER) {
      const writer = value & 0xf_ffe0;
      if (writer >= this.queueSize) return;
      this.cwriter = writer;
      this.processCommands();
    } else if (offset === BASER0 || offset === BASER0 + 4) {
      this.writeDeviceTable(withHalf(this.deviceTable, offset - BASER0, value));
    } else if (offset === BASER1 || offset === BASER1 + 4) {
      this.writeCollectionTable(withHalf(this.collectionTable, offset - BASER1, value));
    }
  }

  /** KVM_DEV_ARM_ITS_CTRL_RESET. */
  reset(): void {
    this.dropDevices();
    this.dropCollections();
    this.enabled = false;
    this.cbaser = 0n;
    this.cwriter = 0;
    this.creadr = 0;
    this.deviceTable = BASER_DEVICE;
    this.collectionTable = BASER_COLLECTION;
    this.vgic.invalidate();
  }

  /** vgic_mmio_write_its_ctlr: enabling needs the queue and both tables. */
  private writeControl(enabled: boolean): void {
    const bases = [this.cbaser, this.deviceTable, this.collectionTable];
    if (enabled && !this.enabled && bases.some((base) => (base & VALID) === 0n)) return;
    this.enabled = enabled;
    if (!enabled) this.vgic.invalidate();
    this.processCommands();
  }

  private writeCommandBase(offset: number, value: number): void {
    if (this.enabled) return;
    this.cbaser = withHalf(this.cbaser, offset, value);
    this.creadr = 0;
    this.cwriter = 0;
  }

  private writeDeviceTable(value: bigint): void {
    if (this.enabled) return;
    this.dropDevices();
    this.deviceTable = (value & ~BASER_FIXED) | BASER_DEVICE;
  }

  private writeCollectionTable(value: bigint): void {
    if (this.enabled) return;
    this.dropCollections();
    this.collectionTable = (value & ~(BASER_FIXED | INDIRECT)) | BASER_COLLECTION;
  }

  private dropDevices(): void {
    const { memory } = this.vgic.vm;
    for (const id of this.devices) {
      const at = entryAddress(memory, this.deviceTable, id);
      if (at !== null) writeDevice(memory, at, null);
    }
    this.devices.clear();
    this.vgic.invalidate();
  }

  private dropCollections(): void {
    const { memory } = this.vgic.vm;
    for (const id of this.collections) {
      const at = entryAddress(memory, this.collectionTable, id);
      if (at !== null) writeCollection(memory, at, id, null);
    }
    this.collections.clear();
    this.vgic.invalidate();
  }

  private get queueSize(): number {
    return (Number(this.cbaser & 0xffn) + 1) * 4096;
  }

  /** vgic_its_process_commands: at once, until the reader meets the writer. */
  private processCommands(): void {
    if (!this.enabled) return;
    const base = Number(this.cbaser & 0xf_ffff_ffff_f000n);
    const bytes = new Uint8Array(COMMAND);
    const view = new DataView(bytes.buffer);
    while (this.creadr !== this.cwriter) {
      // A command that cannot be read is skipped (no SError is modelled).
      if (this.vgic.vm.memory.read(base + this.creadr, bytes)) {
        const words = [0, 8, 16, 24].map((at) => view.getBigUint64(at, true));
        const code = executeItsCommand(this, words);
        if (code !== 0) {
          this.failures += 1;
          this.lastFailure = code;
        }
      }
      this.creadr = (this.creadr + COMMAND) % this.queueSize;
    }
  }
}
