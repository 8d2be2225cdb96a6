/** The doorbell on the whole machine: a bell behind a root port, SMMUv3 with its tables in memory, ITS, type1, vfio-pci, eventfds. */
import { describe, expect, it } from 'vitest';
import { BellDma, BellRegister, createDevice } from '../../devices/index.ts';
import { defineMachine } from '../../machine/define.ts';
import { Machine } from '../../machine/machine.ts';
import { presetInput } from '../../machine/presets.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import {
  vfio_device_feature_belfry_doorbell as layout,
  VFIO_DEVICE_FEATURE_BELFRY_DOORBELL,
} from '../../uapi/belfry.ts';
import { errnoName } from '../../uapi/errno.ts';
import * as uapi from '../../uapi/vfio.ts';
import { bootLinux, type Host } from '../boot/boot.ts';
import type { SimKernelClient } from '../client.ts';
import { mapDma, setContainer } from '../vfio/test-requests.ts';
import { VfioPciCore } from './core.ts';
import { DoorbellControl } from './doorbell.ts';
import { DoorbellOps } from './doorbell-ops.ts';

const MSIX = uapi.VFIO_PCI_MSIX_IRQ_INDEX;
const DOORBELL_HEADER = 8;
const VECTORS = 4;

/** `arm-its` with two bells, opened by one program; the kernel's own binding is left out, so that the doorbell is this test's. */
class Lab {
  readonly host: Host;
  readonly client: SimKernelClient;
  readonly container: number;
  readonly devices: number[] = [];
  readonly groups: number[] = [];

  constructor(name: 'arm-its' | 'arm-v2m' = 'arm-its', abi: 'belfry' | 'linux-7.2' = 'belfry') {
    const base = presetInput(name);
    const bell = { at: '00.0', kind: 'function' as const, device: 'bell', options: { msix: VECTORS }, driver: null };
    const slots = ['01.0', '02.0'].map((at) => ({ at, kind: 'root-port' as const, acs: true, below: [bell] }));
    const spec = defineMachine({ ...base, pci: { ...base.pci, slots } });
    this.host = bootLinux(new Machine(spec, createDevice), { abi, allowUnsafeInterrupts: name === 'arm-v2m' });
    this.client = this.host.process().kernel;
    for (const dev of this.bells) this.bind(dev);
    this.container = this.client.open('/dev/vfio/vfio');
    for (const dev of this.bells) this.open(dev);
  }

  get bells() {
    return this.host.pciDevices.filter((dev) => dev.deviceId === 0xbe11);
  }

  private bind(dev: (typeof this.bells)[number]): void {
    const { context, msi, vfio, pciDevices } = this.host;
    const core = new VfioPciCore(context, dev, msi, { devices: pciDevices });
    vfio.register(dev, new DoorbellOps(core, new DoorbellControl(context, dev, msi)));
    dev.driver = 'vfio-pci';
  }

  private open(dev: (typeof this.bells)[number]): void {
    const { client } = this;
    const group = client.open(`/dev/vfio/${dev.iommuGroup!.id}`);
    expect(setContainer(client, group, this.container)).toBe(0);
    if (this.groups.length === 0) {
      expect(client.ioctl(this.container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)).toBe(0);
    }
    const name = new TextEncoder().encode(`${dev.name}\0`);
    const device = client.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, name);
    this.groups.push(group);
    this.devices.push(device);
    const command = new Uint8Array([6, 0]);
    expect(client.pwrite(device, command, uapi.VFIO_PCI_CONFIG_REGION_INDEX * 2 ** 40 + 4)).toBe(2);
  }

  /** An eventfd for each vector; what SET_IRQS answers. */
  enable(n: number, count: number) {
    const made = Array.from({ length: count }, () => this.client.eventfd());
    const events = made.map((event) => {
      if (typeof event === 'number') throw new Error(errnoName(event));
      return event;
    });
    const flags = uapi.VFIO_IRQ_SET_DATA_EVENTFD | uapi.VFIO_IRQ_SET_ACTION_TRIGGER;
    const fds = new Uint8Array(Int32Array.from(events, (event) => event.fd).buffer);
    const bytes = new Uint8Array(uapi.vfio_irq_set.size + fds.length);
    uapi.vfio_irq_set.patch(bytes, { argsz: bytes.length, flags, index: MSIX, start: 0, count });
    bytes.set(fds, uapi.vfio_irq_set.size);
    const result = this.client.ioctl(this.devices[n]!, uapi.VFIO_DEVICE_SET_IRQS, bytes);
    return { result, events };
  }

  private register(n: number, offset: number, value: number): void {
    this.client.pwrite(this.devices[n]!, new Uint8Array(Int32Array.of(value).buffer), offset);
  }

  ring(n: number, vector: number): void {
    this.register(n, BellRegister.RING, vector);
    this.client.settle();
  }

  /** The device writes 4 bytes to an IOVA by DMA. */
  dma(n: number, iova: number, value: number): void {
    this.register(n, 4 * 2 ** 40, value);
    this.register(n, BellRegister.DMA_IOVA_LO, iova | 0);
    this.register(n, BellRegister.DMA_IOVA_HI, Math.floor(iova / 2 ** 32));
    this.register(n, BellRegister.DMA_LOCAL, 0);
    this.register(n, BellRegister.DMA_LENGTH, 4);
    this.register(n, BellRegister.DMA_COMMAND, BellDma.START | BellDma.TO_MEMORY);
    this.client.settle();
  }

  private feature(
    n: number,
    operation: number,
    given: { start?: number; count?: number; iova?: number; size?: number },
  ) {
    const bytes = new Uint8Array(DOORBELL_HEADER + layout.size);
    const flags = operation | VFIO_DEVICE_FEATURE_BELFRY_DOORBELL;
    uapi.vfio_device_feature.patch(bytes, { argsz: bytes.length, flags });
    layout.write(bytes, { index: MSIX, ...given }, DOORBELL_HEADER);
    const result = this.client.ioctl(this.devices[n]!, uapi.VFIO_DEVICE_FEATURE, bytes);
    return { result: result < 0 ? errnoName(result) : result, answer: layout.read(bytes, DOORBELL_HEADER) };
  }

  set(n: number, iova: number, size = 0x1000, more: { start?: number; count?: number } = {}): string | number {
    return this.feature(n, uapi.VFIO_DEVICE_FEATURE_SET, { iova, size, ...more }).result;
  }

  get(n: number, start = 0) {
    const { answer } = this.feature(n, uapi.VFIO_DEVICE_FEATURE_GET, { start });
    return { iova: Number(answer.iova), flags: answer.flags };
  }

  /** Does the function's address arrive: the SMMU's own walk over its tables in memory. */
  translate(n: number, iova: number): number {
    return this.bells[n]!.iommuGroup!.domain.lookup(iova);
  }

  lost(loss: number): number {
    return this.host.context.tap.ledger[Count.LOST + loss]!;
  }
}

const ITS = 0x5081_0000;

describe('on a machine with SMMUv3 and ITS', () => {
  it('without a choice: the window’s first page, and every vector rings its own eventfd', () => {
    const lab = new Lab();
    const { result, events } = lab.enable(0, VECTORS);
    expect(result).toBe(0);
    expect(lab.get(0, 3)).toEqual({ iova: 0x800_0040, flags: 1 });
    expect(lab.translate(0, 0x800_0040)).toBe(ITS + 0x40);
    for (let vector = 0; vector < VECTORS; vector++) lab.ring(0, vector);
    expect(events.map((event) => event.drain())).toEqual([1, 1, 1, 1]);
  });

  it('the seed’s rule: the address that QEMU gives its guest’s ITS, in the vector and in the tables', () => {
    const lab = new Lab();
    expect(lab.set(0, 0x809_0000)).toBe(0);
    const { events } = lab.enable(0, VECTORS);
    expect(lab.get(0)).toEqual({ iova: 0x809_0040, flags: 1 });
    expect(lab.translate(0, 0x809_0040)).toBe(ITS + 0x40);
    expect(lab.translate(0, 0x800_0040)).toBe(-1);
    lab.ring(0, 2);
    expect(events.map((event) => event.drain())).toEqual([0, 0, 1, 0]);
  });

  it('moved while armed: rings before, rings after, and the old address is gone', () => {
    const lab = new Lab();
    lab.set(0, 0x809_0000);
    const { events } = lab.enable(0, 2);
    lab.ring(0, 1);
    expect(lab.set(0, 0x1_2345_6000)).toBe(0);
    lab.ring(0, 1);
    expect(events[1]!.drain()).toBe(2);
    expect(lab.get(0, 1)).toEqual({ iova: 0x1_2345_6040, flags: 1 });
    expect([lab.translate(0, 0x809_0040), lab.translate(0, 0x1_2345_6040)]).toEqual([-1, ITS + 0x40]);
    expect(lab.lost(Loss.IOMMU_FAULT)).toBe(0);
  });

  it('a second device shares the identical range; closing the first leaves it ringing (G6)', () => {
    const lab = new Lab();
    lab.set(0, 0x809_0000);
    lab.set(1, 0x809_0000);
    lab.enable(0, 1);
    const { events } = lab.enable(1, 2);
    lab.client.close(lab.devices[0]!);
    lab.ring(1, 1);
    expect(events.map((event) => event.drain())).toEqual([0, 1]);
  });

  it('MAP over it is EINVAL, before and while it is used; after the last close it is free', () => {
    const lab = new Lab();
    const memory = lab.client.allocate(0x1000);
    if (typeof memory === 'number') throw new Error('no memory');
    const map = (): number => mapDma(lab.client, lab.container, 0x900_0000, memory.address, 0x1000);
    lab.set(0, 0x900_0000);
    expect(errnoName(map())).toBe('EINVAL');
    expect(lab.client.refusal()?.why).toContain('doorbell');
    lab.enable(0, 1);
    expect(errnoName(map())).toBe('EINVAL');
    lab.client.close(lab.devices[0]!);
    expect(lab.translate(0, 0x900_0000)).toBe(-1);
    expect(map()).toBe(0);
    expect(lab.set(1, 0x900_0000)).toBe('EADDRINUSE');
  });

  it('a kill leaves nothing behind', () => {
    const lab = new Lab();
    lab.set(0, 0x809_0000);
    lab.enable(0, VECTORS);
    lab.host.kernel.exit(lab.client.process);
    expect(lab.host.irqs.interrupts().filter((row) => row.chip.includes('PCI'))).toEqual([]);
    expect(lab.host.msi.vectors(lab.bells[0]!)).toEqual([]);
  });

  it('G14b: a page taken away behind the kernel’s back loses exactly its vectors’ interrupts, as a fault', () => {
    const lab = new Lab();
    lab.set(0, 0x809_0000, 0x1000, { start: 0, count: 1 });
    lab.set(0, 0x90a_0000, 0x1000, { start: 1, count: 1 });
    const { events } = lab.enable(0, 2);
    const { domain } = lab.bells[0]!.iommuGroup!;
    domain.unmap(0x809_0000, 0x1000);
    domain.sync();
    lab.ring(0, 0);
    lab.ring(0, 1);
    expect(events.map((event) => event.drain())).toEqual([0, 1]);
    expect(lab.lost(Loss.IOMMU_FAULT)).toBe(1);
  });

  it('G12: the device may ring its own vectors by DMA, and no other device’s', () => {
    const lab = new Lab();
    for (const n of [0, 1]) lab.set(n, 0x809_0000);
    const own = lab.enable(0, VECTORS).events;
    const other = lab.enable(1, VECTORS).events;
    lab.dma(0, 0x809_0040, 2);
    expect(own.map((event) => event.drain())).toEqual([0, 0, 1, 0]);
    expect(other.map((event) => event.drain())).toEqual([0, 0, 0, 0]);
  });

  it('G13: another offset of the page is no doorbell, and no fault either', () => {
    const lab = new Lab();
    lab.set(0, 0x809_0000);
    const { events } = lab.enable(0, VECTORS);
    lab.dma(0, 0x809_0044, 2);
    expect(events.map((event) => event.drain())).toEqual([0, 0, 0, 0]);
    expect(lab.host.context.tap.ledger[Count.FAULTS]).toBe(0);
    lab.dma(0, 0x80a_0040, 2);
    expect(lab.host.context.tap.ledger[Count.FAULTS]).toBe(1);
  });

  it('abi linux-7.2: ENOTTY, and the window as on Linux', () => {
    const lab = new Lab('arm-its', 'linux-7.2');
    expect(lab.set(0, 0x809_0000)).toBe('ENOTTY');
    const { events } = lab.enable(0, 1);
    lab.ring(0, 0);
    expect(events[0]!.drain()).toBe(1);
  });
});

describe('on a machine with GICv2m', () => {
  it('with 4 KiB pages the frame fills its page, and the doorbell may be moved', () => {
    const lab = new Lab('arm-v2m');
    expect(lab.set(0, 0x809_0000)).toBe(0);
    const { events } = lab.enable(0, 2);
    expect(lab.translate(0, 0x809_0040)).toBe(0x5090_0040);
    lab.ring(0, 1);
    expect(events.map((event) => event.drain())).toEqual([0, 1]);
  });
});
