/** Requests to /dev/iommu and to VFIO's character devices as short calls, for the tests of this room. Results are the system call's. */
import type { UserBuffer } from '../../ports/kernel.ts';
import { errnoName } from '../../uapi/errno.ts';
import * as uapi from '../../uapi/iommufd.ts';
import type { Fields, Struct, StructInit, StructValue } from '../../uapi/struct.ts';
import * as vfio from '../../uapi/vfio.ts';
import type { SimKernelClient } from '../client.ts';
import { type TestHostOptions, testHost } from '../vfio/test-host.ts';
import { IommufdFile } from './file.ts';
import { createIommufd } from './index.ts';

export const FIXED = uapi.IOMMU_IOAS_MAP_FIXED_IOVA;
export const READ = uapi.IOMMU_IOAS_MAP_READABLE;
export const WRITE = uapi.IOMMU_IOAS_MAP_WRITEABLE;

type U64 = number | bigint;

/** `ENOENT` for -2, a number for what is no error. */
export const named = (result: number): number | string => (result < 0 ? errnoName(result) : result);

/** An open /dev/iommu of one process. */
export class Iommufd {
  readonly client: SimKernelClient;
  readonly fd: number;

  constructor(client: SimKernelClient) {
    this.client = client;
    this.fd = client.open('/dev/iommu');
    if (this.fd < 0) throw new Error(`/dev/iommu: ${errnoName(this.fd)}`);
  }

  get ctx() {
    const file = this.client.process.file(this.fd);
    if (!(file instanceof IommufdFile)) throw new Error('the iommufd is closed');
    return file.ctx;
  }

  /** The struct with its own size filled in; the result by name, and the struct as it came back. */
  call<F extends Fields>(request: number, layout: Struct<F>, fields: StructInit<F>) {
    const bytes = layout.bytes(fields);
    new DataView(bytes.buffer).setUint32(0, layout.size, true);
    const result = this.client.ioctl(this.fd, request, bytes);
    return { result: named(result), ...(layout.read(bytes) as Omit<StructValue<F>, 'result'>) };
  }

  destroy(id: number) {
    return this.call(uapi.IOMMU_DESTROY, uapi.iommu_destroy, { id }).result;
  }

  ioas(): number {
    const { result, out_ioas_id } = this.call(uapi.IOMMU_IOAS_ALLOC, uapi.iommu_ioas_alloc, {});
    if (result !== 0) throw new Error(`IOAS_ALLOC: ${result}`);
    return out_ioas_id;
  }

  /** At `iova`; the errno's name, or 0. */
  mapAt(ioas_id: number, iova: U64, user_va: U64, length: U64, flags = READ | WRITE) {
    const fields = { ioas_id, flags: flags | FIXED, user_va, length, iova };
    return this.call(uapi.IOMMU_IOAS_MAP, uapi.iommu_ioas_map, fields).result;
  }

  /** Where the kernel put it, or the errno's name. */
  map(ioas_id: number, user_va: U64, length: U64, flags = READ | WRITE): bigint | string | number {
    const answer = this.call(uapi.IOMMU_IOAS_MAP, uapi.iommu_ioas_map, { ioas_id, flags, user_va, length });
    return answer.result === 0 ? answer.iova : answer.result;
  }

  /** From `src_iova` of one IOAS to where the kernel puts it in another, or to `at`. */
  copy(
    src_ioas_id: number,
    src_iova: U64,
    length: U64,
    dst_ioas_id: number,
    at: U64 | null = null,
    access = READ | WRITE,
  ) {
    const flags = access | (at === null ? 0 : FIXED);
    const fields = { flags, src_ioas_id, src_iova, length, dst_ioas_id, dst_iova: at ?? 0 };
    const answer = this.call(uapi.IOMMU_IOAS_COPY, uapi.iommu_ioas_copy, fields);
    return answer.result === 0 ? answer.dst_iova : answer.result;
  }

  /** The bytes that were unmapped, or the errno's name. */
  unmap(ioas_id: number, iova: U64, length: U64): bigint | string | number {
    const answer = this.call(uapi.IOMMU_IOAS_UNMAP, uapi.iommu_ioas_unmap, { ioas_id, iova, length });
    return answer.result === 0 ? answer.length : answer.result;
  }

  allow(ioas_id: number, ranges: readonly (readonly [U64, U64])[]) {
    const buffer = allocate(this.client, Math.max(1, ranges.length) * 16);
    for (const [i, [start, last]] of ranges.entries()) {
      uapi.iommu_iova_range.write(buffer.bytes, { start, last }, i * 16);
    }
    const fields = { ioas_id, num_iovas: ranges.length, allowed_iovas: buffer.address };
    const { result } = this.call(uapi.IOMMU_IOAS_ALLOW_IOVAS, uapi.iommu_ioas_allow_iovas, fields);
    buffer.free();
    return result;
  }

  ranges(ioas_id: number, room = 16) {
    const buffer = allocate(this.client, room * 16);
    const fields = { ioas_id, num_iovas: room, allowed_iovas: buffer.address };
    const answer = this.call(uapi.IOMMU_IOAS_IOVA_RANGES, uapi.iommu_ioas_iova_ranges, fields);
    const list = Array.from({ length: Math.min(room, answer.num_iovas) }, (_, i) => {
      const { start, last } = uapi.iommu_iova_range.read(buffer.bytes, i * 16);
      return [start, last];
    });
    buffer.free();
    return { result: answer.result, total: answer.num_iovas, alignment: answer.out_iova_alignment, list };
  }

  /** The id of a new page table, or the errno's name. */
  hwpt(dev_id: number, pt_id: number, flags = 0) {
    const answer = this.call(uapi.IOMMU_HWPT_ALLOC, uapi.iommu_hwpt_alloc, { dev_id, pt_id, flags });
    return answer.result === 0 ? answer.out_hwpt_id : answer.result;
  }

  /** The id of the bound device, or the errno's name. */
  bind(device: number, fields: { iommufd?: number; flags?: number; argsz?: number } = {}) {
    const layout = vfio.vfio_device_bind_iommufd;
    const bytes = layout.bytes({ argsz: layout.size, iommufd: this.fd, ...fields });
    const result = this.client.ioctl(device, vfio.VFIO_DEVICE_BIND_IOMMUFD, bytes);
    return result < 0 ? errnoName(result) : layout.read(bytes).out_devid;
  }

  /** The id of the page table that the device now has, or the errno's name. */
  attach(device: number, pt_id: number, fields: { flags?: number; argsz?: number; pasid?: number } = {}) {
    const layout = vfio.vfio_device_attach_iommufd_pt;
    const bytes = layout.bytes({ argsz: layout.endOf('pt_id'), pt_id, ...fields });
    const result = this.client.ioctl(device, vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT, bytes);
    return result < 0 ? errnoName(result) : layout.read(bytes).pt_id;
  }

  detach(device: number) {
    const layout = vfio.vfio_device_detach_iommufd_pt;
    const bytes = layout.bytes({ argsz: layout.endOf('flags') });
    return named(this.client.ioctl(device, vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT, bytes));
  }

  /** As `attach`, of one PASID; the largest struct unless `argsz` says less. */
  attachPasid(device: number, pasid: number, pt_id: number, argsz: number = vfio.vfio_device_attach_iommufd_pt.size) {
    return this.attach(device, pt_id, { flags: vfio.VFIO_DEVICE_ATTACH_PASID, pasid, argsz });
  }

  detachPasid(device: number, pasid: number) {
    const layout = vfio.vfio_device_detach_iommufd_pt;
    const bytes = layout.bytes({ argsz: layout.size, flags: vfio.VFIO_DEVICE_DETACH_PASID, pasid });
    return named(this.client.ioctl(device, vfio.VFIO_DEVICE_DETACH_IOMMUFD_PT, bytes));
  }

  close(): void {
    this.client.close(this.fd);
  }
}

export function allocate(client: SimKernelClient, length: number): UserBuffer {
  const made = client.allocate(length);
  if (typeof made === 'number') throw new Error(`no memory: ${errnoName(made)}`);
  return made;
}

/** `groups` groups of one device each, /dev/iommu, and 1 MiB of memory. The devices are vfio0, vfio1, … */
export function iommufdHost(options: TestHostOptions = {}) {
  const host = testHost(options);
  createIommufd(host.kernel, host.vfio);
  const iommufd = new Iommufd(host.client);
  const memory = allocate(host.client, 0x10_0000);
  const devices = host.groups.map((_, i) => host.client.open(`/dev/vfio/devices/vfio${i}`));
  return { ...host, iommufd, memory, devices };
}

/** An IOAS, and memory to map. */
export function ioasHost(options: TestHostOptions = {}) {
  const host = iommufdHost(options);
  const id = host.iommufd.ioas();
  return { ...host, id, va: host.memory.address };
}

/** The same with device vfio0 bound as id 2 and attached: HWPT 3. */
export function attachedHost(options: TestHostOptions = {}) {
  const host = ioasHost(options);
  const ids = [host.iommufd.bind(host.devices[0]), host.iommufd.attach(host.devices[0], host.id)];
  if (ids[0] !== 2 || ids[1] !== 3) throw new Error(`bind and attach answered ${ids}`);
  return host;
}
