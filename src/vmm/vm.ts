/** A small VMM: a guest's memory and controllers in KVM, and devices handed to it through VFIO. */
import { CapabilityId } from '../arch/pci/capability.ts';
import { Msi, MsiFlags } from '../arch/pci/msi.ts';
import { hex } from '../ports/address.ts';
import type { GuestCpu, GuestPort } from '../ports/guest.ts';
import type { Kernel, UserBuffer } from '../ports/kernel.ts';
import { CdevDevice } from '../vfio/cdev-device.ts';
import { Container } from '../vfio/container.ts';
import type { Device } from '../vfio/device.ts';
import { check, VfioError } from '../vfio/error.ts';
import { Ioas } from '../vfio/ioas.ts';
import { Iommufd } from '../vfio/iommufd.ts';
import { Nested } from '../vfio/nested.ts';
import { openDevice } from '../vfio/open-device.ts';
import { Resource } from '../vfio/resource.ts';
import { AssignedDevice } from './assigned-device.ts';
import { withoutHoles } from './dma-ranges.ts';
import { chooseDoorbell, type DoorbellChoice, type DoorbellPolicy, type ReservedSpan } from './doorbell-rule.ts';
import { GsiRoutes } from './gsi-routes.ts';
import { type GuestMap, type GuestRange, guestDoorbell, guestMapProblems } from './guest-map.ts';
import { GuestMapError } from './guest-map-file.ts';
import { KvmVm } from './kvm-vm.ts';
import { GuestV2mFrame } from './v2m-frame.ts';

/** `nested`: an IOAS too, under a stage 1 that the VMM owns. */
export type GuestIommu = 'type1' | 'iommufd' | 'nested';

export interface VmOptions {
  readonly map: GuestMap;
  readonly cpus?: number;
  /** What the guest's memory is mapped into for devices: a container with type1 (default), or an IOAS of iommufd, with or without a stage 1 over it. */
  readonly iommu?: GuestIommu;
  /** Attaches guest CPUs; without it the guest cannot be started as a program. */
  readonly guestPort?: GuestPort;
}

export interface AssignOptions {
  readonly doorbell?: DoorbellPolicy;
  /** The slot in the guest, bus 0; left out: the next free one from 1. */
  readonly slot?: number;
}

/** RAM is had in blocks of 1 GiB, since bytes of more than 2 GiB have no single view. */
const BLOCK = 2 ** 30;
const blocks = (ram: readonly GuestRange[]): GuestRange[] =>
  ram.flatMap(({ base, size }) =>
    Array.from({ length: Math.ceil(size / BLOCK) }, (_, i) => ({
      base: base + i * BLOCK,
      size: Math.min(BLOCK, size - i * BLOCK),
    })),
  );

/** A device in the guest, with what was decided for it. */
export interface Assignment {
  readonly device: AssignedDevice;
  readonly doorbell: DoorbellChoice;
  /** Guest memory that the device cannot reach, since the host reserves the addresses. */
  readonly unreachable: readonly GuestRange[];
  /** The stage 1 that the device is behind. */
  readonly nested: Nested | null;
}

/**
 * @example
 * using vm = VirtualMachine.create(kernel, { map: virtMap(), guestPort });
 * const { device, doorbell } = vm.assign('0000:01:00.0');
 * console.log(doorbell.rule, doorbell.why);
 */
export class VirtualMachine extends Resource {
  readonly label = 'virtual machine';
  readonly kernel: Kernel;
  readonly map: GuestMap;
  readonly iommu: GuestIommu;
  readonly kvm: KvmVm;
  readonly routes: GsiRoutes;
  readonly v2m: GuestV2mFrame | null;
  readonly #guestPort: GuestPort | null;
  readonly #ram: { readonly base: number; readonly memory: UserBuffer }[] = [];
  readonly #devices = new Map<number, AssignedDevice>();
  #space: Container | Ioas | null = null;
  #mapped: GuestRange[] | null = null;
  #nextBar: number;

  private constructor(kernel: Kernel, options: VmOptions, kvm: KvmVm) {
    super();
    this.kernel = kernel;
    this.map = options.map;
    this.iommu = options.iommu ?? 'type1';
    this.kvm = this.adopt(kvm);
    this.routes = new GsiRoutes(kvm);
    this.#guestPort = options.guestPort ?? null;
    this.#nextBar = options.map.pci.mmio32.base;
    const { interrupts } = options.map;
    this.v2m =
      interrupts.type === 'gic' && interrupts.v2m !== undefined ? new GuestV2mFrame(kvm, interrupts.v2m) : null;
  }

  /** @throws GuestMapError, VfioError */
  static create(kernel: Kernel, options: VmOptions): VirtualMachine {
    const cpus = options.cpus ?? 1;
    const problems = guestMapProblems(options.map, cpus);
    if (problems.length > 0) throw new GuestMapError(problems);
    const vm = new VirtualMachine(kernel, options, KvmVm.create(kernel, options.map, cpus));
    try {
      for (const range of blocks(options.map.ram)) vm.#addRam(range);
    } catch (error) {
      vm.close();
      throw error;
    }
    return vm;
  }

  get devices(): readonly AssignedDevice[] {
    return [...this.#devices.values()];
  }

  /** The guest's memory at `gpa`, or null when the range is not all in one block of it. */
  memory(gpa: number, length: number): Uint8Array | null {
    for (const { base, memory } of this.#ram) {
      if (gpa >= base && gpa + length <= base + memory.length)
        return memory.bytes.subarray(gpa - base, gpa - base + length);
    }
    return null;
  }

  /**
   * Opens the device, maps the guest's memory for it, decides the doorbell and shows the device to the guest.
   * @param name `0000:01:00.0` @throws VfioError, with everything closed again that was opened here
   */
  assign(name: string, options: AssignOptions = {}): Assignment {
    // A second file of the device would take the first one's interrupts away when it is closed.
    const there = this.devices.find((device) => device.device.name === name);
    if (there !== undefined) {
      const why = `${name} is in slot ${there.guestId >> 3} of the guest already`;
      throw new VfioError({ code: 'EBUSY', request: 'assign', why, field: 'name' });
    }
    const space = this.#space ?? this.#openSpace();
    this.#space = space;
    const guestId = this.#slot(options.slot) << 3;
    const device = openDevice(this.kernel, name, space);
    let told = false;
    try {
      const reserved = device.reservedRegions;
      const doorbell = this.#decideDoorbell(device, reserved, options.doorbell ?? 'auto');
      const unreachable = this.#mapMemory(space, reserved, doorbell);
      const nested = this.#nest(device, guestId, doorbell);
      if (nested === null && hasChoice(doorbell)) this.#setDoorbell(device, doorbell);
      told = this.kvm.addVfioFile(vfioFile(device)) >= 0;
      const assigned = new AssignedDevice(this.kvm, this.routes, device, guestId, nested?.doorbell.interrupts);
      this.#place(assigned);
      assigned.start();
      this.#devices.set(guestId, assigned);
      return { device: assigned, doorbell, unreachable, nested };
    } catch (error) {
      if (told) this.kvm.removeVfioFile(vfioFile(device));
      device.close();
      throw error;
    }
  }

  /** Configuration cycles of the guest's bus 0; absent functions read all ones. `requester` is bus << 8 | devfn. */
  configRead(requester: number, offset: number, size: number): number {
    return this.#devices.get(requester)?.configRead(offset, size) ?? 2 ** (size * 8) - 1;
  }

  configWrite(requester: number, offset: number, size: number, value: number): void {
    this.#devices.get(requester)?.configWrite(offset, size, value);
  }

  /** A guest CPU's access that KVM did not answer: ECAM, the GICv2m frame, BARs. Null: nothing is there. */
  mmioRead(gpa: number, size: number): number | null {
    if (this.v2m?.covers(gpa)) return this.v2m.read(gpa - this.v2m.base);
    const config = this.#ecam(gpa);
    if (config !== null) return this.configRead(config.requester, config.offset, size);
    for (const device of this.#devices.values()) {
      const value = device.mmioRead(gpa, size);
      if (value !== null) return value;
    }
    return null;
  }

  mmioWrite(gpa: number, size: number, value: number): boolean {
    if (this.v2m?.covers(gpa)) {
      this.v2m.write(gpa - this.v2m.base, value);
      return true;
    }
    const config = this.#ecam(gpa);
    if (config !== null) this.configWrite(config.requester, config.offset, size, value);
    return config !== null || [...this.#devices.values()].some((device) => device.mmioWrite(gpa, size, value));
  }

  /** Attaches a guest CPU: `signal` is its interrupt line. @throws VfioError */
  attachCpu(index: number, signal: () => void): GuestCpu {
    if (this.#guestPort === null) {
      const why = 'this VM was made without a guest port: its guest runs on KVM itself';
      throw new VfioError({ code: 'EOPNOTSUPP', request: 'attach', why });
    }
    const cpu = this.#guestPort.attach(this.kvm.fd, index, signal);
    if (typeof cpu !== 'number') return cpu;
    check(this.kernel, cpu, 'GuestPort.attach');
    throw new TypeError('GuestPort.attach answered a number that is no error');
  }

  protected override closeChildren(): void {
    for (const assigned of this.#devices.values()) {
      stopQuietly(assigned);
      // KVM holds the file too: without this a device of iommufd would stay attached.
      if (!assigned.device.isClosed) this.kvm.removeVfioFile(vfioFile(assigned.device));
    }
    this.#devices.clear();
    super.closeChildren();
  }

  protected override release(): void {
    for (const { memory } of this.#ram) memory.free();
  }

  #addRam(range: GuestRange): void {
    const memory = this.kernel.allocate(range.size);
    if (typeof memory === 'number') {
      const why = `no ${hex(range.size, 1)} bytes of memory for the guest's RAM at ${hex(range.base)}`;
      throw new VfioError({ code: 'ENOMEM', request: 'mmap', why, field: 'ram' });
    }
    this.#ram.push({ base: range.base, memory });
    this.kvm.addMemory(range.base, memory);
  }

  #openSpace(): Container | Ioas {
    if (this.iommu === 'type1') return this.adopt(Container.open(this.kernel));
    return Ioas.create(this.adopt(Iommufd.open(this.kernel)));
  }

  #slot(wanted: number | undefined): number {
    const slot = wanted ?? Array.from({ length: 31 }, (_, i) => i + 1).find((free) => !this.#devices.has(free << 3));
    if (slot === undefined)
      throw new VfioError({ code: 'ENOSPC', request: 'assign', why: "the guest's bus is full", field: 'slot' });
    if (!Number.isInteger(slot) || slot < 1 || slot > 31) {
      const why = `slot ${slot}: a guest's bus has 1 to 31`;
      throw new VfioError({ code: 'EINVAL', request: 'assign', why, field: 'slot' });
    }
    if (!this.#devices.has(slot << 3)) return slot;
    throw new VfioError({ code: 'EBUSY', request: 'assign', why: `slot ${slot} of the guest is taken`, field: 'slot' });
  }

  #decideDoorbell(device: Device, reserved: readonly ReservedSpan[], policy: DoorbellPolicy): DoorbellChoice {
    const ranges = device.space.ranges();
    const kind = device.config.find(CapabilityId.MSIX) === null ? 'msi' : 'msix';
    // In a stage 1 of its own user space chooses on every kernel, if it can write the table of the vectors; else the kernel must have PREPARE.
    const asked = device.doorbell.probe();
    const canChoose = asked || (this.iommu === 'nested' && kind === 'msix');
    // A kernel that lets user space choose says whether there is anything to choose; on others it follows from the architecture.
    const bypass = asked ? this.#bypasses(device, kind) : this.map.architecture === 'x86';
    const choice = chooseDoorbell({
      policy,
      guestAddress: guestDoorbell(this.map),
      granule: Math.max(this.kernel.pageSize, device.space.pageSizes()[0] ?? 0),
      address64: this.#has64BitMessages(device),
      canChoose,
      bypass,
      mapped: this.map.ram.map(({ base, size }) => ({ start: base, end: base + size - 1 })),
      reserved,
      aperture: { start: ranges[0]?.start ?? 0, end: ranges.at(-1)?.end ?? 2 ** 48 - 1 },
    });
    if (choice.refused === null) return choice;
    throw new VfioError({ code: choice.code ?? 'ENOTTY', request: 'doorbell', why: choice.refused, field: 'iova' });
  }

  #bypasses(device: Device, kind: 'msi' | 'msix'): boolean {
    try {
      return device.doorbell.get(0, kind).bypass;
    } catch (error) {
      // A device without MSIs has no vector to ask for.
      if (error instanceof VfioError) return false;
      throw error;
    }
  }

  /** MSI-X always has them; MSI says so. */
  #has64BitMessages(device: Device): boolean {
    const { config } = device;
    const msi = config.find(CapabilityId.MSI);
    if (config.find(CapabilityId.MSIX) !== null || msi === null) return true;
    return (config.read16(msi + Msi.FLAGS) & MsiFlags.ADDRESS_64) !== 0;
  }

  /** Once for all: later devices find the memory mapped. */
  #mapMemory(space: Container | Ioas, reserved: readonly ReservedSpan[], doorbell: DoorbellChoice): GuestRange[] {
    const page = Math.max(this.kernel.pageSize, space.pageSizes()[0] ?? 0);
    const taken = doorbell.rule === 'user' || doorbell.rule === 'guest' ? doorbell.iova : null;
    const holes = [...reserved, ...(taken === null ? [] : [{ start: taken, end: taken + page - 1 }])];
    const wanted = withoutHoles(blocks(this.map.ram), holes, page);
    if (this.#mapped === null) {
      for (const { base, size } of wanted) space.map(base, this.#addressOf(base), size);
      this.#mapped = wanted;
    }
    const mapped = this.#mapped.map(({ base, size }) => ({ start: base, end: base + size - 1 }));
    return withoutHoles(this.map.ram, mapped, page);
  }

  /** The VMM's stage 1 for a device: the guest's memory 1:1, and the doorbell where it was decided. */
  #nest(device: Device, streamId: number, doorbell: DoorbellChoice): Nested | null {
    if (this.iommu !== 'nested' || !(device instanceof CdevDevice)) return null;
    const nested = Nested.attach(device, device.space, { streamId });
    try {
      for (const { base, size } of this.#mapped ?? []) nested.map(base, base, size);
      if (hasChoice(doorbell) && doorbell.iova !== null) {
        const kind = device.config.find(CapabilityId.MSIX) === null ? 'msi' : 'msix';
        nested.doorbell.set({ kind, iova: doorbell.iova });
      }
      return nested;
    } catch (error) {
      nested.close();
      throw error;
    }
  }

  #addressOf(gpa: number): number {
    const block = this.#ram.find(({ base, memory }) => gpa >= base && gpa < base + memory.length);
    if (block === undefined) throw new RangeError(`${hex(gpa)} is not in guest memory`);
    return block.memory.address + gpa - block.base;
  }

  #setDoorbell(device: Device, { iova }: DoorbellChoice): void {
    if (iova === null) return;
    if (device.config.find(CapabilityId.MSIX) !== null) device.doorbell.set({ kind: 'msix', iova });
    if (device.config.find(CapabilityId.MSI) !== null) device.doorbell.set({ kind: 'msi', iova });
  }

  /** BARs get their guest addresses as firmware would give them; decoding stays for the guest to turn on. */
  #place(assigned: AssignedDevice): void {
    const next = assigned.bars.assign(this.map.pci.mmio32, this.#nextBar);
    if (next !== null) {
      this.#nextBar = next;
      return;
    }
    throw new VfioError({
      code: 'ENOSPC',
      request: 'assign',
      why: `no room for the BARs of ${assigned.device.name} in ${hex(this.map.pci.mmio32.base)} + ${hex(this.map.pci.mmio32.size, 1)}`,
    });
  }

  /** ECAM: bus[27:20] devfn[19:12] register[11:0]. */
  #ecam(gpa: number): { requester: number; offset: number } | null {
    const { base, size } = this.map.pci.ecam;
    if (gpa < base || gpa >= base + size) return null;
    return { requester: Math.floor((gpa - base) / 4096), offset: (gpa - base) % 4096 };
  }
}

/** For closing: the device's file goes next, and the kernel then takes away what a refusal here leaves. */
function stopQuietly(device: AssignedDevice): void {
  try {
    device.stop();
  } catch (error) {
    if (!(error instanceof VfioError)) throw error;
  }
}

const hasChoice = ({ rule }: DoorbellChoice): boolean => rule === 'guest' || rule === 'user';

/** The file that KVM is told of: the group's, or the device's own. */
const vfioFile = (device: Device): number => (device instanceof CdevDevice ? device.fd : device.group.fd);
