/** A VMM that owns both bells, with a guest that masks, unmasks, serves, or has its interrupts off for a while. */
import { Command, Header } from '../../src/arch/pci/index.ts';
import { BellRegister } from '../../src/devices/index.ts';
import type { LocalProcess } from '../../src/kernel/kernel.ts';
import { VfioError } from '../../src/vfio/index.ts';
import {
  type AssignedDevice,
  GuestDriver,
  type GuestIommu,
  type GuestVectors,
  q35Map,
  VirtualMachine,
  virtMap,
} from '../../src/vmm/index.ts';
import { type Owner, type Step, VECTORS, type World } from './world.ts';

/** Room for the guest's ITS tables, and some. */
const RAM = 0x20_0000;
const PAGE = 4096;
const DOORBELLS = [0x0809_0040, 0x1234_5000, 0x12_3456_7000, 0x2000_0000];

interface Assigned {
  readonly index: number;
  readonly device: AssignedDevice;
  readonly msix: boolean;
  vectors: GuestVectors | null;
  /** Of each vector since its sequence numbers began (null while they are off): rings, numbers written, and numbers seen. */
  rung: Uint32Array | null;
  readonly written: Uint32Array;
  readonly seen: Uint32Array;
}

type Operation = (owner: GuestOwner, assigned: Assigned, a: number, b: number) => void;

const OPERATIONS: readonly (readonly [weight: number, operation: Operation])[] = [
  [3, (owner, assigned, a, b) => owner.enable(assigned, a % 3 === 0, 1 + (b % VECTORS))],
  [1, (owner, assigned) => owner.disable(assigned)],
  [4, (_owner, { vectors, msix }, a) => (msix ? vectors?.mask(a % vectors.interrupts.length) : undefined)],
  [5, (_owner, { vectors, msix }, a) => (msix ? vectors?.unmask(a % vectors.interrupts.length) : undefined)],
  [12, (owner, assigned, a) => owner.fire(assigned, a % 16 === 0 ? VECTORS : a % VECTORS)],
  [1, (owner) => owner.pause()],
  [3, (owner) => owner.resume()],
  [
    2,
    (_owner, { device }, a) =>
      void device.device.doorbell.set({ iova: DOORBELLS[a % DOORBELLS.length]!, kind: 'msix' }),
  ],
  [1, (_owner, { device }) => device.device.doorbell.clear()],
  [1, (owner, assigned) => owner.reset(assigned)],
  [2, (owner, assigned) => owner.countFrom(assigned)],
  [1, (owner, assigned, a) => owner.setBusMaster(assigned, a % 4 !== 0)],
  [1, (owner, { index }, a, b) => owner.move(index, a, b)],
  [3, (owner, { index }, a, b) => owner.dma(index, a, b)],
];
const DECK: readonly Operation[] = OPERATIONS.flatMap(([weight, operation]) =>
  new Array<Operation>(weight).fill(operation),
);

export class GuestOwner implements Owner {
  private readonly world: World;
  private readonly process: LocalProcess;
  private readonly vm: VirtualMachine;
  private readonly guest: GuestDriver;
  private readonly devices: Assigned[];
  /** First byte of the guest's RAM, and a page of it that devices write to. */
  private readonly ram: number;
  private readonly target: number;
  private value = 0;

  /** MSI-X of both devices enabled when `armed`. */
  constructor(world: World, armed: boolean, iommu: GuestIommu = 'type1') {
    this.world = world;
    const { process, kernel } = world.host.process({ comm: 'vmm' });
    const { spec } = world.host.machine;
    const arm = virtMap({ ram: RAM, ...(spec.name === 'arm-v2m' ? { msi: 'v2m', gic: 2 } : {}) });
    const map = spec.architecture === 'x86' ? q35Map({ ram: RAM }) : arm;
    this.process = process;
    this.vm = VirtualMachine.create(kernel, { map, iommu, guestPort: world.host.kvm.guestPort(process) });
    this.ram = map.ram[0]!.base;
    this.target = this.ram + 0x1_0000;
    this.devices = world.names.map((name, index) => {
      const { device } = this.vm.assign(name);
      return {
        index,
        device,
        msix: true,
        vectors: null,
        rung: null,
        written: new Uint32Array(VECTORS + 1),
        seen: new Uint32Array(VECTORS + 1),
      };
    });
    this.guest = GuestDriver.start(this.vm);
    for (const assigned of this.devices) {
      this.guest.enableDevice(assigned.device);
      if (armed) this.enable(assigned, false, VECTORS);
    }
  }

  step([op, device, a, b]: Step): void {
    try {
      DECK[op % DECK.length]!(this, this.devices[device]!, a, b);
    } catch (error) {
      if (!(error instanceof VfioError)) throw error;
    }
    // What a step let go is served before the next one writes a new number.
    this.world.settle();
  }

  reaches(device: number, iova: number): boolean {
    const dev = this.world.devs[device]!;
    if ((dev.configRead(Header.COMMAND, 2) & Command.BUS_MASTER) === 0) return false;
    const inRam = iova >= this.ram && iova < this.ram + RAM;
    return inRam || this.world.isDoorbell(dev.iommuGroup!.domain.lookup(iova - (iova % PAGE)));
  }

  wrote(iova: number, value: number): void {
    if (iova === this.target) this.value = value;
  }

  checkMemory(): void {
    const found = new DataView(this.vm.memory(this.target, 4)!.slice().buffer).getUint32(0, true);
    if (found !== this.value) throw new Error(`guest memory holds ${found}, the device wrote ${this.value}`);
  }

  close(): void {
    this.guest.detach();
    this.vm.close();
    const left = this.process.descriptors.length;
    if (left > 0) throw new Error(`${left} descriptors are open after everything was closed`);
    if (this.process.lockedPages !== 0) throw new Error(`${this.process.lockedPages} pages are still pinned`);
    this.kill();
  }

  kill(): void {
    this.world.host.kernel.exit(this.process);
    if (this.process.lockedPages !== 0) throw new Error(`${this.process.lockedPages} pages are pinned for nobody`);
  }

  enable(assigned: Assigned, msi: boolean, count: number): void {
    if (assigned.vectors !== null) return;
    const serve = (vector: number): void => this.serve(assigned, vector);
    this.devices[assigned.index] = Object.assign(assigned, { msix: !msi });
    assigned.vectors = msi
      ? this.guest.enableMsi(assigned.device, 2 ** Math.floor(Math.log2(count)), serve)
      : this.guest.enableMsix(assigned.device, count, serve);
  }

  /** A driver waits for its handlers first (synchronize_irq), so the guest's CPUs take interrupts again. */
  disable(assigned: Assigned): void {
    this.resume();
    assigned.vectors?.disable();
    assigned.vectors = null;
  }

  /** A number that could not be written is passed over, and its interrupt is not sent. */
  fire({ index, device, rung, written }: Assigned, vector: number): void {
    this.world.model(index).ring(vector);
    if (rung !== null) {
      rung[vector]!++;
      if (device.device.config.busMaster) written[vector] = rung[vector]!;
    }
    this.world.settle();
  }

  pause(): void {
    this.guest.paused = true;
  }

  resume(): void {
    this.guest.paused = false;
    this.guest.serve();
  }

  /** The guest's driver turns its vectors off first, as any driver must; what the VMM held pending goes with the reset. */
  reset(assigned: Assigned): void {
    this.disable(assigned);
    assigned.device.msix?.reset();
    assigned.device.device.reset();
    assigned.rung = null;
  }

  countFrom(assigned: Assigned): void {
    const { device, index, seen } = assigned;
    if (assigned.rung !== null) return;
    this.reset(assigned);
    this.numbers(index).fill(0);
    const registers = device.device.bar(0);
    registers.write32(BellRegister.SEQUENCE_LO, this.ram + index * PAGE);
    registers.write32(BellRegister.SEQUENCE_HI, 0);
    registers.write32(BellRegister.SEQUENCE_CONTROL, 1);
    assigned.rung = new Uint32Array(VECTORS + 1);
    assigned.written.fill(0);
    seen.fill(0);
    this.enable(assigned, false, VECTORS);
  }

  setBusMaster({ device }: Assigned, on: boolean): void {
    device.device.config.busMaster = on;
  }

  move(index: number, a: number, cpu: number): void {
    this.world.moveInterrupt(index, a, cpu);
  }

  dma(index: number, a: number, b: number): void {
    const places = [this.target, this.ram + RAM, this.world.bystander.pa, 0x0809_0010, 0x1234_5010, 0x5081_0040];
    this.world.dma(this, index, places[a % places.length]!, b);
  }

  /** At the CPU's acknowledgement: the number of the latest ring is in memory, and it is a new one. */
  private serve({ index, rung, written, seen }: Assigned, vector: number): void {
    if (rung === null) return;
    const number = this.numbers(index)[vector]!;
    if (number !== written[vector]) throw new Error(`vector ${vector}: number ${number}, not ${written[vector]}`);
    if (number <= seen[vector]!) throw new Error(`vector ${vector}: number ${number} is served twice`);
    seen[vector] = number;
  }

  private numbers(index: number): Uint32Array {
    const bytes = this.vm.memory(this.ram + index * PAGE, 4 * (VECTORS + 1))!;
    return new Uint32Array(bytes.buffer, bytes.byteOffset, VECTORS + 1);
  }
}

/** The same by the devices' own files. */
export class IommufdGuestOwner extends GuestOwner {
  constructor(world: World, armed: boolean) {
    super(world, armed, 'iommufd');
  }
}
