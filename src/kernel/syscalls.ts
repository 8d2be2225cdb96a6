/** System calls: descriptors are looked up, the refusal log is set up, and the file does the rest. */
import type { ErrnoName } from '../uapi/errno.ts';
import { requestName } from '../uapi/request-name.ts';
import type { KernelContext } from './context.ts';
import { EventFdFile, SimEventFd } from './eventfd.ts';
import type { File, FileMapping, FileStat, MapRequest } from './files.ts';
import { memfdCreate } from './memfd.ts';
import type { SimProcess } from './process.ts';
import { lookup } from './sysfs/lookup.ts';
import type { DirectoryNode, TreeNode } from './sysfs/node.ts';
import { TextFile } from './sysfs/text-file.ts';
import type { SimUserMemory } from './user-memory.ts';

export type OpenMode = 'r' | 'w' | 'rw';

/** What a mapping of a file is, with its address in the process. */
export interface Placed {
  readonly address: number;
  readonly mapping: FileMapping;
}

export class Syscalls {
  private readonly context: KernelContext;
  private readonly root: DirectoryNode;
  private nextEventFd = 1;

  constructor(context: KernelContext, root: DirectoryNode) {
    this.context = context;
    this.root = root;
  }

  open(process: SimProcess, path: string, mode: OpenMode = 'rw'): number {
    this.begin(`open(${path})`);
    const found = lookup(this.root, path);
    if (found === null) return this.refuse('ENOENT', `there is no ${path}`, 'path');
    const file = this.openNode(process, found.node, found.path, mode);
    return typeof file === 'number' ? file : process.install(file);
  }

  close(process: SimProcess, fd: number): number {
    this.begin('close');
    return process.close(fd);
  }

  /** `argument` is the raw 64 bits: a pointer, or a value. */
  ioctl(process: SimProcess, fd: number, request: number, argument: bigint): number {
    const file = process.file(fd);
    this.begin(file?.kind === undefined ? `ioctl 0x${(request >>> 0).toString(16)}` : requestName(file.kind, request));
    if (file === null) return this.badDescriptor(process, fd);
    if (file.ioctl === undefined) return this.refuse('ENOTTY', `${file.name} takes no requests`, 'request');
    return file.ioctl(process, request >>> 0, BigInt.asUintN(64, argument));
  }

  read(process: SimProcess, fd: number, address: number, count: number, offset = 0): number {
    this.begin('read');
    if (offset < 0) return this.refuse('EINVAL', `offset ${offset} is below 0`, 'offset');
    const file = process.file(fd);
    if (file === null) return this.badDescriptor(process, fd);
    if (file.read === undefined) return this.refuse('EINVAL', `${file.name} cannot be read`, 'fd');
    return file.read(process, address, count, offset);
  }

  write(process: SimProcess, fd: number, address: number, count: number, offset = 0): number {
    this.begin('write');
    if (offset < 0) return this.refuse('EINVAL', `offset ${offset} is below 0`, 'offset');
    const file = process.file(fd);
    if (file === null) return this.badDescriptor(process, fd);
    if (file.write === undefined) return this.refuse('EINVAL', `${file.name} cannot be written`, 'fd');
    return file.write(process, address, count, offset);
  }

  /** Asks the file for what it maps; whoever owns the address space places it. */
  mapping(
    process: SimProcess,
    fd: number,
    offset: number,
    length: number,
    write: boolean,
    how?: MapRequest,
  ): FileMapping | number {
    this.begin('mmap');
    const file = process.file(fd);
    if (file === null) return this.badDescriptor(process, fd);
    if (!(length > 0)) return this.refuse('EINVAL', `length ${length} is not positive`, 'length');
    if (offset % this.context.pageSize !== 0) {
      return this.refuse('EINVAL', `offset 0x${offset.toString(16)} is not a multiple of the page size`, 'offset');
    }
    if (offset < 0) return this.refuse('EOVERFLOW', `offset ${offset} is below 0`, 'offset');
    if (file.mmap === undefined) return this.refuse('ENODEV', `${file.name} cannot be mapped`, 'fd');
    return file.mmap(process, offset, length, write, how);
  }

  /** mmap(MAP_SHARED) for a process whose address space the kernel keeps. */
  mmap(
    process: SimProcess<SimUserMemory>,
    fd: number,
    offset: number,
    length: number,
    write: boolean,
  ): Placed | number {
    const mapping = this.mapping(process, fd, offset, length, write);
    if (typeof mapping === 'number') return mapping;
    const address = process.memory.mapFile(mapping, write);
    if (address >= 0) return { address, mapping };
    mapping.close();
    return this.refuse('ENOMEM', `no room for ${length} bytes in the address space`, 'length');
  }

  munmap(process: SimProcess<SimUserMemory>, address: number): number {
    this.begin('munmap');
    if (process.memory.unmap(address) === 0) return 0;
    return this.refuse('EINVAL', `no mapping starts at 0x${address.toString(16)}`, 'address');
  }

  /** A file descriptor, or -errno. */
  memfdCreate(process: SimProcess, name: string, flags = 0): number {
    this.begin('memfd_create');
    const file = memfdCreate(this.context, name, flags);
    return typeof file === 'number' ? file : process.install(file);
  }

  ftruncate(process: SimProcess, fd: number, length: number): number {
    this.begin('ftruncate');
    const file = process.file(fd);
    if (file === null) return this.badDescriptor(process, fd);
    return file.truncate?.(length) ?? this.refuse('EINVAL', `${file.name} is no regular file`, 'fd');
  }

  /** The new position. */
  lseek(process: SimProcess, fd: number, offset: number, whence: number): number {
    this.begin('lseek');
    const file = process.file(fd);
    if (file === null) return this.badDescriptor(process, fd);
    return file.seek?.(offset, whence) ?? this.refuse('ESPIPE', `${file.name} has no position`, 'fd');
  }

  /** What there is to say of a file that is no node of a tree: a memfd, a dma-buf. Null: it is one, or has nothing to say. */
  fstat(process: SimProcess, fd: number): FileStat | number | null {
    this.begin('fstat');
    const file = process.file(fd);
    if (file === null) return this.badDescriptor(process, fd);
    return file.stat?.() ?? null;
  }

  /** F_ADD_SEALS and F_GET_SEALS. */
  fcntl(process: SimProcess, fd: number, command: number, argument = 0): number {
    this.begin('fcntl');
    const file = process.file(fd);
    if (file === null) return this.badDescriptor(process, fd);
    return file.fcntl?.(command, argument) ?? this.refuse('EINVAL', `${file.name} takes no seals`, 'command');
  }

  eventfd(process: SimProcess, initial = 0): number {
    this.begin('eventfd');
    const { tap, work, refusals } = this.context;
    const eventfd = new SimEventFd(this.nextEventFd, initial, tap, work);
    this.nextEventFd += 1;
    return process.install(new EventFdFile(eventfd, refusals));
  }

  /** A new system call: what the last one was refused for is forgotten. */
  private begin(request: string): void {
    this.context.refusals.last = null;
    this.context.refusals.request = request;
  }

  private openNode(process: SimProcess, node: TreeNode, path: string, mode: OpenMode): File | number {
    if (node.kind === 'directory' || node.kind === 'link')
      return this.refuse('EISDIR', `${path} is a directory`, 'path');
    const owner = node.kind === 'device' ? node.uid : 0;
    if (!permitted(process, node.mode, owner, mode)) {
      const bits = node.mode.toString(8);
      return this.refuse(
        'EACCES',
        `${path} has mode 0${bits} and belongs to uid ${owner}, the caller is uid ${process.credentials.euid}`,
        'path',
      );
    }
    return node.kind === 'device' ? node.open(process) : new TextFile(path, node, this.context.refusals);
  }

  private badDescriptor(process: SimProcess, fd: number): number {
    return this.refuse('EBADF', `file descriptor ${fd} is not open in process ${process.pid} (${process.comm})`, 'fd');
  }

  private refuse(code: ErrnoName, why: string, field?: string): number {
    return this.context.refusals.refuse(code, why, field);
  }
}

function permitted(process: SimProcess, mode: number, owner: number, wanted: OpenMode): boolean {
  const { euid, capabilities } = process.credentials;
  const bits = euid === owner ? (mode >> 6) & 7 : mode & 7;
  const need = (wanted !== 'w' ? 4 : 0) | (wanted !== 'r' ? 2 : 0);
  return (bits & need) === need || capabilities.has('CAP_DAC_OVERRIDE');
}
