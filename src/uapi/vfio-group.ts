/** linux/vfio.h: what a group (`/dev/vfio/<number>`) answers. */
import { u32 } from './field.ts';
import { _IO } from './ioctl.ts';
import { struct } from './struct.ts';
import { VFIO_BASE, VFIO_TYPE } from './vfio-container.ts';

export const vfio_group_status = struct('vfio_group_status', {
  argsz: u32,
  flags: u32,
});

export const VFIO_GROUP_FLAGS_VIABLE = 1 << 0;
export const VFIO_GROUP_FLAGS_CONTAINER_SET = 1 << 1;

export const VFIO_GROUP_GET_STATUS = _IO(VFIO_TYPE, VFIO_BASE + 3);
/** Pointer to an s32: the container's file descriptor. */
export const VFIO_GROUP_SET_CONTAINER = _IO(VFIO_TYPE, VFIO_BASE + 4);
export const VFIO_GROUP_UNSET_CONTAINER = _IO(VFIO_TYPE, VFIO_BASE + 5);
/** Pointer to the device's name, ending in NUL; answers its file descriptor. */
export const VFIO_GROUP_GET_DEVICE_FD = _IO(VFIO_TYPE, VFIO_BASE + 6);
