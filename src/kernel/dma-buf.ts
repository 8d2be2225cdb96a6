/** A dma-buf: memory that its driver, the exporter, lends to the drivers of other devices, as an open file (drivers/dma-buf/dma-buf.c). */
import { hex } from '../ports/address.ts';
import {
  DMA_BUF_IOCTL_EXPORT_SYNC_FILE,
  DMA_BUF_IOCTL_IMPORT_SYNC_FILE,
  DMA_BUF_IOCTL_SYNC,
  DMA_BUF_NAME_LEN,
  DMA_BUF_SET_NAME_A,
  DMA_BUF_SET_NAME_B,
  DMA_BUF_SYNC_RW,
  DMA_BUF_SYNC_VALID_FLAGS_MASK,
  dma_buf_sync,
} from '../uapi/dma-buf.ts';
import { O_ACCMODE, O_RDONLY, O_WRONLY } from '../uapi/fcntl.ts';
import { type File, type FileMapping, type FileStat, SEEK_END, SEEK_SET } from './files.ts';
import type { Process } from './process.ts';
import type { RefusalLog } from './refusal.ts';
import { copyFromUser, userPointer } from './user-copy.ts';

/** Physically contiguous bytes (struct phys_vec). */
export interface PhysVec {
  readonly pa: number;
  readonly length: number;
}

/** The driver behind a dma-buf (struct dma_buf_ops). */
export interface DmaBufExporter {
  /** An importer comes: 0 or -errno. */
  attach(): number;
  /** The one range of physical addresses that iommufd maps, or -errno. Absent: the driver has no such understanding with iommufd. */
  iommufdMap?(): PhysVec | number;
  /** The last reference on the file is gone. */
  release(): void;
}

/** Who uses a dma-buf (struct dma_buf_attach_ops). */
export interface DmaBufImporter {
  /** What was mapped of it must not be used from here on. */
  invalidateMappings(): void;
}

export interface DmaBufOptions {
  readonly exporter: DmaBufExporter;
  /** Bytes. */
  readonly size: number;
  /** As open(2) takes them; the access mode counts. */
  readonly openFlags: number;
}

const EPOLLIN = 1;
const EPOLLOUT = 4;
const OWNER_READ_WRITE = 0o600;

export class DmaBufFile implements File {
  readonly size: number;
  readonly exporter: DmaBufExporter;
  private readonly refusals: RefusalLog;
  private readonly access: number;
  private readonly importers = new Set<DmaBufImporter>();
  /** DMA_BUF_SET_NAME. */
  private label = '';

  constructor(refusals: RefusalLog, { exporter, size, openFlags }: DmaBufOptions) {
    this.refusals = refusals;
    this.exporter = exporter;
    this.size = size;
    this.access = openFlags & O_ACCMODE;
  }

  get name(): string {
    return `/dmabuf:${this.label}`;
  }

  /** Those that are attached now. */
  get attachments(): number {
    return this.importers.size;
  }

  /** dma_buf_dynamic_attach: 0, or the exporter's -errno. */
  attach(importer: DmaBufImporter): number {
    const error = this.exporter.attach();
    if (error === 0) this.importers.add(importer);
    return error;
  }

  detach(importer: DmaBufImporter): void {
    this.importers.delete(importer);
  }

  /** dma_buf_invalidate_mappings: called by the exporter. */
  invalidateMappings(): void {
    for (const importer of this.importers) importer.invalidateMappings();
  }

  ioctl(process: Process, request: number, argument: bigint): number {
    switch (request) {
      case DMA_BUF_IOCTL_SYNC:
        return this.sync(process, argument);
      case DMA_BUF_SET_NAME_A:
      case DMA_BUF_SET_NAME_B:
        return this.setName(process, argument);
      case DMA_BUF_IOCTL_EXPORT_SYNC_FILE:
      case DMA_BUF_IOCTL_IMPORT_SYNC_FILE:
        return this.refusals.refuse('ENOTTY', 'this kernel has no sync files (CONFIG_SYNC_FILE)', 'request');
      default:
        return this.refusals.refuse('ENOTTY', `a dma-buf has no request ${hex(request)}`, 'request');
    }
  }

  read(): number {
    if (this.access === O_WRONLY) return this.refusals.refuse('EBADF', 'the dma-buf was opened for writing only', 'fd');
    return this.refusals.refuse('EINVAL', 'a dma-buf cannot be read: devices map it', 'fd');
  }

  write(): number {
    if (this.access === O_RDONLY) return this.refusals.refuse('EBADF', 'the dma-buf was opened for reading only', 'fd');
    return this.refusals.refuse('EINVAL', 'a dma-buf cannot be written: devices map it', 'fd');
  }

  /** Of the exporters that this kernel has, none lets programs map what it exports. The access mode is looked at before. */
  mmap(_process: Process, _offset: number, _length: number, write: boolean): FileMapping | number {
    if (this.access === O_WRONLY || (write && this.access === O_RDONLY)) {
      return this.refusals.refuse(
        'EACCES',
        'the mapping asks for more than the open_flags of the dma-buf',
        'open_flags',
      );
    }
    return this.refusals.refuse('EINVAL', 'the exporter of the dma-buf does not let programs map it', 'fd');
  }

  /** To its end or its start and nowhere else: how a program learns the size. */
  seek(offset: number, whence: number): number {
    if (whence !== SEEK_END && whence !== SEEK_SET) {
      return this.refusals.refuse('EINVAL', `whence ${whence} is neither SEEK_SET 0 nor SEEK_END 2`, 'whence');
    }
    if (offset !== 0) return this.refusals.refuse('EINVAL', `offset ${offset} is not 0`, 'offset');
    return whence === SEEK_END ? this.size : 0;
  }

  stat(): FileStat {
    return { mode: OWNER_READ_WRITE, size: this.size };
  }

  /** Nothing here makes fences, so nobody waits. */
  poll(): number {
    return EPOLLIN | EPOLLOUT;
  }

  release(): void {
    this.exporter.release();
  }

  /** Around CPU accesses of a mapping: caches are coherent here, and the checks are all of it. */
  private sync(process: Process, argument: bigint): number {
    const bytes = copyFromUser(process, argument, dma_buf_sync.size);
    if (bytes === null) return this.refusals.refuse('EFAULT', 'the argument is not readable', 'argument');
    const { flags } = dma_buf_sync.read(bytes);
    if ((flags & ~BigInt(DMA_BUF_SYNC_VALID_FLAGS_MASK)) !== 0n) {
      return this.refusals.refuse('EINVAL', `flags ${hex(flags)} has unknown bits`, 'flags');
    }
    if ((flags & BigInt(DMA_BUF_SYNC_RW)) !== 0n) return 0;
    return this.refusals.refuse('EINVAL', 'flags has neither READ nor WRITE', 'flags');
  }

  /** strndup_user: EFAULT, or EINVAL when the string does not end in time. */
  private setName(process: Process, argument: bigint): number {
    const bytes: number[] = [];
    const one = new Uint8Array(1);
    for (let at = 0; at < DMA_BUF_NAME_LEN; at += 1) {
      if (!process.memory.copyIn(userPointer(argument + BigInt(at)), one)) {
        return this.refusals.refuse('EFAULT', 'the name is not readable', 'argument');
      }
      if (one[0] === 0) {
        this.label = new TextDecoder().decode(Uint8Array.from(bytes));
        return 0;
      }
      bytes.push(one[0]!);
    }
    return this.refusals.refuse('EINVAL', `the name does not end within ${DMA_BUF_NAME_LEN} bytes`, 'argument');
  }
}
