/** Ranges of a device's BAR as a file that other devices' address spaces can map: DMA from device to device. */
import type { Kernel } from '../ports/kernel.ts';
import { vfio_device_feature_dma_buf as layout, vfio_region_dma_range } from '../uapi/vfio-feature.ts';
import { refuseArgument } from './argument.ts';
import { type Explain, VfioError } from './error.ts';
import type { Feature } from './feature.ts';
import { Resource } from './resource.ts';

/** Bytes of a BAR, both multiples of the kernel's page. */
export interface DmaBufRange {
  readonly offset: number;
  readonly length: number;
}

/** What {@link Ioas.mapFile} maps: a dma-buf, a {@link MemoryFile}, or any descriptor of shared memory with its length. */
export interface MappableFile {
  readonly fd: number;
  /** Bytes. */
  readonly length: number;
}

const O_RDWR = 2;
const O_CLOEXEC = 0o2000000;

/**
 * The kernel takes it back while the BAR cannot be accessed: memory decoding off, D3hot, low power, a reset. What was mapped of it by then is
 * gone for good, without a word to whoever mapped it; when the BAR is back the dma-buf can be mapped again. The close of the device is the end.
 */
export class DmaBuf extends Resource implements MappableFile {
  readonly kernel: Kernel;
  readonly fd: number;
  readonly length: number;
  readonly #of: string;

  /** Made by {@link Device.exportDmaBuf}. */
  constructor(kernel: Kernel, fd: number, length: number, of: string) {
    super();
    this.kernel = kernel;
    this.fd = fd;
    this.length = length;
    this.#of = of;
  }

  get label(): string {
    return `dma-buf of ${this.#of}`;
  }

  protected override release(): void {
    this.kernel.close(this.fd);
  }
}

/** GET of the feature: the list lies behind the payload that its size counts. @throws VfioError */
export function exportDmaBuf(
  kernel: Kernel,
  feature: Feature,
  name: string,
  region: number,
  ranges: readonly DmaBufRange[],
): DmaBuf {
  if (!Array.isArray(ranges)) refuseArgument('VFIO_DEVICE_FEATURE', 'dma_ranges', 'a list of ranges', ranges);
  const payload = new Uint8Array(layout.size + ranges.length * vfio_region_dma_range.size);
  const region_index = Number.isInteger(region) && region >= 0 ? Math.min(region, 0xffff_ffff) : 0xffff_ffff;
  layout.patch(payload, { region_index, open_flags: O_RDWR | O_CLOEXEC, nr_ranges: ranges.length });
  for (const [i, { offset, length }] of ranges.entries()) {
    if (!(Number.isSafeInteger(offset) && offset >= 0 && Number.isSafeInteger(length) && length >= 0)) {
      const why = `range ${i} is ${offset} + ${length}, no bytes of a BAR`;
      throw new VfioError({ code: 'EINVAL', request: 'VFIO_DEVICE_FEATURE', why, field: 'dma_ranges' });
    }
    vfio_region_dma_range.write(payload, { offset, length }, layout.size + i * vfio_region_dma_range.size);
  }
  const fd = feature.open(payload, explain(name, region));
  const length = ranges.reduce((sum, range) => sum + range.length, 0);
  return new DmaBuf(kernel, fd, length, `region ${region} of ${name}`);
}

const explain =
  (name: string, region: number): Explain =>
  (code) => {
    switch (code) {
      case 'ENOTTY':
        return { why: 'this kernel exports no dma-bufs of BARs (CONFIG_VFIO_PCI_DMABUF)' };
      case 'ENODEV':
        return { why: `${name} has no BAR ${region}`, field: 'region_index' };
      case 'EINVAL':
        return { why: 'the ranges are none, not whole pages, beyond the BAR, or of I/O ports', field: 'dma_ranges' };
      case 'EMFILE':
        return { why: 'no file descriptor is free' };
      default:
        return null;
    }
  };

/** What an errno of IOMMU_IOAS_MAP_FILE means, where it is not the address space's. */
export function explainMapFile(code: string, { fd, length }: MappableFile, offset: number, wanted: number) {
  switch (code) {
    case 'EBADF':
      return { why: `file descriptor ${fd} is not open`, field: 'fd' };
    case 'ENODEV':
      return { why: 'the dma-buf is taken back: its device is closed, asleep, or does not decode memory', field: 'fd' };
    case 'EOPNOTSUPP':
      return { why: 'iommufd maps dma-bufs of vfio-pci with one range, and no others', field: 'fd' };
    case 'EINVAL':
      if (offset + wanted > length)
        return { why: `the file has ${length} bytes, and ${offset} + ${wanted} ends behind them`, field: 'length' };
      return null;
    default:
      return null;
  }
}
