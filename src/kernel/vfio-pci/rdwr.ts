/** read, write and mmap of a device's regions (vfio_pci_rdwr.c, vfio_pci_core_mmap). */
import {
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_NUM_REGIONS,
  VFIO_PCI_ROM_REGION_INDEX,
  VFIO_PCI_VGA_REGION_INDEX,
} from '../../uapi/vfio.ts';
import type { FileMapping } from '../files.ts';
import type { Process } from '../process.ts';
import { BarMapping } from './bar-mapping.ts';
import type { VfioPciConfig } from './config.ts';
import { regionIndex, regionPosition, romImageSize, withRom } from './regions.ts';
import type { VfioPciState } from './state.ts';

/** One region access of a process. */
interface Transfer {
  readonly process: Process;
  readonly address: number;
  readonly count: number;
  readonly isWrite: boolean;
}

/** What is filled with ones instead of being accessed. */
interface Window {
  readonly start: number;
  readonly end: number;
}

type ElementError = 'EFAULT' | 'EIO';

const NO_WINDOW: Window = { start: 0, end: 0 };
export class RegionAccess {
  private readonly state: VfioPciState;
  private readonly config: VfioPciConfig;

  constructor(state: VfioPciState, config: VfioPciConfig) {
    this.state = state;
    this.config = config;
  }

  /** vfio_pci_rw. Bytes done, or -errno. */
  access(process: Process, address: number, count: number, offset: number, isWrite: boolean): number {
    const { refusals } = this.state.context;
    if (count === 0) return 0;
    const index = regionIndex(offset);
    const pos = regionPosition(offset);
    if (index >= VFIO_PCI_NUM_REGIONS || offset < 0) {
      return refusals.refuse(
        'EINVAL',
        `offset >> 40 is ${index}, and regions end at ${VFIO_PCI_NUM_REGIONS - 1}`,
        'offset',
      );
    }
    if (index === VFIO_PCI_CONFIG_REGION_INDEX) return this.config.transfer(process, address, count, pos, isWrite);
    if (index === VFIO_PCI_VGA_REGION_INDEX)
      return refusals.refuse('EINVAL', 'the function has no VGA region', 'offset');
    if (index === VFIO_PCI_ROM_REGION_INDEX && isWrite)
      return refusals.refuse('EINVAL', 'the ROM cannot be written', 'offset');
    return this.bar({ process, address, count, isWrite }, index, pos);
  }

  /** vfio_pci_core_mmap; the system call layer has checked MAP_SHARED. */
  mmap(offset: number, length: number): FileMapping | number {
    const { refusals, pageSize } = this.state.context;
    const index = regionIndex(offset);
    if (offset < 0 || index >= VFIO_PCI_ROM_REGION_INDEX) {
      return refusals.refuse('EINVAL', `region ${index} cannot be mapped: only BARs 0 to 5 can`, 'offset');
    }
    const resource = this.state.resource(index);
    if (resource === null || this.state.mmapSupported[index] !== true) {
      return refusals.refuse('EINVAL', `region ${index} does not have VFIO_REGION_INFO_FLAG_MMAP`, 'offset');
    }
    const start = regionPosition(offset);
    const limit = Math.ceil(resource.size / pageSize) * pageSize;
    if (start + length > limit) {
      const why = `bytes [${start}, ${start + length}) of region ${index} end beyond its ${limit} mappable bytes`;
      return refusals.refuse('EINVAL', why, 'length');
    }
    return new BarMapping(this.state, resource.base + start, length);
  }

  /** vfio_pci_bar_rw. */
  private bar(transfer: Transfer, index: number, pos: number): number {
    const { state } = this;
    const { refusals } = state.context;
    const resource = state.resource(index);
    if (resource === null)
      return refusals.refuse('EINVAL', `region ${index} is not implemented by the function`, 'offset');
    if (pos >= resource.size) {
      return refusals.refuse(
        'EINVAL',
        `position ${pos} is beyond the ${resource.size} bytes of region ${index}`,
        'offset',
      );
    }
    const count = Math.min(transfer.count, resource.size - pos);
    const clipped = { ...transfer, count };
    if (index === VFIO_PCI_ROM_REGION_INDEX) return this.rom(clipped, resource.base, pos, resource.size);
    const msix =
      index === state.msixBar ? { start: state.msixOffset, end: state.msixOffset + state.msixSize } : NO_WINDOW;
    return this.elements(clipped, resource.base, pos, msix, resource.kind === 'memory', 8);
  }

  /** The image, and ones behind it. */
  private rom(transfer: Transfer, base: number, pos: number, size: number): number {
    const image = romImageSize(this.state);
    if (image === 0)
      return this.state.context.refusals.refuse('ENOMEM', 'the ROM holds no valid image to map', 'offset');
    return withRom(this.state, () => this.elements(transfer, base, pos, { start: image, end: size }, true, 4));
  }

  /** vfio_pci_core_do_io_rw: the largest naturally aligned elements up to `widest`; a refusal drops the count of what was done before it. */
  private elements(
    transfer: Transfer,
    base: number,
    pos: number,
    window: Window,
    memory: boolean,
    widest: 4 | 8,
  ): number {
    const { refusals } = this.state.context;
    for (let done = 0; done < transfer.count; ) {
      const left = transfer.count - done;
      const at = pos + done;
      const hidden = at >= window.start && at < window.end;
      const room = hidden
        ? Math.min(left, window.end - at)
        : at < window.start
          ? Math.min(left, window.start - at)
          : left;
      const width = hidden ? room : elementWidth(at, room, widest);
      const buffer = transfer.address + done;
      const error = hidden
        ? this.fill(transfer, buffer, room)
        : this.element(transfer, buffer, base + at, width, memory);
      if (error === 'EFAULT')
        return refusals.refuse('EFAULT', `the buffer at byte ${done} is not accessible`, 'buffer');
      if (error === 'EIO') {
        return refusals.refuse(
          'EIO',
          'memory decoding is off in the virtual COMMAND register, or the function is in D3hot',
          'offset',
        );
      }
      done += width;
    }
    return transfer.count;
  }

  /** The MSI-X table and what lies behind a ROM's image: ones, and nothing written. */
  private fill({ process, isWrite }: Transfer, address: number, count: number): ElementError | null {
    return isWrite || process.memory.copyOut(address, new Uint8Array(count).fill(0xff)) ? null : 'EFAULT';
  }

  /** A write looks at the buffer before the device, a read after it. */
  private element(
    { process, isWrite }: Transfer,
    address: number,
    pa: number,
    width: number,
    memory: boolean,
  ): ElementError | null {
    const bytes = new Uint8Array(width);
    const { bus } = this.state.context;
    const step = Math.min(width, 4);
    if (isWrite && !process.memory.copyIn(address, bytes)) return 'EFAULT';
    if (memory && !this.state.memoryEnabled) return 'EIO';
    for (let at = 0; at < width; at += step) {
      if (isWrite) bus.write(pa + at, step, gather(bytes, at, step));
      else scatter(bytes, at, step, bus.read(pa + at, step));
    }
    return isWrite || process.memory.copyOut(address, bytes) ? null : 'EFAULT';
  }
}

/** The widest element that starts at `at`, fits in `room`, and is naturally aligned. */
function elementWidth(at: number, room: number, widest: number): number {
  for (const width of [8, 4, 2]) {
    if (width <= widest && room >= width && at % width === 0) return width;
  }
  return 1;
}

function gather(bytes: Uint8Array, at: number, count: number): number {
  let value = 0;
  for (let i = count - 1; i >= 0; i -= 1) value = (value << 8) | bytes[at + i]!;
  return value >>> 0;
}

function scatter(bytes: Uint8Array, at: number, count: number, value: number): void {
  for (let i = 0; i < count; i += 1) bytes[at + i] = (value >>> (8 * i)) & 0xff;
}
