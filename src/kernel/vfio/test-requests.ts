/** The requests of a VFIO program as short calls, for the tests of the VFIO core. Results are the system call's. */
import type { UserBuffer } from '../../ports/kernel.ts';
import * as uapi from '../../uapi/vfio.ts';
import type { SimKernelClient } from '../client.ts';
import { type TestHostOptions, testHost } from './test-host.ts';

export const READ = uapi.VFIO_DMA_MAP_FLAG_READ;
export const WRITE = uapi.VFIO_DMA_MAP_FLAG_WRITE;
export const VADDR = uapi.VFIO_DMA_MAP_FLAG_VADDR;

type U64 = number | bigint;

export const setContainer = (client: SimKernelClient, group: number, container: number): number =>
  client.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, new Uint8Array(Int32Array.of(container).buffer));

export const getDevice = (client: SimKernelClient, group: number, name: string): number =>
  client.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, new TextEncoder().encode(`${name}\0`));

export function groupStatus(client: SimKernelClient, group: number): number {
  const bytes = uapi.vfio_group_status.bytes({ argsz: 8 });
  const result = client.ioctl(group, uapi.VFIO_GROUP_GET_STATUS, bytes);
  return result < 0 ? result : uapi.vfio_group_status.read(bytes).flags;
}

export function mapDma(
  client: SimKernelClient,
  fd: number,
  iova: U64,
  vaddr: U64,
  size: U64,
  flags = READ | WRITE,
): number {
  const layout = uapi.vfio_iommu_type1_dma_map;
  return client.ioctl(fd, uapi.VFIO_IOMMU_MAP_DMA, layout.bytes({ argsz: layout.size, flags, vaddr, iova, size }));
}

/** Bytes unmapped, or -errno. */
export function unmapDma(client: SimKernelClient, fd: number, iova: U64, size: U64, flags = 0): number {
  const layout = uapi.vfio_iommu_type1_dma_unmap;
  const bytes = layout.bytes({ argsz: layout.size, flags, iova, size });
  const result = client.ioctl(fd, uapi.VFIO_IOMMU_UNMAP_DMA, bytes);
  return result < 0 ? result : Number(layout.read(bytes).size);
}

/** Ranges of the IOVA_RANGE capability. */
export function iovaRanges(client: SimKernelClient, fd: number): [number, number][] {
  const layout = uapi.vfio_iommu_type1_info;
  const bytes = new Uint8Array(4096);
  layout.patch(bytes, { argsz: bytes.length });
  if (client.ioctl(fd, uapi.VFIO_IOMMU_GET_INFO, bytes) < 0) throw new Error('GET_INFO was refused');
  for (let at = layout.read(bytes).cap_offset; at !== 0; at = uapi.vfio_info_cap_header.read(bytes, at).next) {
    if (uapi.vfio_info_cap_header.read(bytes, at).id !== uapi.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) continue;
    const count = uapi.vfio_iommu_type1_info_cap_iova_range.get(bytes, 'nr_iovas', at);
    return Array.from({ length: count }, (_, i) => {
      const range = uapi.vfio_iova_range.read(bytes, at + 16 + i * 16);
      return [Number(range.start), Number(range.end)];
    });
  }
  return [];
}

export function buffer(client: SimKernelClient, length: number): UserBuffer {
  const made = client.allocate(length);
  if (typeof made === 'number') throw new Error(`no memory: ${made}`);
  return made;
}

/** A host whose groups are all in one type1 container, with a buffer of 1 MiB. */
export function attachedHost(options: TestHostOptions & { readonly v1?: boolean } = {}) {
  const host = testHost(options);
  const { client } = host;
  const container = client.open('/dev/vfio/vfio');
  const groupFds = host.groups.map((group) => client.open(`/dev/vfio/${group.id}`));
  for (const fd of groupFds) setContainer(client, fd, container);
  client.ioctl(container, uapi.VFIO_SET_IOMMU, options.v1 ? uapi.VFIO_TYPE1_IOMMU : uapi.VFIO_TYPE1v2_IOMMU);
  const memory = buffer(client, 0x10_0000);
  const type1 = host.vfio.groups[0].container!.type1!;
  return { ...host, container, groupFds, memory, type1 };
}
