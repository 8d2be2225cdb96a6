/** The host of scripted-host.ts with /dev/iommu and the device's own file, answering as Linux 7.2 does. */
import { hexBytes, NAME, scriptedHost } from './scripted-host.ts';
import type { ScriptedKernel } from './scripted-kernel.ts';

export const DEVICE_FILE = '/dev/vfio/devices/vfio0';

/** u32 or u64 at an offset of a struct. */
export const put32 = (bytes: Uint8Array, at: number, value: number): void =>
  new DataView(bytes.buffer).setUint32(at, value, true);
export const put64 = (bytes: Uint8Array, at: number, value: bigint): void =>
  new DataView(bytes.buffer).setBigUint64(at, value, true);
export const get64 = (bytes: Uint8Array, at: number): bigint => new DataView(bytes.buffer).getBigUint64(at, true);

/** Ids as the kernel gives them, the lowest free; the ranges of an SMMU's 48 bits around the window; IOVAs from 0x1000. */
export function scriptedIommufd(): ScriptedKernel {
  const kernel = scriptedHost();
  kernel.file('/dev/iommu', 'iommufd').file(DEVICE_FILE, 'device');
  kernel.lists.set(`/sys/bus/pci/devices/${NAME}/vfio-dev`, ['vfio0']);
  let id = 0;
  const made =
    (at: number) =>
    (bytes: Uint8Array): number => {
      id += 1;
      put32(bytes, at, id);
      return 0;
    };
  return kernel
    .on('IOMMU_IOAS_ALLOC', made(8))
    .on('IOMMU_HWPT_ALLOC', made(16))
    .on('VFIO_DEVICE_BIND_IOMMUFD', made(12))
    .on('VFIO_DEVICE_ATTACH_IOMMUFD_PT', made(8))
    .on('VFIO_DEVICE_DETACH_IOMMUFD_PT', () => 0)
    .on('IOMMU_DESTROY', () => 0)
    .on('IOMMU_IOAS_IOVA_RANGES', (bytes) => {
      kernel
        .memory(get64(bytes, 16))
        .set(hexBytes('0000000000000000 ffffff0700000000 0000100800000000 ffffffffffff0000'));
      put32(bytes, 8, 2);
      put64(bytes, 24, 0x1000n);
      return 0;
    })
    .on('IOMMU_IOAS_MAP', (bytes) => {
      if ((bytes[4]! & 1) === 0) put64(bytes, 32, 0x1000n);
      return 0;
    })
    .on('IOMMU_IOAS_COPY', () => 0)
    .on('IOMMU_IOAS_UNMAP', () => 0);
}
