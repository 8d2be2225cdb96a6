/**
 * Names of requests. The same number means different things on different files (0x3b70 is IOMMU_GET_INFO on a container
 * and GET_PCI_HOT_RESET_INFO on a device), so the kind of the file comes first.
 */
import * as iommufd from './iommufd.ts';
import * as kvm from './kvm.ts';
import * as vfio from './vfio.ts';

export type FileKind = 'container' | 'group' | 'device' | 'migration' | 'iommufd' | 'kvm' | 'vm' | 'kvm-device';

function requests<M extends object>(module: M, names: readonly (keyof M & string)[]): [number, string][] {
  return names.map((name) => [module[name] as number, name]);
}

const ON_CONTAINER = requests(vfio, [
  'VFIO_GET_API_VERSION',
  'VFIO_CHECK_EXTENSION',
  'VFIO_SET_IOMMU',
  'VFIO_IOMMU_GET_INFO',
  'VFIO_IOMMU_MAP_DMA',
  'VFIO_IOMMU_UNMAP_DMA',
  'VFIO_IOMMU_ENABLE',
  'VFIO_IOMMU_DISABLE',
  'VFIO_IOMMU_DIRTY_PAGES',
]);

const NAMES: Record<FileKind, ReadonlyMap<number, string>> = {
  container: new Map(ON_CONTAINER),
  group: new Map(
    requests(vfio, [
      'VFIO_GROUP_GET_STATUS',
      'VFIO_GROUP_SET_CONTAINER',
      'VFIO_GROUP_UNSET_CONTAINER',
      'VFIO_GROUP_GET_DEVICE_FD',
    ]),
  ),
  device: new Map(
    requests(vfio, [
      'VFIO_DEVICE_GET_INFO',
      'VFIO_DEVICE_GET_REGION_INFO',
      'VFIO_DEVICE_GET_IRQ_INFO',
      'VFIO_DEVICE_SET_IRQS',
      'VFIO_DEVICE_RESET',
      'VFIO_DEVICE_GET_PCI_HOT_RESET_INFO',
      'VFIO_DEVICE_PCI_HOT_RESET',
      'VFIO_DEVICE_QUERY_GFX_PLANE',
      'VFIO_DEVICE_GET_GFX_DMABUF',
      'VFIO_DEVICE_IOEVENTFD',
      'VFIO_DEVICE_FEATURE',
      'VFIO_DEVICE_BIND_IOMMUFD',
      'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
      'VFIO_DEVICE_DETACH_IOMMUFD_PT',
    ]),
  ),
  migration: new Map(requests(vfio, ['VFIO_MIG_GET_PRECOPY_INFO'])),
  // iommufd answers a container's requests too (its VFIO compatibility).
  iommufd: new Map([
    ...ON_CONTAINER,
    ...requests(iommufd, [
      'IOMMU_DESTROY',
      'IOMMU_IOAS_ALLOC',
      'IOMMU_IOAS_ALLOW_IOVAS',
      'IOMMU_IOAS_COPY',
      'IOMMU_IOAS_IOVA_RANGES',
      'IOMMU_IOAS_MAP',
      'IOMMU_IOAS_UNMAP',
      'IOMMU_OPTION',
      'IOMMU_VFIO_IOAS',
      'IOMMU_HWPT_ALLOC',
      'IOMMU_GET_HW_INFO',
      'IOMMU_HWPT_SET_DIRTY_TRACKING',
      'IOMMU_HWPT_GET_DIRTY_BITMAP',
      'IOMMU_HWPT_INVALIDATE',
      'IOMMU_FAULT_QUEUE_ALLOC',
      'IOMMU_IOAS_MAP_FILE',
      'IOMMU_VIOMMU_ALLOC',
      'IOMMU_VDEVICE_ALLOC',
      'IOMMU_IOAS_CHANGE_PROCESS',
      'IOMMU_VEVENTQ_ALLOC',
      'IOMMU_HW_QUEUE_ALLOC',
    ]),
  ]),
  kvm: new Map(
    requests(kvm, ['KVM_GET_API_VERSION', 'KVM_CREATE_VM', 'KVM_CHECK_EXTENSION', 'KVM_GET_VCPU_MMAP_SIZE']),
  ),
  vm: new Map(
    requests(kvm, [
      'KVM_CHECK_EXTENSION',
      'KVM_CREATE_VCPU',
      'KVM_SET_USER_MEMORY_REGION',
      'KVM_CREATE_IRQCHIP',
      'KVM_IRQ_LINE',
      'KVM_SET_GSI_ROUTING',
      'KVM_IRQFD',
      'KVM_IOEVENTFD',
      'KVM_SIGNAL_MSI',
      'KVM_CREATE_DEVICE',
      'KVM_HAS_DEVICE_ATTR',
    ]),
  ),
  'kvm-device': new Map(requests(kvm, ['KVM_SET_DEVICE_ATTR', 'KVM_GET_DEVICE_ATTR', 'KVM_HAS_DEVICE_ATTR'])),
};

/** `VFIO_IOMMU_MAP_DMA` for 0x3b71 on a container; `ioctl 0x3bff` for a number that the kind of file does not know. */
export function requestName(kind: FileKind, request: number): string {
  return NAMES[kind].get(request) ?? `ioctl 0x${(request >>> 0).toString(16)}`;
}
