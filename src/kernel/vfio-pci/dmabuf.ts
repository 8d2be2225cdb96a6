/**
 * VFIO_DEVICE_FEATURE_DMA_BUF (vfio_pci_dmabuf.c): ranges of a BAR as a dma-buf, for other devices' DMA. It is revoked while the BAR cannot be
 * accessed. What an importer had mapped by then it has lost; after that it may import again.
 */
import { hex } from '../../ports/address.ts';
import { ERRNO } from '../../uapi/errno.ts';
import {
  VFIO_DEVICE_FEATURE_GET,
  VFIO_PCI_ROM_REGION_INDEX,
  vfio_device_feature_dma_buf,
  vfio_region_dma_range,
} from '../../uapi/vfio.ts';
import { type DmaBufExporter, DmaBufFile, type PhysVec } from '../dma-buf.ts';
import type { PciResource } from '../pci/pci-dev.ts';
import type { Process } from '../process.ts';
import { vfioCheckFeature } from '../vfio/feature.ts';
import type { VfioPciState } from './state.ts';

interface DmaRange {
  readonly offset: bigint;
  readonly length: bigint;
}

/** KMALLOC_MAX_SIZE: the largest list that memdup_array_user copies. */
const MOST_BYTES = 4 * 2 ** 20;
const U64_END = 2n ** 64n;
/** DMA_IOVA_USE_SWIOTLB, which no length may reach. */
const LENGTH_END = 2n ** 63n;

class VfioPciDmaBuf implements DmaBufExporter {
  readonly file: DmaBufFile;
  readonly ranges: readonly PhysVec[];
  revoked: boolean;
  private readonly state: VfioPciState;
  private readonly onRelease: () => void;

  constructor(state: VfioPciState, ranges: readonly PhysVec[], openFlags: number, onRelease: () => void) {
    this.state = state;
    this.ranges = ranges;
    this.onRelease = onRelease;
    this.revoked = !state.memoryEnabled;
    const size = ranges.reduce((sum, { length }) => sum + length, 0);
    this.file = new DmaBufFile(state.context.refusals, { exporter: this, size, openFlags });
  }

  attach(): number {
    return this.revoked ? this.refuseRevoked() : 0;
  }

  /** vfio_pci_dma_buf_iommufd_map. */
  iommufdMap(): PhysVec | number {
    if (this.revoked) return this.refuseRevoked();
    const [range] = this.ranges;
    if (this.ranges.length === 1 && range !== undefined) return range;
    const why = `the dma-buf has ${this.ranges.length} ranges, and iommufd maps those with one`;
    return this.state.context.refusals.refuse('EOPNOTSUPP', why, 'fd', 'export each range by itself');
  }

  release(): void {
    this.onRelease();
  }

  private refuseRevoked(): number {
    const why = `the dma-buf of ${this.state.dev.name} is revoked: memory decoding is off, the function sleeps, or its owner closed it`;
    return this.state.context.refusals.refuse('ENODEV', why, 'fd');
  }
}

export class VfioPciDmaBufs {
  private readonly state: VfioPciState;
  /** vdev->dmabufs: those whose file is open, since the device was opened. */
  private readonly exported = new Set<VfioPciDmaBuf>();

  constructor(state: VfioPciState) {
    this.state = state;
  }

  get count(): number {
    return this.exported.size;
  }

  /** vfio_pci_core_feature_dma_buf: a file descriptor, or -errno. */
  feature(process: Process, flags: number, address: number, size: number): number {
    const { refusals } = this.state.context;
    const layout = vfio_device_feature_dma_buf;
    const checked = vfioCheckFeature(refusals, flags, size, VFIO_DEVICE_FEATURE_GET, layout.size);
    if (checked !== 1) return checked;
    const bytes = new Uint8Array(layout.size);
    if (!process.memory.copyIn(address, bytes))
      return refusals.refuse('EFAULT', `the ${layout.size} bytes of the payload are not readable`, 'data');
    const asked = layout.read(bytes);
    if (asked.nr_ranges === 0) return refusals.refuse('EINVAL', 'nr_ranges is 0', 'nr_ranges');
    if (asked.flags !== 0) return refusals.refuse('EINVAL', `flags ${hex(asked.flags, 1)} is not 0`, 'flags');
    const bar = this.bar(asked.region_index);
    if (typeof bar === 'number') return bar;
    const ranges = this.readRanges(process, address + layout.size, asked.nr_ranges);
    if (typeof ranges === 'number') return ranges;
    const error = this.validate(ranges);
    if (error < 0) return error;
    const physical = this.physical(bar, ranges);
    return typeof physical === 'number' ? physical : this.export(process, physical, asked.open_flags);
  }

  /** vfio_pci_dma_buf_move. Importers lose what they had mapped, also of one that comes back. */
  move(revoked: boolean): void {
    for (const dmabuf of this.exported) {
      if (dmabuf.revoked === revoked) continue;
      if (revoked) dmabuf.revoked = true;
      dmabuf.file.invalidateMappings();
      dmabuf.revoked = revoked;
    }
  }

  /** vfio_pci_dma_buf_cleanup: the device closes. The files stay open, and revoked for ever. */
  cleanup(): void {
    this.move(true);
    this.exported.clear();
  }

  private bar(index: number): PciResource | number {
    const { context, dev } = this.state;
    if (index >= VFIO_PCI_ROM_REGION_INDEX)
      return context.refusals.refuse('ENODEV', `region_index ${index} is no BAR (0 to 5)`, 'region_index');
    return (
      this.state.resource(index) ?? context.refusals.refuse('ENODEV', `${dev.name} has no BAR ${index}`, 'region_index')
    );
  }

  /** memdup_array_user. */
  private readRanges(process: Process, address: number, count: number): DmaRange[] | number {
    const { refusals } = this.state.context;
    const layout = vfio_region_dma_range;
    const length = count * layout.size;
    if (length > MOST_BYTES)
      return refusals.refuse('ENOMEM', `${count} ranges take ${length} bytes, more than ${MOST_BYTES}`, 'nr_ranges');
    const bytes = new Uint8Array(length);
    if (!process.memory.copyIn(address, bytes))
      return refusals.refuse('EFAULT', `the ${count} ranges behind the payload are not readable`, 'dma_ranges');
    return Array.from({ length: count }, (_, i) => layout.read(bytes, i * layout.size));
  }

  /** validate_dmabuf_input. */
  private validate(ranges: readonly DmaRange[]): number {
    const { refusals, pageSize } = this.state.context;
    const page = BigInt(pageSize);
    let sum = 0n;
    for (const [i, { offset, length }] of ranges.entries()) {
      if (length === 0n || offset % page !== 0n || length % page !== 0n) {
        const why = `range ${i}, ${hex(offset, 1)} + ${hex(length, 1)}, is not made of whole pages of ${pageSize} bytes`;
        return refusals.refuse('EINVAL', why, 'dma_ranges');
      }
      sum += length;
      if (sum >= U64_END)
        return refusals.refuse('EINVAL', `the ranges up to ${i} have 2^64 bytes or more`, 'dma_ranges');
    }
    if (sum < LENGTH_END) return 0;
    return refusals.refuse('EINVAL', `the ranges have ${hex(sum, 1)} bytes, 2^63 or more`, 'dma_ranges');
  }

  /** vfio_pci_core_get_dmabuf_phys: where the ranges lie, or -errno. */
  private physical(bar: PciResource, ranges: readonly DmaRange[]): PhysVec[] | number {
    const { refusals } = this.state.context;
    if (bar.kind !== 'memory')
      return refusals.refuse('EINVAL', `BAR ${bar.index} has I/O ports, which no DMA reaches`, 'region_index');
    const found: PhysVec[] = [];
    for (const [i, { offset, length }] of ranges.entries()) {
      const end = BigInt(bar.base) + offset + length;
      const where = `range ${i}, ${hex(offset, 1)} + ${hex(length, 1)}`;
      if (end >= U64_END) return refusals.refuse('EOVERFLOW', `${where}, wraps`, 'dma_ranges');
      if (end > BigInt(bar.base + bar.size)) {
        const why = `${where}, is beyond BAR ${bar.index}, which has ${hex(bar.size, 1)} bytes`;
        return refusals.refuse('EINVAL', why, 'dma_ranges');
      }
      found.push({ pa: bar.base + Number(offset), length: Number(length) });
    }
    return found;
  }

  private export(process: Process, ranges: readonly PhysVec[], openFlags: number): number {
    const dmabuf = new VfioPciDmaBuf(this.state, ranges, openFlags, () => this.exported.delete(dmabuf));
    this.exported.add(dmabuf);
    const fd = process.install(dmabuf.file);
    return fd === -ERRNO.EMFILE ? this.state.context.refusals.passOn(fd, 'no file descriptor is free') : fd;
  }
}
