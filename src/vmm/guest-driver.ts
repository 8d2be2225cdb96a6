/** A guest as a program: it attaches a CPU, sets up its controller and a device's interrupts, and serves them. */
import { CapabilityId, findCapability } from '../arch/pci/capability.ts';
import { Command, Header } from '../arch/pci/config.ts';
import { Msi, MsiFlags, msiDataOffset } from '../arch/pci/msi.ts';
import { MSIX_BAR_MASK, Msix, MsixEntry, MsixFlags, msixVectors } from '../arch/pci/msix.ts';
import type { GuestCpu } from '../ports/guest.ts';
import type { AssignedDevice } from './assigned-device.ts';
import { type GuestController, type GuestInterrupt, servingCpus, startController } from './guest-controller.ts';
import { GuestError } from './guest-error.ts';
import type { VirtualMachine } from './vm.ts';

const NOTHING = 1023;
const INTIDS = 65536;

/** Called with the device's vector (0 for INTx) before the end of the interrupt. */
export type GuestHandler = (vector: number) => void;

/** A device's interrupts as its guest driver holds them. */
export interface GuestVectors {
  readonly interrupts: readonly GuestInterrupt[];
  /** How often vector `index` was served. */
  count(index: number): number;
  /** MSI-X: the mask bit of one entry. */
  mask(index: number): void;
  unmask(index: number): void;
  /** The capability off, and the interrupts back to the controller. */
  disable(): void;
}

/**
 * Everything goes through guest-physical registers, configuration cycles and guest memory, as a guest's own driver would.
 *
 * @example
 * const guest = GuestDriver.start(vm);
 * const vectors = guest.enableMsix(assigned, 4, (vector) => console.log(vector));
 */
export class GuestDriver {
  readonly cpus: readonly GuestCpu[];
  readonly controller: GuestController;
  /** Served interrupts by slot; a slot is one vector of one device. */
  readonly counts = new Int32Array(4096);
  /** Interrupts that nobody had asked for. */
  unexpected = 0;
  /** A CPU with its interrupts masked: what arrives stays pending until `serve` after it is false again. */
  paused = false;
  private readonly vm: VirtualMachine;
  /** Slot of an interrupt identifier of a CPU, or -1. */
  private readonly slots: Int32Array;
  private readonly vectorOfSlot = new Int32Array(4096);
  private readonly handlers: (GuestHandler | null)[] = [];
  private readonly freeSlots: number[] = [];

  private constructor(vm: VirtualMachine) {
    this.vm = vm;
    this.cpus = Array.from({ length: servingCpus(vm) }, (_, cpu) => vm.attachCpu(cpu, () => this.serveCpu(cpu)));
    this.slots = new Int32Array(INTIDS * this.cpus.length).fill(-1);
    this.controller = startController(vm, this.cpus);
  }

  /** Attaches the CPUs that serve interrupts and turns the controller on. @throws VfioError when a CPU cannot be attached */
  static start(vm: VirtualMachine): GuestDriver {
    return new GuestDriver(vm);
  }

  /** COMMAND of a device: memory decoding and bus mastering. */
  enableDevice({ guestId }: AssignedDevice): void {
    const command = this.vm.configRead(guestId, Header.COMMAND, 2);
    this.vm.configWrite(guestId, Header.COMMAND, 2, command | Command.MEMORY | Command.BUS_MASTER);
  }

  /** The first `count` MSI-X vectors, unmasked. @throws RangeError for more than the device has; GuestError for more than the guest's controller has */
  enableMsix(device: AssignedDevice, count: number, handler: GuestHandler | null = null): GuestVectors {
    const { guestId } = device;
    const capability = this.capability(guestId, CapabilityId.MSIX);
    const flags = this.vm.configRead(guestId, capability + Msix.FLAGS, 2);
    if (count > msixVectors(flags))
      throw new RangeError(`the device has ${msixVectors(flags)} MSI-X vectors, not ${count}`);
    this.enableDevice(device);
    const table = this.tableAddress(guestId, capability);
    const interrupts = this.controller.allocateMsis(guestId, count);
    for (const [i, { message }] of interrupts.entries()) {
      const entry = table + i * MsixEntry.SIZE;
      this.vm.mmioWrite(entry + MsixEntry.ADDRESS_LO, 4, message.address >>> 0);
      this.vm.mmioWrite(entry + MsixEntry.ADDRESS_HI, 4, Math.floor(message.address / 2 ** 32));
      this.vm.mmioWrite(entry + MsixEntry.DATA, 4, message.data);
      this.vm.mmioWrite(entry + MsixEntry.CONTROL, 4, 0);
    }
    const slots = this.claim(interrupts, handler);
    const control = (enabled: boolean): void =>
      this.vm.configWrite(guestId, capability + Msix.FLAGS, 2, enabled ? MsixFlags.ENABLE : 0);
    control(true);
    const setMask = (index: number, value: number): void =>
      void this.vm.mmioWrite(table + index * MsixEntry.SIZE + MsixEntry.CONTROL, 4, value);
    return this.handle(guestId, interrupts, slots, setMask, () => {
      for (let i = 0; i < count; i++) setMask(i, MsixEntry.MASKED);
      control(false);
    });
  }

  /** `count` MSI vectors (1, 2, 4 … 32, at most what the device has). */
  enableMsi(device: AssignedDevice, count: number, handler: GuestHandler | null = null): GuestVectors {
    const { guestId } = device;
    const capability = this.capability(guestId, CapabilityId.MSI);
    const flags = this.vm.configRead(guestId, capability + Msi.FLAGS, 2);
    this.enableDevice(device);
    const interrupts = this.controller.allocateMsis(guestId, count, true);
    const { address, data } = interrupts[0].message;
    this.vm.configWrite(guestId, capability + Msi.ADDRESS_LO, 4, address >>> 0);
    if ((flags & MsiFlags.ADDRESS_64) !== 0) {
      this.vm.configWrite(guestId, capability + Msi.ADDRESS_HI, 4, Math.floor(address / 2 ** 32));
    }
    this.vm.configWrite(guestId, capability + msiDataOffset(flags), 2, data);
    const slots = this.claim(interrupts, handler);
    const messages = Math.log2(count) << MsiFlags.ENABLED_SHIFT;
    this.vm.configWrite(guestId, capability + Msi.FLAGS, 2, messages | MsiFlags.ENABLE);
    const unsupported = (): never => {
      throw new RangeError('plain MSI is masked through its capability, which this driver leaves alone');
    };
    return this.handle(guestId, interrupts, slots, unsupported, () =>
      this.vm.configWrite(guestId, capability + Msi.FLAGS, 2, 0),
    );
  }

  /** The device's line. The handler must quiet the device, or the interrupt comes again at its end. */
  enableIntx(device: AssignedDevice, handler: GuestHandler): GuestVectors {
    if (device.intx === null) throw new RangeError(`${device.device.name} has no interrupt line`);
    this.enableDevice(device);
    const line = this.controller.enableLine(device.intx.gsi);
    const interrupts = [{ ...line, message: { address: 0, data: 0 } }];
    const slots = this.claim(interrupts, handler);
    const unsupported = (): never => {
      throw new RangeError('a line is masked at the controller');
    };
    return this.handle(-1, interrupts, slots, unsupported, () => {});
  }

  /** Serves what is pending on every CPU: for a guest that polls, and after `paused`. */
  serve(): void {
    for (let cpu = 0; cpu < this.cpus.length; cpu++) this.serveCpu(cpu);
  }

  detach(): void {
    for (const cpu of this.cpus) cpu.detach();
  }

  /** What a CPU's signal calls. Hot. */
  private serveCpu(index: number): void {
    const { slots, counts } = this;
    const cpu = this.cpus[index];
    // The signal of a CPU that is just being attached.
    if (cpu === undefined) return;
    while (!this.paused) {
      const intid = cpu.acknowledge();
      if (intid === NOTHING) return;
      const slot = slots[index * INTIDS + intid];
      if (slot >= 0) {
        counts[slot]++;
        const handler = this.handlers[slot];
        if (handler !== null) handler(this.vectorOfSlot[slot]);
      } else this.unexpected++;
      cpu.endOfInterrupt(intid);
    }
  }

  private claim(interrupts: readonly GuestInterrupt[], handler: GuestHandler | null): readonly number[] {
    return interrupts.map(({ cpu, intid }, vector) => {
      const slot = this.freeSlots.pop() ?? this.handlers.length;
      if (slot >= this.counts.length) throw new GuestError(`the guest serves at most ${this.counts.length} interrupts`);
      this.handlers[slot] = handler;
      this.vectorOfSlot[slot] = vector;
      this.counts[slot] = 0;
      this.slots[cpu * INTIDS + intid] = slot;
      return slot;
    });
  }

  private handle(
    guestId: number,
    interrupts: readonly GuestInterrupt[],
    slots: readonly number[],
    setMask: (index: number, value: number) => void,
    off: () => void,
  ): GuestVectors {
    let live = true;
    return {
      interrupts,
      count: (index) => this.counts[slots[index]],
      mask: (index) => setMask(index, MsixEntry.MASKED),
      unmask: (index) => setMask(index, 0),
      disable: () => {
        if (!live) return;
        live = false;
        off();
        this.serve();
        if (guestId >= 0) this.controller.freeMsis(guestId, interrupts);
        for (const { cpu, intid } of interrupts) this.slots[cpu * INTIDS + intid] = -1;
        this.freeSlots.push(...slots);
      },
    };
  }

  private capability(guestId: number, id: number): number {
    const offset = findCapability((at, size) => this.vm.configRead(guestId, at, size), id);
    if (offset === 0) throw new RangeError(`the device has no capability 0x${id.toString(16)}`);
    return offset;
  }

  /** Guest-physical address of the MSI-X table, from the capability and the BAR that it names. */
  private tableAddress(guestId: number, capability: number): number {
    const table = this.vm.configRead(guestId, capability + Msix.TABLE, 4);
    const register = Header.BAR0 + (table & MSIX_BAR_MASK) * 4;
    const low = this.vm.configRead(guestId, register, 4);
    const high = (low & 6) === 4 ? this.vm.configRead(guestId, register + 4, 4) : 0;
    return high * 2 ** 32 + ((low & ~0xf) >>> 0) + ((table & ~MSIX_BAR_MASK) >>> 0);
  }
}
