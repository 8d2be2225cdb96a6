/** A region of a device: a BAR, the ROM, configuration space, or what a vendor's driver adds. */
import { fromU64, hex } from '../ports/address.ts';
import type { Kernel } from '../ports/kernel.ts';
import {
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_REGION_INFO_CAP_MSIX_MAPPABLE,
  VFIO_REGION_INFO_CAP_SPARSE_MMAP,
  VFIO_REGION_INFO_CAP_TYPE,
  VFIO_REGION_INFO_FLAG_CAPS,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfio_region_info,
  vfio_region_info_cap_sparse_mmap,
  vfio_region_info_cap_type,
} from '../uapi/vfio-device.ts';
import { fitting, whole } from './argument.ts';
import { check, VfioError } from './error.ts';
import { RegionMapping } from './region-mapping.ts';
import { askInfo, capabilityChain } from './request.ts';
import { Resource } from './resource.ts';

/** A part of a region that can be mapped; bytes, relative to the region. */
export interface MappableArea {
  readonly offset: number;
  readonly size: number;
}

export interface RegionInfo {
  readonly index: number;
  /** Bytes; 0 when the device has no such region. */
  readonly size: number;
  /** Where the region starts in the device's file. */
  readonly offset: number;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly mappable: boolean;
  /** Only these parts can be mapped; null: all of it. */
  readonly sparse: readonly MappableArea[] | null;
  /** The page with the MSI-X table can be mapped too. */
  readonly msixMappable: boolean;
  /** Of a device-specific region. */
  readonly type: { readonly type: number; readonly subtype: number } | null;
}

/**
 * Reads and writes go through the device's file: they work for every region, also where nothing can be mapped.
 *
 * @example
 * const bar = device.bar(0);
 * bar.write32(0x10, 1);
 * const status = bar.read32(0x14);
 */
export class Region extends Resource {
  readonly info: RegionInfo;
  readonly #kernel: Kernel;
  readonly #fd: number;
  readonly #name: string;
  readonly #scratch = new DataView(new ArrayBuffer(8));

  /** Made by {@link Device.region}. */
  constructor(kernel: Kernel, fd: number, info: RegionInfo, name: string) {
    super();
    this.info = info;
    this.#kernel = kernel;
    this.#fd = fd;
    this.#name = name;
  }

  get label(): string {
    return `region ${this.info.index} of ${this.#name}`;
  }

  get size(): number {
    return this.info.size;
  }

  /** @throws VfioError, as all accesses: EIO while memory decoding is off, EINVAL outside of the region */
  read8(offset: number): number {
    return this.#load(offset, 1).getUint8(0);
  }

  read16(offset: number): number {
    return this.#load(offset, 2).getUint16(0, true);
  }

  read32(offset: number): number {
    return this.#load(offset, 4).getUint32(0, true);
  }

  read64(offset: number): bigint {
    return this.#load(offset, 8).getBigUint64(0, true);
  }

  write8(offset: number, value: number): void {
    this.#scratch.setUint8(0, value);
    this.#store(offset, 1);
  }

  write16(offset: number, value: number): void {
    this.#scratch.setUint16(0, value, true);
    this.#store(offset, 2);
  }

  write32(offset: number, value: number): void {
    this.#scratch.setUint32(0, value, true);
    this.#store(offset, 4);
  }

  write64(offset: number, value: bigint): void {
    this.#scratch.setBigUint64(0, value, true);
    this.#store(offset, 8);
  }

  /** Reads `length` bytes in one request. @throws VfioError */
  read(offset: number, length: number): Uint8Array {
    this.#refuseOutside('pread', offset, whole(length, 'pread', 'length'));
    const bytes = new Uint8Array(length);
    this.#transfer('pread', offset, bytes);
    return bytes;
  }

  /** @throws VfioError */
  write(offset: number, bytes: Uint8Array): void {
    this.#transfer('pwrite', offset, bytes);
  }

  /**
   * Maps [offset, offset + length) into this process; left out: from `offset` to the end.
   * @throws VfioError EINVAL for what cannot be mapped
   */
  map(offset = 0, length = this.size - offset): RegionMapping {
    this.assertOpen('mmap');
    this.#refuseUnmappable(offset, length);
    const mapping = this.#kernel.mmap(this.#fd, this.info.offset + offset, length, this.info.writable ? 'rw' : 'r');
    if (typeof mapping === 'number') {
      check(this.#kernel, mapping, 'mmap', () => ({ why: `${this.label} cannot be mapped at ${hex(offset)}` }));
      throw new TypeError('Kernel.mmap answered a number that is no error');
    }
    return this.adopt(new RegionMapping(mapping, this.label));
  }

  protected override release(): void {}

  #load(offset: number, size: number): DataView {
    this.#transfer('pread', offset, new Uint8Array(this.#scratch.buffer, 0, size));
    return this.#scratch;
  }

  #store(offset: number, size: number): void {
    this.#transfer('pwrite', offset, new Uint8Array(this.#scratch.buffer, 0, size));
  }

  #transfer(request: 'pread' | 'pwrite', offset: number, bytes: Uint8Array): void {
    this.assertOpen(request);
    this.#refuseOutside(request, offset, bytes.length);
    const done = check(
      this.#kernel,
      this.#kernel[request](this.#fd, bytes, this.info.offset + offset),
      request,
      (code) =>
        code === 'EIO' ? { why: `${this.label} does not answer: memory decoding is off, or the device sleeps` } : null,
    );
    if (done === bytes.length) return;
    throw new VfioError({
      code: 'EIO',
      request,
      why: `${done} of ${bytes.length} bytes at ${hex(offset)} of ${this.label}`,
    });
  }

  #refuseOutside(request: string, offset: number, length: number): void {
    if (Number.isInteger(offset) && offset >= 0 && offset + length <= this.size) return;
    const why = `${String(offset)} + ${length} is outside of ${this.label}, ${hex(this.size, 1)} bytes`;
    throw new VfioError({ code: 'EINVAL', request, why, field: 'offset' });
  }

  #refuseUnmappable(offset: number, length: number): void {
    const refuse = (why: string, field: string): never => {
      throw new VfioError({ code: 'EINVAL', request: 'mmap', why, field });
    };
    const page = this.#kernel.pageSize;
    if (!this.info.mappable) refuse(`${this.label} cannot be mapped; use read32 and write32`, 'index');
    if (offset % page !== 0) refuse(`${hex(offset)} is not a multiple of the page, ${hex(page, 1)}`, 'offset');
    if (length <= 0 || offset + length > this.size)
      refuse(`${hex(offset)} + ${hex(length, 1)} leaves ${this.label}`, 'length');
    const areas = this.info.sparse;
    if (areas?.every((area) => offset < area.offset || offset + length > area.offset + area.size)) {
      const list = areas.map((area) => `${hex(area.offset)} + ${hex(area.size, 1)}`).join(', ') || 'nothing';
      refuse(`${hex(offset)} + ${hex(length, 1)} is not inside a mappable part of ${this.label}: ${list}`, 'offset');
    }
  }
}

/** VFIO_DEVICE_GET_REGION_INFO with its capabilities. @throws VfioError EINVAL for an index that the device does not have */
export function queryRegion(kernel: Kernel, fd: number, index: number): RegionInfo {
  const request = 'VFIO_DEVICE_GET_REGION_INFO';
  const fill = (bytes: Uint8Array): void => fitting(request, () => vfio_region_info.patch(bytes, { index }));
  const answer = askInfo(kernel, fd, VFIO_DEVICE_GET_REGION_INFO, request, vfio_region_info, fill, () => ({
    why: `the device has no region ${index}`,
    field: 'index',
  }));
  const { flags, cap_offset, size, offset } = vfio_region_info.read(answer);
  const chain = capabilityChain(answer, (flags & VFIO_REGION_INFO_FLAG_CAPS) === 0 ? 0 : cap_offset, request);
  const find = (id: number): Uint8Array | undefined => chain.find((capability) => capability.id === id)?.bytes;
  const type = find(VFIO_REGION_INFO_CAP_TYPE);
  const sparse = find(VFIO_REGION_INFO_CAP_SPARSE_MMAP);
  return {
    index,
    size: exact(size, 'size'),
    offset: exact(offset, 'offset'),
    readable: (flags & VFIO_REGION_INFO_FLAG_READ) !== 0,
    writable: (flags & VFIO_REGION_INFO_FLAG_WRITE) !== 0,
    mappable: (flags & VFIO_REGION_INFO_FLAG_MMAP) !== 0,
    sparse: sparse === undefined ? null : sparseAreas(sparse),
    msixMappable: find(VFIO_REGION_INFO_CAP_MSIX_MAPPABLE) !== undefined,
    type: type === undefined ? null : typeOf(type),
  };
}

function sparseAreas(bytes: Uint8Array): MappableArea[] {
  const { nr_areas, areas } = vfio_region_info_cap_sparse_mmap.read(bytes);
  return areas
    .slice(0, nr_areas)
    .map((area) => ({ offset: exact(area.offset, 'offset'), size: exact(area.size, 'size') }));
}

function typeOf(bytes: Uint8Array): { type: number; subtype: number } {
  const { type, subtype } = vfio_region_info_cap_type.read(bytes);
  return { type, subtype };
}

function exact(value: bigint, field: string): number {
  const number = fromU64(value);
  if (number !== null) return number;
  const why = `${field} ${hex(value)} is beyond 2^53`;
  throw new VfioError({ code: 'EOVERFLOW', request: 'VFIO_DEVICE_GET_REGION_INFO', why, field });
}
