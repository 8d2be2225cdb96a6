/** Whole machines for the tests of this room: bells behind root ports, driven through their character devices. */
import {
  BELL_PASID,
  BellDma,
  BellRegister,
  BellStatus,
  createDevice,
  type DeviceOptions,
} from '../../devices/index.ts';
import { defineMachine, type MachineInput } from '../../machine/define.ts';
import { Machine } from '../../machine/machine.ts';
import { type PresetName, presetInput } from '../../machine/presets.ts';
import { Count } from '../../ports/ledger.ts';
import {
  vfio_device_feature_belfry_doorbell as layout,
  VFIO_DEVICE_FEATURE_BELFRY_DOORBELL,
} from '../../uapi/belfry.ts';
import { errnoName } from '../../uapi/errno.ts';
import * as uapi from '../../uapi/vfio.ts';
import { type BootOptions, bootLinux, type Host } from '../boot/boot.ts';
import type { SimKernelClient } from '../client.ts';
import { Iommufd, named } from './testing.ts';

const MSIX = uapi.VFIO_PCI_MSIX_IRQ_INDEX;
const DOORBELL_HEADER = 8;
const COMMAND = 4;
const MASTER_AND_MEMORY = 6;
export const VECTORS = 4;

export interface CdevLabOptions extends BootOptions {
  readonly machine?: Partial<MachineInput>;
  /** Of both bells, beside their vectors. */
  readonly bell?: DeviceOptions;
  /** Do the ports above them redirect requests to the IOMMU? Default true. */
  readonly acs?: boolean;
}

export class CdevLab {
  readonly host: Host;
  readonly client: SimKernelClient;
  iommufd: Iommufd;
  /** Device files, not bound. */
  devices: readonly number[];

  constructor(
    name: PresetName = 'arm-its',
    { machine = {}, bell: own = {}, acs = true, ...options }: CdevLabOptions = {},
  ) {
    const base = { ...presetInput(name), ...machine };
    const bell = { at: '00.0', kind: 'function' as const, device: 'bell', options: { msix: VECTORS, ...own } };
    const slots = ['01.0', '02.0'].map((at) => ({ at, kind: 'root-port' as const, acs, below: [bell] }));
    this.host = bootLinux(new Machine(defineMachine({ ...base, pci: { ...base.pci, slots } }), createDevice), options);
    this.client = this.host.process().kernel;
    this.iommufd = new Iommufd(this.client);
    this.devices = [0, 1].map((n) => this.client.open(`/dev/vfio/devices/vfio${n}`));
  }

  /** Other open files from now on. */
  use(iommufd: Iommufd, devices: readonly number[]): void {
    this.iommufd = iommufd;
    this.devices = devices;
  }

  get bells() {
    return this.host.pciDevices.filter((dev) => dev.deviceId === 0xbe11);
  }

  group(n: number) {
    return this.host.groups!.groups.find((group) => group === this.bells[n]!.iommuGroup)!;
  }

  /** Binds the device and turns bus mastering on: its id. */
  bind(n: number, iommufd = this.iommufd): number | string {
    const id = iommufd.bind(this.devices[n]!);
    if (typeof id === 'number') this.command(n);
    return id;
  }

  command(n: number): void {
    const config = uapi.VFIO_PCI_CONFIG_REGION_INDEX * 2 ** 40;
    this.client.pwrite(this.devices[n]!, new Uint8Array([MASTER_AND_MEMORY, 0]), config + COMMAND);
  }

  /** SET_IRQS with an eventfd for each vector; what it answers, by name. */
  enable(n: number, count = VECTORS) {
    const events = Array.from({ length: count }, () => {
      const event = this.client.eventfd();
      if (typeof event === 'number') throw new Error(errnoName(event));
      return event;
    });
    const flags = uapi.VFIO_IRQ_SET_DATA_EVENTFD | uapi.VFIO_IRQ_SET_ACTION_TRIGGER;
    const fds = new Uint8Array(Int32Array.from(events, (event) => event.fd).buffer);
    const bytes = new Uint8Array(uapi.vfio_irq_set.size + fds.length);
    uapi.vfio_irq_set.patch(bytes, { argsz: bytes.length, flags, index: MSIX, start: 0, count });
    bytes.set(fds, uapi.vfio_irq_set.size);
    const result = named(this.client.ioctl(this.devices[n]!, uapi.VFIO_DEVICE_SET_IRQS, bytes));
    return { result, rung: () => events.map((event) => event.drain()) };
  }

  ring(n: number, vector: number): void {
    this.register(n, BellRegister.RING, vector);
    this.client.settle();
  }

  /** The device writes a word to an IOVA by DMA, in an address space that a PASID names. False: it could not. */
  dma(n: number, iova: number, value: number, pasid: number | null = null): boolean {
    this.register(n, BellRegister.DMA_PASID, pasid === null ? 0 : BELL_PASID + pasid);
    this.register(n, 4 * 2 ** 40, value);
    this.register(n, BellRegister.DMA_IOVA_LO, iova | 0);
    this.register(n, BellRegister.DMA_IOVA_HI, Math.floor(iova / 2 ** 32));
    this.register(n, BellRegister.DMA_LOCAL, 0);
    this.register(n, BellRegister.DMA_LENGTH, 4);
    this.register(n, BellRegister.DMA_COMMAND, BellDma.START | BellDma.TO_MEMORY);
    this.client.settle();
    const status = new Uint8Array(4);
    this.client.pread(this.devices[n]!, status, BellRegister.STATUS);
    return (status[0]! & BellStatus.FAILED) === 0;
  }

  /** Address and data that the function sends for a vector. */
  message(n: number, vector: number): [address: number, data: number] {
    const found = this.host.msi.vectors(this.bells[n]!).find(({ desc }) => desc.index === vector);
    if (found === undefined) throw new Error(`vector ${vector} is not allocated`);
    const { addressHi, addressLo, data } = found.desc.message;
    return [(addressHi >>> 0) * 2 ** 32 + (addressLo >>> 0), data];
  }

  /** What an IOVA of the device means now, or -1. */
  lookup(n: number, iova: number): number {
    return this.group(n).domain.lookup(iova);
  }

  /** SET of the user-given doorbell. */
  doorbell(n: number, iova: number, size = 0x1000): number | string {
    const bytes = new Uint8Array(DOORBELL_HEADER + layout.size);
    const flags = uapi.VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_BELFRY_DOORBELL;
    uapi.vfio_device_feature.patch(bytes, { argsz: bytes.length, flags });
    layout.write(bytes, { index: MSIX, iova, size }, DOORBELL_HEADER);
    return named(this.client.ioctl(this.devices[n]!, uapi.VFIO_DEVICE_FEATURE, bytes));
  }

  get faults(): number {
    return this.host.context.tap.ledger[Count.FAULTS]!;
  }

  private register(n: number, offset: number, value: number): void {
    this.client.pwrite(this.devices[n]!, new Uint8Array(Int32Array.of(value).buffer), offset);
  }
}
