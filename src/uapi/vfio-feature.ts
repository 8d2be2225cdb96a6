/** linux/vfio.h: VFIO_DEVICE_FEATURE and the features' payloads. Migration's are in vfio-migration.ts. */
import { s32, tail, u8, u32, u64 } from './field.ts';
import { _IO } from './ioctl.ts';
import { nested, struct } from './struct.ts';
import { VFIO_BASE, VFIO_TYPE } from './vfio-container.ts';

export const vfio_device_feature = struct('vfio_device_feature', {
  argsz: u32,
  flags: u32,
  data: tail(u8),
});

export const VFIO_DEVICE_FEATURE_MASK = 0xffff;
export const VFIO_DEVICE_FEATURE_GET = 1 << 16;
export const VFIO_DEVICE_FEATURE_SET = 1 << 17;
export const VFIO_DEVICE_FEATURE_PROBE = 1 << 18;

export const VFIO_DEVICE_FEATURE = _IO(VFIO_TYPE, VFIO_BASE + 17);

/** Payload: 16 bytes of a UUID. */
export const VFIO_DEVICE_FEATURE_PCI_VF_TOKEN = 0;
export const VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY = 3;
export const VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP = 4;
export const VFIO_DEVICE_FEATURE_LOW_POWER_EXIT = 5;
export const VFIO_DEVICE_FEATURE_BUS_MASTER = 10;
export const VFIO_DEVICE_FEATURE_DMA_BUF = 11;

export const vfio_device_low_power_entry_with_wakeup = struct('vfio_device_low_power_entry_with_wakeup', {
  wakeup_eventfd: s32,
  reserved: u32,
});

export const vfio_device_feature_bus_master = struct('vfio_device_feature_bus_master', {
  op: u32,
});

export const VFIO_DEVICE_FEATURE_CLEAR_MASTER = 0;
export const VFIO_DEVICE_FEATURE_SET_MASTER = 1;

export const vfio_region_dma_range = struct('vfio_region_dma_range', {
  offset: u64,
  length: u64,
});

export const vfio_device_feature_dma_buf = struct('vfio_device_feature_dma_buf', {
  region_index: u32,
  open_flags: u32,
  flags: u32,
  nr_ranges: u32,
  dma_ranges: tail(nested(vfio_region_dma_range)),
});
