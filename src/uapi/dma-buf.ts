/** linux/dma-buf.h: what user space may ask of a dma-buf's file. */
import { s32, u32, u64 } from './field.ts';
import { _IOW, _IOWR } from './ioctl.ts';
import { struct } from './struct.ts';

export const dma_buf_sync = struct('dma_buf_sync', {
  flags: u64,
});

export const DMA_BUF_SYNC_READ = 1 << 0;
export const DMA_BUF_SYNC_WRITE = 2 << 0;
export const DMA_BUF_SYNC_RW = DMA_BUF_SYNC_READ | DMA_BUF_SYNC_WRITE;
export const DMA_BUF_SYNC_START = 0 << 2;
export const DMA_BUF_SYNC_END = 1 << 2;
export const DMA_BUF_SYNC_VALID_FLAGS_MASK = DMA_BUF_SYNC_RW | DMA_BUF_SYNC_END;

/** Bytes of a name, with its end. */
export const DMA_BUF_NAME_LEN = 32;

export const dma_buf_export_sync_file = struct('dma_buf_export_sync_file', {
  flags: u32,
  fd: s32,
});

export const dma_buf_import_sync_file = struct('dma_buf_import_sync_file', {
  flags: u32,
  fd: s32,
});

export const DMA_BUF_BASE = 0x62;
export const DMA_BUF_IOCTL_SYNC = _IOW(DMA_BUF_BASE, 0, dma_buf_sync.size);
/** The argument is a string. Two numbers, for 32-bit and 64-bit callers of old, of one meaning. */
export const DMA_BUF_SET_NAME_A = _IOW(DMA_BUF_BASE, 1, 4);
export const DMA_BUF_SET_NAME_B = _IOW(DMA_BUF_BASE, 1, 8);
export const DMA_BUF_IOCTL_EXPORT_SYNC_FILE = _IOWR(DMA_BUF_BASE, 2, dma_buf_export_sync_file.size);
export const DMA_BUF_IOCTL_IMPORT_SYNC_FILE = _IOW(DMA_BUF_BASE, 3, dma_buf_import_sync_file.size);
