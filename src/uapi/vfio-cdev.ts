/** linux/vfio.h: a device's character device (`/dev/vfio/devices/vfioN`) and iommufd. */
import { s32, u32, u64 } from './field.ts';
import { _IO } from './ioctl.ts';
import { struct } from './struct.ts';
import { VFIO_BASE, VFIO_TYPE } from './vfio-container.ts';

export const vfio_device_bind_iommufd = struct('vfio_device_bind_iommufd', {
  argsz: u32,
  flags: u32,
  iommufd: s32,
  out_devid: u32,
  token_uuid_ptr: u64,
});

export const VFIO_DEVICE_BIND_FLAG_TOKEN = 1 << 0;

export const vfio_device_attach_iommufd_pt = struct('vfio_device_attach_iommufd_pt', {
  argsz: u32,
  flags: u32,
  pt_id: u32,
  pasid: u32,
});

export const VFIO_DEVICE_ATTACH_PASID = 1 << 0;

export const vfio_device_detach_iommufd_pt = struct('vfio_device_detach_iommufd_pt', {
  argsz: u32,
  flags: u32,
  pasid: u32,
});

export const VFIO_DEVICE_DETACH_PASID = 1 << 0;

export const VFIO_DEVICE_BIND_IOMMUFD = _IO(VFIO_TYPE, VFIO_BASE + 18);
export const VFIO_DEVICE_ATTACH_IOMMUFD_PT = _IO(VFIO_TYPE, VFIO_BASE + 19);
export const VFIO_DEVICE_DETACH_IOMMUFD_PT = _IO(VFIO_TYPE, VFIO_BASE + 20);
