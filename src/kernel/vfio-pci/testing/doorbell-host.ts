/** A host with a real type1 container, real interrupt and MSI cores, and devices whose doorbell user space may choose. */
import type { IommuDomain, ReservedRegion } from '../../../ports/iommu.ts';
import type { UserBuffer } from '../../../ports/kernel.ts';
import { vfio_device_feature_belfry_doorbell as layout } from '../../../uapi/belfry.ts';
import * as uapi from '../../../uapi/vfio.ts';
import { SimKernelClient } from '../../client.ts';
import { type FakeDev, type FakeDevOptions, FakeDomain, type FakeGroup } from '../../irq/testing/fakes.ts';
import { MsiHost, outcome } from '../../irq/testing/msi-host.ts';
import { SimKernel } from '../../kernel.ts';
import type { PciDev } from '../../pci/pci-dev.ts';
import { type DmaContext, type IovaSpan, setDmaContext } from '../../vfio/doorbell-context.ts';
import { VfioIommuType1 } from '../../vfio/type1.ts';
import { DoorbellControl } from '../doorbell.ts';

export const MSI = 1;
export const MSIX = 2;
export const ITS = 0x809_0000;

export interface Given {
  readonly flags?: number;
  readonly index?: number;
  readonly start?: number;
  readonly count?: number;
  readonly iova?: number | bigint;
  readonly size?: number | bigint;
}

export type Bell = FakeDev & { readonly iommuGroup: FakeGroup; readonly bell: DoorbellControl };

/** An IOAS, as far as a doorbell cares. */
export class FakeIoas implements DmaContext {
  readonly kind = 'iommufd';
  readonly domains: IommuDomain[] = [];
  readonly maps: IovaSpan[] = [];
  readonly reserved: IovaSpan[] = [];
  regions: readonly ReservedRegion[] = [];

  domainOf(dev: PciDev): IommuDomain | null {
    const domain = dev.iommuGroup?.domain;
    return domain !== undefined && this.domains.includes(domain) ? domain : null;
  }
  userMapping(start: number, end: number): IovaSpan | null {
    return this.maps.find((map) => map.start <= end && start <= map.end) ?? null;
  }
  reservedRegions(): readonly ReservedRegion[] {
    return this.regions;
  }
  reserve(start: number, end: number): void {
    this.reserved.push({ start, end });
  }
  release(start: number, end: number): void {
    const at = this.reserved.findIndex((span) => span.start === start && span.end === end);
    if (at < 0) throw new Error('released what was not reserved');
    this.reserved.splice(at, 1);
  }
  /** A new domain of this IOAS. */
  hwpt(domain = new FakeDomain()): FakeDomain {
    this.domains.push(domain);
    setDmaContext(domain, this);
    return domain;
  }
}

export class DoorbellHost extends MsiHost {
  type1: VfioIommuType1;
  private user: { readonly client: SimKernelClient; readonly scratch: UserBuffer } | null = null;
  /** Pages that disappeared under an unmasked vector whose stream still saw them. */
  readonly violations: string[] = [];

  constructor(options: ConstructorParameters<typeof MsiHost>[0] = {}) {
    super(options);
    this.type1 = this.container();
  }

  get client(): SimKernelClient {
    return this.owner.client;
  }

  private get scratch(): UserBuffer {
    return this.owner.scratch;
  }

  /** A process with a page for its structs, made when it is needed. */
  private get owner(): { readonly client: SimKernelClient; readonly scratch: UserBuffer } {
    if (this.user !== null) return this.user;
    const client = new SimKernelClient(new SimKernel(this.context));
    const scratch = client.allocate(0x1_0000);
    if (typeof scratch === 'number') throw new Error('no memory');
    this.user = { client, scratch };
    return this.user;
  }

  container(): VfioIommuType1 {
    return new VfioIommuType1(this.context, true);
  }

  /** A device with its doorbell, in a group that is attached to nothing. */
  bell(options: FakeDevOptions = { msix: 4 }): Bell {
    const dev = this.add(options);
    return Object.assign(dev, { bell: new DoorbellControl(this.context, dev, this.msi) });
  }

  /** A device whose group is in the container. */
  attached(options: FakeDevOptions = { msix: 4 }, domain: FakeDomain | null = null): Bell {
    const dev = this.bell(options);
    this.join(dev, domain);
    return dev;
  }

  join(dev: Bell, domain: FakeDomain | null = null): number {
    if (domain !== null) dev.iommuGroup.allocateDomain = () => domain;
    const error = this.type1.attachGroup(dev.iommuGroup);
    this.watch(dev.iommuGroup.domain as FakeDomain);
    return error;
  }

  domain(dev: Bell): FakeDomain {
    return dev.iommuGroup.domain as FakeDomain;
  }

  set(dev: Bell, given: Given): string | number {
    this.context.refusals.last = null;
    return outcome(dev.bell.set(this.payload(given)));
  }

  /** `EINVAL iova` */
  refused(dev: Bell, given: Given): string {
    const result = this.set(dev, given);
    return `${result}` === `${this.context.refusals.last?.code}` ? this.refusal() : `${result}`;
  }

  get(dev: Bell, start = 0, index = MSIX): { iova: number; size: number; flags: number } {
    const answer = dev.bell.get(this.payload({ index, start }));
    if (typeof answer === 'number') throw new Error(`GET: ${answer}`);
    return { iova: Number(answer.iova), size: Number(answer.size), flags: answer.flags };
  }

  payload({ flags = 0, index = MSIX, start = 0, count = 0, iova = 0, size = 0x1000 }: Given) {
    return { flags, index, start, count, iova: BigInt(iova), size: BigInt(size) };
  }

  /** The request as bytes in a process. */
  feature(dev: Bell, flags: number, given: Given, size = layout.size): string | number {
    this.context.refusals.last = null;
    layout.write(this.scratch.bytes, this.payload(given));
    return outcome(dev.bell.feature(this.client.process, flags, this.scratch.address, size));
  }

  get answer() {
    return layout.read(this.scratch.bytes);
  }

  /** Allocates vectors, and unmasks them with handlers. */
  enable(dev: Bell, count: number, mode: 'msi' | 'msix' = 'msix'): number {
    this.context.refusals.last = null;
    const made = this.msi.allocIrqVectors(dev, 1, count, mode);
    for (let i = 0; i < made; i++) this.handle(dev, i);
    return made;
  }

  handle(dev: Bell, index: number): void {
    this.msi.requestIrq(this.msi.irqVector(dev, index), { handleIrq: () => {} }, `v${index}`);
  }

  /** VFIO_IOMMU_MAP_DMA of the container. */
  map(iova: number, size: number): string | number {
    const map = uapi.vfio_iommu_type1_dma_map;
    const memory = this.client.allocate(size);
    if (typeof memory === 'number') throw new Error('no memory');
    map.write(this.scratch.bytes, { argsz: map.size, flags: 3, vaddr: memory.address, iova, size });
    this.context.refusals.last = null;
    return outcome(this.type1.ioctl(this.client.process, uapi.VFIO_IOMMU_MAP_DMA, BigInt(this.scratch.address)));
  }

  /** Bytes unmapped, or the errno's name. */
  unmap(iova: number, size: number, flags = 0): string | number {
    const unmap = uapi.vfio_iommu_type1_dma_unmap;
    unmap.write(this.scratch.bytes, { argsz: unmap.size, flags, iova, size });
    const result = this.type1.ioctl(this.client.process, uapi.VFIO_IOMMU_UNMAP_DMA, BigInt(this.scratch.address));
    return result < 0 ? outcome(result) : Number(unmap.read(this.scratch.bytes).size);
  }

  /** Where the message of a vector would arrive: physical address, or -1 when it would fault. */
  arrives(dev: Bell, index: number): number {
    const { domain } = dev.iommuGroup;
    return domain.type === 'blocked' ? -1 : domain.lookup(this.entry(dev, index).address);
  }

  /** From now on no page of the domain may go while a live vector of one of its devices names it. */
  watch(domain: FakeDomain): void {
    domain.onUnmap = (iova, size) => {
      for (const dev of this.devs.filter((candidate) => candidate.iommuGroup?.domain === domain)) {
        if (this.msi.mode(dev) !== 'msix') continue;
        for (const { desc } of this.msi.vectors(dev)) {
          const { address } = this.entry(dev, desc.index);
          if (!this.live(dev, desc.index) || address < iova || address >= iova + size) continue;
          this.violations.push(`${dev.name} vector ${desc.index} is live at 0x${address.toString(16)}`);
        }
      }
    };
  }
}

/** The translation frame of the n-th ITS. */
export const frame = (n: number) => ({ base: ITS + n * 0x2_0000, size: 0x1_0000, register: 0x40, isolated: true });

/** Attaches as iommufd does: reserve and install, then switch. */
export function attach(host: DoorbellHost, dev: Bell, ioas: FakeIoas, domain = ioas.hwpt()): number {
  const move = dev.bell.beginMove({ dma: ioas, domain });
  if (typeof move === 'number') return move;
  host.watch(domain);
  dev.iommuGroup.replace(domain);
  move.commit();
  return 0;
}

export function detach(dev: Bell): void {
  dev.iommuGroup.detach();
  dev.bell.detach();
}
