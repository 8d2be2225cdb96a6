/** A device that this process owns. */
import type { Kernel } from '../ports/kernel.ts';
import {
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_RESET,
  vfio_device_info,
} from '../uapi/vfio-device.ts';
import { VFIO_DEVICE_FEATURE_DMA_BUF } from '../uapi/vfio-feature.ts';
import { VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_ROM_REGION_INDEX } from '../uapi/vfio-pci.ts';
import type { AddressSpace } from './address-space.ts';
import { oneOf } from './argument.ts';
import { ConfigSpace } from './config-space.ts';
import type { Container } from './container.ts';
import { groupOf } from './device-names.ts';
import { type DmaBuf, type DmaBufRange, exportDmaBuf } from './dma-buf.ts';
import { Doorbell } from './doorbell.ts';
import { check, VfioError } from './error.ts';
import { Feature } from './feature.ts';
import type { Group } from './group.ts';
import { INTERRUPT_KINDS, type InterruptKind, Interrupts } from './interrupts.ts';
import { queryRegion, Region } from './region.ts';
import { askInfo } from './request.ts';
import { type GroupReservedRegion, reservedRegions } from './reserved-regions.ts';
import { Resource } from './resource.ts';

export interface DeviceInfo {
  readonly pci: boolean;
  /** The device can be reset by itself. */
  readonly resettable: boolean;
  /** Regions and kinds of interrupts; indexes run from 0. */
  readonly regions: number;
  readonly irqs: number;
}

/**
 * @example
 * using device = openDevice(kernel, '0000:01:00.0');
 * device.config.busMaster = true;
 * const { vectors } = device.msix.enable(1);
 * vectors[0]?.onInterrupt((count) => console.log(`${count} arrived`));
 */
export class Device extends Resource {
  readonly kernel: Kernel;
  readonly fd: number;
  /** `0000:01:00.0` */
  readonly name: string;
  readonly doorbell: Doorbell;
  readonly #group: Group | null;
  readonly #regions = new Map<number, Region>();
  readonly #interrupts = new Map<InterruptKind, Interrupts>();
  #config: ConfigSpace | null = null;

  /** Made by {@link Group.openDevice}; without a group by `CdevDevice.open`. */
  constructor(kernel: Kernel, fd: number, name: string, group: Group | null) {
    super();
    this.kernel = kernel;
    this.fd = fd;
    this.name = name;
    this.#group = group;
    this.doorbell = new Doorbell(
      (id) => this.feature(id),
      () => Math.max(this.kernel.pageSize, this.smallestPage()),
    );
  }

  get label(): string {
    return `device ${this.name}`;
  }

  /** Of a device that was opened from its group. @throws VfioError EINVAL for one that was opened by its own file */
  get group(): Group {
    if (this.#group !== null) return this.#group;
    const why = `${this.label} was opened by its own file: it has no group and no container`;
    const hint = 'space is what both ways have, as are groupNumber and reservedRegions';
    throw new VfioError({ code: 'EINVAL', request: 'group', why, hint });
  }

  /** The number of its IOMMU group. @throws VfioError ENODEV when the device is gone */
  get groupNumber(): number {
    return this.#group?.number ?? groupOf(this.kernel, this.name);
  }

  /** Ranges that cannot be mapped for this device; empty when sysfs does not say. */
  get reservedRegions(): readonly GroupReservedRegion[] {
    return reservedRegions(this.kernel, this.groupNumber) ?? [];
  }

  /** What the device's memory is mapped into: a container, or an IOAS. @throws VfioError EINVAL when it is in none */
  get space(): AddressSpace {
    return this.container;
  }

  /** What the device's memory is mapped into. @throws VfioError EINVAL once the group has left its container, and without a group */
  get container(): Container {
    const { container } = this.group;
    if (container !== null) return container;
    throw new VfioError({ code: 'EINVAL', request: 'container', why: `${this.group.label} is in no container` });
  }

  /** @throws VfioError */
  info(): DeviceInfo {
    this.assertOpen('VFIO_DEVICE_GET_INFO');
    const answer = askInfo(
      this.kernel,
      this.fd,
      VFIO_DEVICE_GET_INFO,
      'VFIO_DEVICE_GET_INFO',
      vfio_device_info,
      () => {},
    );
    const { flags, num_regions, num_irqs } = vfio_device_info.read(answer);
    return {
      pci: (flags & VFIO_DEVICE_FLAGS_PCI) !== 0,
      resettable: (flags & VFIO_DEVICE_FLAGS_RESET) !== 0,
      regions: num_regions,
      irqs: num_irqs,
    };
  }

  /** Back to power-on state; interrupts and mappings stay. @throws VfioError: EINVAL without a reset, EAGAIN when it is busy */
  reset(): void {
    this.assertOpen('VFIO_DEVICE_RESET');
    check(this.kernel, this.kernel.ioctl(this.fd, VFIO_DEVICE_RESET), 'VFIO_DEVICE_RESET', (code) =>
      code === 'EINVAL' ? { why: `${this.name} has no reset of its own` } : null,
    );
  }

  /** @throws VfioError EINVAL for an index that the device does not have */
  region(index: number): Region {
    this.assertOpen('VFIO_DEVICE_GET_REGION_INFO');
    const known = this.#regions.get(index);
    if (known !== undefined && !known.isClosed) return known;
    const region = this.adopt(new Region(this.kernel, this.fd, queryRegion(this.kernel, this.fd, index), this.name));
    this.#regions.set(index, region);
    return region;
  }

  /** BAR 0 to 5; of size 0 when the device lacks it. */
  bar(index: number): Region {
    return this.region(index);
  }

  get rom(): Region {
    return this.region(VFIO_PCI_ROM_REGION_INDEX);
  }

  get config(): ConfigSpace {
    this.#config ??= new ConfigSpace(this.region(VFIO_PCI_CONFIG_REGION_INDEX));
    return this.#config;
  }

  get intx(): Interrupts {
    return this.interrupts('intx');
  }

  get msi(): Interrupts {
    return this.interrupts('msi');
  }

  get msix(): Interrupts {
    return this.interrupts('msix');
  }

  /** Uncorrectable errors of PCI Express. */
  get err(): Interrupts {
    return this.interrupts('err');
  }

  /** The host wants the device back. */
  get req(): Interrupts {
    return this.interrupts('req');
  }

  /** @throws VfioError EBADF after close */
  interrupts(kind: InterruptKind): Interrupts {
    this.assertOpen('VFIO_DEVICE_GET_IRQ_INFO');
    oneOf(kind, INTERRUPT_KINDS, 'VFIO_DEVICE_GET_IRQ_INFO', 'kind');
    const known = this.#interrupts.get(kind);
    if (known !== undefined && !known.isClosed) return known;
    const interrupts = this.adopt(new Interrupts(this.kernel, this.fd, kind, this.name));
    this.#interrupts.set(kind, interrupts);
    return interrupts;
  }

  /** One feature by its number (`VFIO_DEVICE_FEATURE_DMA_BUF`). */
  feature(id: number): Feature {
    return new Feature(this.kernel, this.fd, id, (request) => this.assertOpen(request));
  }

  /**
   * Lends bytes of a BAR, all of it without `ranges`, to other devices' DMA: {@link Ioas.mapFile} maps a dma-buf with one range. Closed with the device.
   * @throws VfioError: ENOTTY a kernel without it, ENODEV no such BAR, EINVAL ranges that are not whole pages of the BAR
   */
  exportDmaBuf(bar: number, ranges?: readonly DmaBufRange[]): DmaBuf {
    const whole = ranges ?? [
      {
        offset: 0,
        length: Number.isInteger(bar) && bar >= 0 && bar < VFIO_PCI_ROM_REGION_INDEX ? this.bar(bar).size : 0,
      },
    ];
    return this.adopt(exportDmaBuf(this.kernel, this.feature(VFIO_DEVICE_FEATURE_DMA_BUF), this.name, bar, whole));
  }

  protected override release(): void {
    this.kernel.close(this.fd);
  }

  /** Of what the device translates through; 0 while that is nothing. The doorbell is mapped as one of them, or as a page of the kernel. */
  protected smallestPage(): number {
    const container = this.#group?.container ?? null;
    return container === null || container.iommu === null ? 0 : (container.pageSizes()[0] ?? 0);
  }
}
