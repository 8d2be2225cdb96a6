/** One run on a kernel that is not simulated: a device opened, its vectors enabled, rung in turn, each interrupt awaited. */
import type { Kernel } from '../../ports/kernel.ts';
import {
  type Device,
  type DmaBuffer,
  type Interrupts,
  Ioas,
  Iommufd,
  Nested,
  type NestedEvent,
  openDevice,
} from '../../vfio/index.ts';
import { ProblemError, UsageError } from '../usage.ts';
import { Arrivals } from './linux-arrivals.ts';
import { type Messages, programmedMessages } from './linux-messages.ts';
import { NvmeRinger } from './linux-nvme.ts';
import type { LinuxOptions } from './linux-options.ts';
import { EduRinger, LoopbackRinger, type Ringer } from './linux-ringer.ts';

export interface LinuxTotals {
  readonly sent: number;
  readonly delivered: number;
  /** Nothing came in a while. */
  readonly lost: number;
  /** Came twice, or for another vector. */
  readonly unexpected: number;
  /** From the request or register write to the listener, µs, ascending. */
  readonly latencies: Float64Array;
}

const DEFAULT_VECTORS = 3;
const NVME_CLASS = 0x01_08_02;
const EDU = { vendor: 0x1234, device: 0x11e8 };
/** What the nested device calls its memory; any IOVA does. */
const NESTED_MEMORY = 0x4_0000_0000;
/** How its virtual SMMU calls it, in records. */
const STREAM = 1;
const PATIENCE = 2_000;
/** Until what the set-up rang has arrived. */
const QUIET = 50;
/** Latencies that are kept. */
const KEPT = 1_000_000;

export class LinuxSession {
  readonly kernel: Kernel;
  readonly device: Device;
  readonly nested: Nested | null;
  readonly kind: 'msi' | 'msix';
  readonly requested: number;
  readonly granted: number;
  readonly ringer: Ringer;
  private readonly iommufd: Iommufd | null;
  private readonly arrivals: readonly Arrivals[];
  /** How long an interrupt is awaited before it counts as lost, ms. */
  patience = PATIENCE;
  private next = 0;

  /** @throws VfioError of what the kernel refuses; UsageError, ProblemError */
  constructor(kernel: Kernel, name: string, options: LinuxOptions) {
    this.kernel = kernel;
    this.iommufd = options.iommu === 'nested' ? Iommufd.open(kernel) : null;
    [this.device, this.nested] = this.open(name, options);
    try {
      const { config } = this.device;
      config.memoryEnabled = true;
      // An MSI is a write of the device's.
      config.busMaster = true;
      this.kind = this.chooseKind();
      if (options.doorbell !== null) this.place(options.doorbell);
      const { count } = this.interrupts.info();
      this.requested = Math.min(options.vectors ?? DEFAULT_VECTORS, count);
      if (options.vectors !== null && options.vectors > count)
        throw new UsageError(`--vectors: ${name} has ${count} vectors, not ${options.vectors}`, 'ring');
      const enabled =
        this.nested?.doorbell.state != null
          ? this.nested.doorbell.enable(this.requested)
          : this.interrupts.enable(this.requested);
      this.granted = enabled.vectors.length;
      this.arrivals = enabled.vectors.map((vector) => new Arrivals(vector));
      this.ringer = this.chooseRinger();
    } catch (error) {
      this.device.close();
      this.iommufd?.close();
      throw error;
    }
  }

  get interrupts(): Interrupts {
    return this.kind === 'msix' ? this.device.msix : this.device.msi;
  }

  /** Vectors that are rung: those that the device can ring by itself. */
  get rung(): number {
    return Math.min(this.granted, this.ringer.vectors);
  }

  messages(count: number): Messages {
    return programmedMessages(this.device, this.kind, Math.min(count, this.granted));
  }

  /** Makes the device ready to ring; what comes of that is not counted. */
  async start(): Promise<void> {
    await this.ringer.start();
    this.kernel.settle();
    await new Promise((resolve) => setTimeout(resolve, QUIET));
    for (const arrival of this.arrivals) arrival.take();
  }

  /** Rings `count` times, the vectors in turn, each awaited before the next. */
  async send(count: number, progress: (sent: number) => void = () => {}): Promise<LinuxTotals> {
    const totals = { sent: 0, delivered: 0, lost: 0, unexpected: 0 };
    const latencies = new Float64Array(Math.min(count, KEPT));
    for (let i = 0; i < count; i++) {
      const vector = this.next;
      const started = process.hrtime.bigint();
      this.ringer.ring(vector);
      this.kernel.settle();
      const arrived = await this.arrivals[vector]!.within(this.patience);
      if (totals.delivered < KEPT && arrived > 0)
        latencies[totals.delivered] = Number(process.hrtime.bigint() - started) / 1000;
      this.ringer.done(vector);
      totals.sent += 1;
      totals.delivered += Math.min(1, arrived);
      totals.lost += arrived === 0 ? 1 : 0;
      totals.unexpected += Math.max(0, arrived - 1);
      this.next = vector + 1 === this.rung ? 0 : vector + 1;
      progress(totals.sent);
    }
    for (const arrival of this.arrivals) totals.unexpected += arrival.take();
    return { ...totals, latencies: latencies.subarray(0, Math.min(totals.delivered, KEPT)).sort() };
  }

  /** What the process's own stage 1 refused. */
  events(): readonly NestedEvent[] {
    return this.nested?.events() ?? [];
  }

  close(): void {
    for (const arrival of this.arrivals) arrival.close();
    this.iommufd?.close();
    this.device.close();
  }

  private open(name: string, { iommu }: LinuxOptions): [Device, Nested | null] {
    if (this.iommufd === null) {
      const via = iommu === null ? {} : { via: iommu === 'type1' ? ('container' as const) : ('iommufd' as const) };
      return [openDevice(this.kernel, name, via), null];
    }
    try {
      const ioas = Ioas.create(this.iommufd);
      const device = openDevice(this.kernel, name, ioas);
      return [device, Nested.attach(device, ioas, { streamId: STREAM })];
    } catch (error) {
      this.iommufd.close();
      throw error;
    }
  }

  private chooseKind(): 'msi' | 'msix' {
    if (this.device.msix.info().count > 0) return 'msix';
    if (this.device.msi.info().count > 0) return 'msi';
    throw new ProblemError(`${this.device.name} has neither MSI-X nor MSI`);
  }

  /** By the kernel's own request where it has one, else through a stage 1 of this process's. */
  private place(iova: number): void {
    const { kind, nested } = this;
    if (nested !== null) nested.doorbell.set({ kind, iova });
    else if (this.device.doorbell.probe()) this.device.doorbell.set({ kind, iova });
    else
      throw new ProblemError(
        '--doorbell: this kernel lets nobody choose where vectors write; with --iommu nested this process’s own stage 1 does (SMMUv3, MSI-X)',
      );
  }

  private chooseRinger(): Ringer {
    const { device, granted } = this;
    const { config } = device;
    const settle = () => this.kernel.settle();
    if (config.vendorId === EDU.vendor && config.deviceId === EDU.device) return new EduRinger(device.bar(0));
    if (config.read32(CLASS) >>> 8 === NVME_CLASS && granted > 0)
      return new NvmeRinger(device.bar(0), this.memory(NvmeRinger.memoryFor(granted)), granted, settle);
    return new LoopbackRinger(granted, () => this.interrupts.vectors);
  }

  /** Memory that the device reaches, and what the device calls it. */
  private memory(length: number): { readonly bytes: Uint8Array; readonly iova: number } {
    const buffer: DmaBuffer = this.device.space.mapDma({ length });
    if (this.nested === null) return buffer;
    this.nested.map(NESTED_MEMORY, buffer.iova, length);
    return { bytes: buffer.bytes, iova: NESTED_MEMORY };
  }
}

/** Revision and class code. */
const CLASS = 0x08;
