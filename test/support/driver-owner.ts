/** A driver in user space that owns both bells: eventfds, DMA buffers, doorbells; one container. */

import { Command, Header } from '../../src/arch/pci/index.ts';
import { BellRegister } from '../../src/devices/index.ts';
import type { SimKernelClient } from '../../src/kernel/client.ts';
import type { LocalProcess } from '../../src/kernel/kernel.ts';
import { Container, type Device, type DmaBuffer, openDevice, VfioError } from '../../src/vfio/index.ts';
import { type Owner, type Step, VECTORS, type World } from './world.ts';

/** Where programs map and ring: free places, the seed's page, the kernel's window, above 4 GiB. */
const PLACES = [0x10_0000, 0x10_1000, 0x10_2000, 0x0809_0000, 0x0800_0000, 0x1234_5000, 0x12_3456_7000];
const DOORBELLS = [0x0809_0040, 0x1234_5000, 0x1234_6000, 0x2000_0000, 0x10_1000];
const PAGE = 4096;
const WORD = 0x10;
const SEQUENCE = 0x40_0000;

interface Mapped {
  readonly buffer: DmaBuffer;
  /** What the word at WORD holds. */
  value: number;
}

interface Opened {
  readonly index: number;
  readonly device: Device;
  /** Of each vector since its sequence numbers began (null while they are off): rings, numbers written, and numbers seen. */
  rung: Uint32Array | null;
  readonly written: Uint32Array;
  readonly seen: Uint32Array;
}

type Operation = (owner: DriverOwner, opened: Opened, a: number, b: number) => void;

/** With how often each is drawn: most of a program is interrupts on their way, between changes of that way. */
const OPERATIONS: readonly (readonly [weight: number, operation: Operation])[] = [
  [2, (owner, _opened, a) => owner.map(PLACES[a % PLACES.length]!)],
  [2, (owner, opened, a, b) => owner.unmapUnderDma(opened, a, b)],
  [3, (_owner, { device }, a, b) => device.interrupts(a % 3 === 0 ? 'msi' : 'msix').enable(1 + (b % VECTORS))],
  [1, (_owner, { device }, a) => device.interrupts(a % 2 === 0 ? 'msi' : 'msix').disable()],
  [1, (owner, opened, a) => owner.vector(opened, a)?.redirect(null)],
  [2, (owner, opened, a) => owner.vector(opened, a)?.restore()],
  [11, (owner, opened, a) => owner.fire(opened, a % 16 === 0 ? VECTORS : a % VECTORS)],
  [6, (owner, opened, a) => owner.drain(opened, a)],
  [2, (owner, opened, a, b) => owner.doorbell(opened, a, b)],
  [1, (_owner, { device }, a) => device.doorbell.clear({ kind: a % 4 === 0 ? 'msi' : 'msix' })],
  [1, (owner, opened) => owner.reset(opened)],
  [1, (owner, opened, a) => owner.setBusMaster(opened, a % 4 !== 0)],
  [2, (owner, opened) => owner.countFrom(opened)],
  [1, (owner, opened) => owner.closeDevice(opened)],
  [1, (owner, opened) => owner.leave(opened)],
  [1, (owner, { index }, a, b) => owner.move(index, a, b)],
  [3, (owner, { index }, a, b) => owner.dma(index, a, b)],
];
const DECK: readonly Operation[] = OPERATIONS.flatMap(([weight, operation]) =>
  new Array<Operation>(weight).fill(operation),
);

const numbers = (): Uint32Array => new Uint32Array(VECTORS + 1);

export class DriverOwner implements Owner {
  private readonly world: World;
  private readonly process: LocalProcess;
  private readonly kernel: SimKernelClient;
  private readonly container: Container;
  private readonly opened: (Opened | null)[] = [null, null];
  private readonly mapped = new Map<number, Mapped>();
  private sequence: DmaBuffer | null = null;

  /** Both devices open, and all their MSI-X vectors enabled when `armed`. */
  constructor(world: World, armed: boolean) {
    this.world = world;
    const { process, kernel } = world.host.process({ comm: 'driver' });
    this.process = process;
    this.kernel = kernel;
    this.container = Container.open(kernel);
    for (const device of [0, 1]) {
      this.open(device);
      if (armed) this.opened[device]!.device.msix.enable(VECTORS);
    }
  }

  step([op, device, a, b]: Step): void {
    const opened = this.opened[device] ?? null;
    if (opened === null) this.attempt(() => this.open(device));
    else this.attempt(() => DECK[op % DECK.length]!(this, opened, a, b));
  }

  reaches(device: number, iova: number): boolean {
    const opened = this.opened[device] ?? null;
    const dev = this.world.devs[device]!;
    if (opened === null || (dev.configRead(Header.COMMAND, 2) & Command.BUS_MASTER) === 0) return false;
    const page = iova - (iova % PAGE);
    return this.mapped.has(page) || this.world.isDoorbell(dev.iommuGroup!.domain.lookup(page));
  }

  wrote(iova: number, value: number): void {
    const mapped = this.mapped.get(iova - (iova % PAGE));
    if (mapped !== undefined) mapped.value = value;
  }

  checkMemory(): void {
    for (const [iova, { buffer, value }] of this.mapped) {
      const words = new Uint32Array(buffer.bytes.buffer, buffer.bytes.byteOffset, PAGE / 4);
      const wrong = words.findIndex((found, index) => found !== (index === WORD / 4 ? value : 0));
      if (wrong >= 0) throw new Error(`iova 0x${iova.toString(16)}: word ${wrong} holds ${words[wrong]}`);
    }
  }

  close(): void {
    this.container.close();
    const left = this.process.descriptors.length;
    if (left > 0) throw new Error(`${left} descriptors are open after everything was closed`);
    if (this.process.lockedPages !== 0) throw new Error(`${this.process.lockedPages} pages are still pinned`);
    this.kill();
  }

  kill(): void {
    this.world.host.kernel.exit(this.process);
    if (this.process.lockedPages !== 0) throw new Error(`${this.process.lockedPages} pages are pinned for nobody`);
  }

  private open(device: number): void {
    const opened = openDevice(this.kernel, this.world.names[device]!, this.container);
    opened.config.busMaster = true;
    opened.config.memoryEnabled = true;
    this.opened[device] = { index: device, device: opened, rung: null, written: numbers(), seen: numbers() };
  }

  map(iova: number): void {
    if (this.mapped.has(iova)) return;
    this.mapped.set(iova, { buffer: this.container.mapDma({ length: PAGE, iova }), value: 0 });
  }

  /** The translation is in the IOMMU's caches when it is taken away, and must be gone from there too. */
  unmapUnderDma({ index }: Opened, a: number, b: number): void {
    const iova = [...this.mapped.keys()][a % Math.max(this.mapped.size, 1)];
    if (iova === undefined) return;
    this.world.dma(this, index, iova + WORD, b);
    this.unmap(iova);
    this.world.dma(this, index, iova + WORD, a);
  }

  private unmap(iova: number): void {
    this.mapped.get(iova)?.buffer.close();
    this.mapped.delete(iova);
  }

  doorbell({ device }: Opened, a: number, b: number): void {
    const iova = DOORBELLS[a % DOORBELLS.length]!;
    const kind = b % 4 === 0 ? 'msi' : 'msix';
    if (kind === 'msix' && b % 3 === 0) device.doorbell.set({ kind, iova, start: b % VECTORS, count: 1 });
    else device.doorbell.set({ kind, iova });
  }

  reset(opened: Opened): void {
    opened.device.reset();
    opened.rung = null;
  }

  /** Sequence numbers from now on; they start over only with a reset. */
  countFrom(opened: Opened): void {
    if (opened.rung !== null) return;
    opened.device.reset();
    this.sequence ??= this.container.mapDma({ length: PAGE, iova: SEQUENCE });
    this.table(opened.index).fill(0);
    const registers = opened.device.bar(0);
    registers.write32(BellRegister.SEQUENCE_LO, SEQUENCE + opened.index * 256);
    registers.write32(BellRegister.SEQUENCE_HI, 0);
    registers.write32(BellRegister.SEQUENCE_CONTROL, 1);
    opened.rung = new Uint32Array(VECTORS + 1);
    opened.written.fill(0);
    opened.seen.fill(0);
    for (const vector of this.enabled(opened)?.vectors ?? []) vector.take();
  }

  private table(device: number): Uint32Array {
    const { buffer, byteOffset } = this.sequence!.bytes;
    return new Uint32Array(buffer, byteOffset + device * 256, VECTORS + 1);
  }

  /** An interrupt with a way is in its eventfd when the host has come to rest. */
  fire(opened: Opened, number: number): void {
    const { world } = this;
    const { index } = opened;
    const vector = this.enabled(opened)?.vectors[number];
    const master = opened.device.config.busMaster;
    const before = vector?.eventfd.count ?? 0;
    world.model(index).ring(number);
    world.settle();
    if (opened.rung !== null) {
      opened.rung[number]!++;
      if (master) opened.written[number] = opened.rung[number]!;
    }
    if (vector === undefined || vector.target < 0 || !master) return;
    if (vector.eventfd.count !== before + 1) {
      throw new Error(
        `vector ${number} of ${world.names[index]}: the eventfd counts ${vector.eventfd.count} after ${before}`,
      );
    }
  }

  /** The numbers were written before the interrupt: they are there when it is, and none is seen twice. */
  drain(opened: Opened, a: number): void {
    const vectors = this.enabled(opened)?.vectors ?? [];
    const waiting = vectors.filter(({ eventfd }) => eventfd.count > 0);
    const vector = waiting[a % Math.max(waiting.length, 1)];
    if (vector === undefined) return;
    vector.take();
    if (opened.rung === null) return;
    const { vector: which } = vector;
    const number = this.table(opened.index)[which]!;
    if (number !== opened.written[which])
      throw new Error(`vector ${which}: number ${number}, not ${opened.written[which]}`);
    if (number <= opened.seen[which]!) throw new Error(`vector ${which}: number ${number} twice`);
    opened.seen[which] = number;
  }

  setBusMaster({ device }: Opened, on: boolean): void {
    device.config.busMaster = on;
  }

  closeDevice(opened: Opened): void {
    opened.device.close();
    this.opened[opened.index] = null;
  }

  /** The device's group leaves the container; with the last one the mappings go. */
  leave(opened: Opened): void {
    this.closeDevice(opened);
    opened.device.group.close();
    if (this.container.groups.length > 0) return;
    for (const iova of [...this.mapped.keys()]) this.unmap(iova);
    this.sequence?.close();
    this.sequence = null;
  }

  move(index: number, a: number, cpu: number): void {
    this.world.moveInterrupt(index, a, cpu);
  }

  dma(index: number, a: number, b: number): void {
    this.world.dma(this, index, this.target(a), b);
  }

  private enabled({ device }: Opened) {
    return [device.msi, device.msix].find(({ enabled }) => enabled);
  }

  vector(opened: Opened, a: number) {
    const vectors = this.enabled(opened)?.vectors ?? [];
    return vectors.length === 0 ? null : vectors[a % vectors.length]!;
  }

  /** Mapped, doorbell, or nothing at all; and the physical address of memory that is none of the device's business. */
  private target(a: number): number {
    const places = [...PLACES, this.world.bystander.pa, 0x5081_0000];
    return places[a % places.length]! + WORD;
  }

  /** Refusals are part of the program; everything else is not. */
  private attempt(act: () => void): void {
    try {
      act();
    } catch (error) {
      if (!(error instanceof VfioError)) throw error;
    }
  }
}
