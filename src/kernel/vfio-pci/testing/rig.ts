/** A function of a simulated machine in the hands of vfio-pci, and a process that owns it. */

import type { HostFunction } from '../../../machine/pci/index.ts';
import { PciRoot } from '../../../machine/pci/index.ts';
import { TestModel } from '../../../machine/pci/testing/rig.ts';
import { Count } from '../../../ports/ledger.ts';
import type { FunctionSpec } from '../../../ports/pci.ts';
import { errnoName } from '../../../uapi/errno.ts';
import type { Fields, Init, Struct } from '../../../uapi/struct.ts';
import { VFIO_DEVICE_SET_IRQS, vfio_irq_set } from '../../../uapi/vfio.ts';
import { EventFdFile, SimEventFd } from '../../eventfd.ts';
import { enumeratePci } from '../../pci/enumerate.ts';
import type { PciDevice } from '../../pci/pci-device.ts';
import { SimProcess } from '../../process.ts';
import { testContext } from '../../test-context.ts';
import { SimUserMemory } from '../../user-memory.ts';
import { VfioPciCore } from '../core.ts';
import { regionOffset } from '../regions.ts';
import { FakeIrqs } from './fake-irqs.ts';

export const INTX_IRQ = 40;
const MMIO32 = 0x1000_0000;

/** A PCIe endpoint with everything: two BARs, MSI-X in BAR 0, FLR, PM, a pin. */
export const ENDPOINT: Partial<FunctionSpec> = {
  vendorId: 0x1b36,
  deviceId: 0x0010,
  classCode: 0x010802,
  bars: [{ type: 'memory64', size: 0x4000 }, null, { type: 'memory32', size: 0x1000 }, null, null, null],
  msix: { vectors: 8, table: { bar: 0, offset: 0x2000 }, pba: { bar: 0, offset: 0x3000 } },
  interruptPin: 1,
  express: { type: 'endpoint', flr: true },
  powerManagement: true,
};

/** Conventional PCI with MSI of one vector, as the lab's edu. */
export const EDU: Partial<FunctionSpec> = {
  vendorId: 0x1234,
  deviceId: 0x11e8,
  classCode: 0x00ff00,
  bars: [{ type: 'memory32', size: 0x10_0000 }, null, null, null, null, null],
  msi: { vectors: 1, address64: true },
  interruptPin: 1,
};

export class Rig {
  readonly context = testContext();
  readonly irqs = new FakeIrqs();
  readonly model: TestModel;
  readonly fn: HostFunction;
  readonly dev: PciDevice;
  readonly core: VfioPciCore;
  readonly process: SimProcess<SimUserMemory>;
  private nextEventfd = 1;

  constructor(spec: Partial<FunctionSpec> = ENDPOINT) {
    const { context } = this;
    const root = new PciRoot({
      segment: 0,
      bus: context.bus,
      tap: context.tap,
      work: context.work,
      clock: context.clock,
      iommu: null,
      mmio32: { base: MMIO32, size: 0x1000_0000 },
      mmio64: { base: 0x60_0000_0000, size: 2 ** 36 },
      io: { base: 0x3000_0000, size: 0x1_0000 },
    });
    this.model = new TestModel(spec);
    this.fn = root.addFunction(root.rootBus, 5 << 3, this.model);
    root.start();
    const devices = enumeratePci(root, 0, 0x3000_0000);
    this.dev = devices.find((dev) => dev.name === '0000:00:05.0') as PciDevice;
    this.dev.irq = INTX_IRQ;
    this.core = new VfioPciCore(context, this.dev, this.irqs, { devices });
    this.process = new SimProcess(1, new SimUserMemory(context.memory, context.pageSize), context.refusals);
  }

  /** Opens the device; throws when it fails. */
  open(): this {
    const error = this.core.openDevice(this.process);
    if (error !== 0) throw new Error(errnoName(error));
    return this;
  }

  eventfd(initial = 0): { fd: number; eventfd: SimEventFd } {
    const eventfd = new SimEventFd(this.nextEventfd, initial, this.context.tap, this.context.work);
    this.nextEventfd += 1;
    return { fd: this.process.install(new EventFdFile(eventfd, this.context.refusals)), eventfd };
  }

  /** A buffer in the process's memory that holds `bytes`. */
  user(bytes: Uint8Array): number {
    const address = this.process.memory.allocate(Math.max(bytes.length, 1));
    this.process.memory.copyOut(address, bytes);
    return address;
  }

  /** An ioctl with a struct: the result by name, and the bytes as they came back. */
  ioctl(request: number, bytes: Uint8Array): { result: string | number; bytes: Uint8Array } {
    this.context.refusals.last = null;
    const address = this.user(bytes);
    const result = this.core.ioctl(this.process, request, BigInt(address));
    const back = new Uint8Array(bytes.length);
    this.process.memory.copyIn(address, back);
    this.process.memory.unmap(address);
    return { result: named(result), bytes: back };
  }

  request<F extends Fields>(request: number, struct: Struct<F>, value: Init<Struct<F>>): string | number {
    return this.ioctl(request, struct.bytes(value)).result;
  }

  /** SET_IRQS with eventfds, or bytes, or nothing behind the header. */
  setIrqs(flags: number, index: number, start: number, data: number | readonly number[] | Uint8Array): string | number {
    const count = typeof data === 'number' ? data : data.length;
    const payload = typeof data === 'number' ? new Uint8Array(0) : data instanceof Uint8Array ? data : s32(data);
    const bytes = new Uint8Array(vfio_irq_set.size + payload.length);
    vfio_irq_set.write(bytes, { argsz: bytes.length, flags, index, start, count });
    bytes.set(payload, vfio_irq_set.size);
    return this.ioctl(VFIO_DEVICE_SET_IRQS, bytes).result;
  }

  /** pread of a region. */
  read(index: number, pos: number, count: number): Uint8Array | string {
    const address = this.user(new Uint8Array(count));
    const result = this.core.read(this.process, address, count, regionOffset(index) + pos);
    const bytes = new Uint8Array(Math.max(result, 0));
    this.process.memory.copyIn(address, bytes);
    this.process.memory.unmap(address);
    return result < 0 ? errnoName(result) : bytes;
  }

  write(index: number, pos: number, bytes: readonly number[] | Uint8Array): string | number {
    const address = this.user(Uint8Array.from(bytes));
    const result = this.core.write(this.process, address, bytes.length, regionOffset(index) + pos);
    this.process.memory.unmap(address);
    return named(result);
  }

  /** A little-endian value of the virtual configuration space. */
  config(pos: number, size: number): number {
    const bytes = this.read(7, pos, size);
    if (typeof bytes === 'string') throw new Error(bytes);
    return bytes.reduce((value, byte, at) => value + byte * 2 ** (8 * at), 0);
  }

  setConfig(pos: number, size: number, value: number): string | number {
    return this.write(
      7,
      pos,
      Array.from({ length: size }, (_, at) => Math.floor(value / 2 ** (8 * at)) & 0xff),
    );
  }

  get sent(): number {
    return this.context.tap.ledger[Count.SENT]!;
  }

  why(): string {
    return this.context.refusals.last?.why ?? '';
  }
}

/** `EINVAL` for -22, and a number that is no error as it is. */
export const named = (result: number): string | number => (result < 0 ? errnoName(result) : result);

export function s32(values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 * values.length);
  const view = new DataView(bytes.buffer);
  for (const [at, value] of values.entries()) view.setInt32(4 * at, value, true);
  return bytes;
}
