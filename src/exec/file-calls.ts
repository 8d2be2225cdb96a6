/** System calls on descriptors that stand for simulated files. */
import { IommufdFile } from '../kernel/iommufd/index.ts';
import type { SeccompListener } from '../libc/seccomp.ts';
import { ERRNO } from '../uapi/errno.ts';
import { IOMMU_IOAS_MAP, IOMMU_IOAS_MAP_FILE, IOMMU_OPTION } from '../uapi/iommufd.ts';
import {
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_REGION_INFO_FLAG_MMAP,
  vfio_region_info,
} from '../uapi/vfio.ts';
import type { ForeignProcess } from './foreign-process.ts';
import { type Handler, PROCEED } from './handler.ts';
import { IOMMU_TEST_CMD } from './iommufd-mock/test-cmd.ts';
import type { CallName } from './numbers.ts';
import type { OpenFile } from './open-files.ts';
import { mappable, traceFor } from './register-maps.ts';
import type { Session } from './session.ts';
import { factsOf, statBytes } from './stat.ts';

/** Requests that look at what the process may lock, or at its capabilities. */
const ACCOUNTED = new Set([VFIO_IOMMU_MAP_DMA, IOMMU_IOAS_MAP, IOMMU_IOAS_MAP_FILE, IOMMU_OPTION, IOMMU_TEST_CMD]);
const PROT_WRITE = 2;
const MAP_TYPE = 0xf;
const MAP_PRIVATE = 2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const SEEK_SET = 0;
const SEEK_CUR = 1;
const SEEK_END = 2;
const F_DUPFD_CLOEXEC = 1030;
const RWF_HIPRI = 1;
/** What one call moves at most here; a shorter result is in order for read and write. */
const MOST = 2 ** 20;

export function fileCalls(session: Session): Partial<Record<CallName, Handler>> {
  const calls = new FileCalls(session);
  return {
    ioctl: (call) => calls.ioctl(call),
    read: (call) => calls.transfer(call, 'read', null),
    write: (call) => calls.transfer(call, 'write', null),
    pread64: (call) => calls.transfer(call, 'read', call.argument(3)),
    pwrite64: (call) => calls.transfer(call, 'write', call.argument(3)),
    readv: (call) => calls.vector(call, 'read', null),
    writev: (call) => calls.vector(call, 'write', null),
    preadv: (call) => calls.vector(call, 'read', call.argument(3)),
    pwritev: (call) => calls.vector(call, 'write', call.argument(3)),
    preadv2: (call) => calls.vector2(call, 'read'),
    pwritev2: (call) => calls.vector2(call, 'write'),
    lseek: (call) => calls.seek(call),
    fstat: (call) => calls.fstat(call),
    mmap: (call) => calls.mmap(call),
    dup: (call) => calls.duplicate(call, false),
    fcntl: (call) => calls.duplicate(call, call.int(1) === F_DUPFD_CLOEXEC),
    dup2: () => calls.forget(),
    dup3: () => calls.forget(),
    close: () => calls.forget(),
    close_range: () => calls.forget(),
    execve: () => calls.forget(),
    execveat: () => calls.forget(),
  };
}

class FileCalls {
  private readonly session: Session;

  constructor(session: Session) {
    this.session = session;
  }

  /** Descriptors are about to change: what they stand for is looked up again. */
  forget(): number {
    this.session.files.forgetDescriptors();
    return PROCEED;
  }

  ioctl(call: SeccompListener): number {
    return this.onFile(call, 0, (process, open, fd) => {
      const request = call.int(1) >>> 0;
      this.session.counts.ioctls += 1;
      if (ACCOUNTED.has(request)) process.refresh();
      this.session.closeOnExec = true;
      const { iommufdTest } = this.session;
      if (iommufdTest !== null && request === IOMMU_TEST_CMD && open.file instanceof IommufdFile) {
        return iommufdTest.ioctl(open.file, process, call.wide(2));
      }
      const result = this.session.host.kernel.syscalls.ioctl(process, fd, request, call.wide(2));
      iommufdTest?.sweep();
      if (result === 0 && request === VFIO_DEVICE_GET_REGION_INFO && open.file.kind === 'device') {
        this.tellMapping(process, open, call.argument(2));
      }
      return result;
    });
  }

  /** `offset` null: at the file's position, which moves. */
  transfer(call: SeccompListener, kind: 'read' | 'write', offset: number | null): number {
    return this.onFile(call, 0, (process, open, fd) => {
      if (offset !== null && open.file.nonseekable === true) return -ERRNO.ESPIPE;
      return this.move(process, open, fd, kind, call.argument(1), call.argument(2), offset);
    });
  }

  /** struct iovec: base@0, length@8. */
  /** Offset -1 is the file's own; files that know no iov_iter take RWF_HIPRI alone (read_write.c do_loop_readv_writev). */
  vector2(call: SeccompListener, kind: 'read' | 'write'): number {
    if ((call.int(5) & ~RWF_HIPRI) !== 0) return this.onFile(call, 0, () => -ERRNO.EOPNOTSUPP);
    const own = call.int(3) === -1 && call.argument(3) > 2 ** 63;
    return this.vector(call, kind, own ? null : call.argument(3));
  }

  vector(call: SeccompListener, kind: 'read' | 'write', offset: number | null): number {
    return this.onFile(call, 0, (process, open, fd) => {
      const count = Math.min(call.argument(2), 1024);
      const bytes = new Uint8Array(16 * count);
      if (!process.memory.copyIn(call.argument(1), bytes)) return -ERRNO.EFAULT;
      const view = new DataView(bytes.buffer);
      let done = 0;
      for (let i = 0; i < count; i += 1) {
        const length = Number(view.getBigUint64(16 * i + 8, true));
        const at = offset === null ? null : offset + done;
        const result = this.move(process, open, fd, kind, Number(view.getBigUint64(16 * i, true)), length, at);
        if (result < 0) return done > 0 ? done : result;
        done += result;
        if (result < length) break;
      }
      return done;
    });
  }

  seek(call: SeccompListener): number {
    return this.onFile(call, 0, (_process, open) => {
      if (open.file.nonseekable === true) return -ERRNO.ESPIPE;
      const offset = Number(BigInt.asIntN(64, call.wide(1)));
      const whence = call.int(2);
      if (open.file.seek !== undefined) return open.file.seek(offset, whence);
      // The end of an attribute is where its stat says, whatever is in it: Python's open(path, 'a') goes there first.
      const end = whence === SEEK_END ? this.attributeSize(open) : null;
      if (whence !== SEEK_SET && whence !== SEEK_CUR && end === null) return -ERRNO.EINVAL;
      const position = offset + (whence === SEEK_SET ? 0 : (end ?? open.position));
      if (position < 0) return -ERRNO.EINVAL;
      open.position = position;
      return position;
    });
  }

  /** null: not an attribute. */
  private attributeSize(open: OpenFile): number | null {
    const found = this.session.world.find(open.name, true);
    return found?.node.kind === 'file' ? factsOf(found.path, found.node).size : null;
  }

  fstat(call: SeccompListener): number {
    return this.onFile(call, 0, (process, open) => {
      const found = this.session.world.find(open.name, true);
      const own = open.file.stat?.();
      if (found === null && own === undefined) return PROCEED;
      const plain = { inode: open.id, major: 0, minor: 0, links: 1 };
      const bytes = statBytes(found === null ? { ...plain, ...own! } : factsOf(found.path, found.node));
      return process.memory.copyOut(call.argument(1), bytes) ? 0 : -ERRNO.EFAULT;
    });
  }

  /** The simulated kernel says whether the range may be mapped; the stand-in then has the BAR's bytes at the same offset, and the real kernel maps it. */
  mmap(call: SeccompListener): number {
    const { session } = this;
    if ((call.int(3) & MAP_FIXED) !== 0) session.losing(call, call.argument(0), call.argument(1));
    if ((call.int(3) & MAP_ANONYMOUS) !== 0) return PROCEED;
    return this.onFile(call, 4, (process, open, fd) => {
      const write = (call.int(2) & PROT_WRITE) !== 0;
      const offset = call.argument(5);
      const how = { shared: (call.int(3) & MAP_TYPE) !== MAP_PRIVATE, prot: call.int(2) };
      const mapping = session.host.kernel.syscalls.mapping(process, fd, offset, call.argument(1), write, how);
      if (typeof mapping === 'number') return mapping;
      if (open.file instanceof IommufdFile) {
        session.pages.map(open, offset, mapping);
        return PROCEED;
      }
      const result = session.bars.map(open, offset, mapping, () => traceFor(session, process));
      return result < 0 ? result : PROCEED;
    });
  }

  /** A copy of the descriptor that is one of the numbers which stop: dup would give a low one. */
  duplicate(call: SeccompListener, closeOnExec: boolean): number {
    return this.onFile(call, 0, (process, _open, fd) => {
      const { pidfds, libc } = this.session;
      const copy = pidfds.getfd(process.pidfd, fd);
      if (copy < 0) return PROCEED;
      const given = this.session.give(process, copy, closeOnExec);
      libc.close(copy);
      return given;
    });
  }

  /** A region that the simulated kernel would map and no program here can is one that only pread and pwrite reach: the program is told so. */
  private tellMapping(process: ForeignProcess, open: OpenFile, address: number): void {
    const bytes = new Uint8Array(vfio_region_info.size);
    if (!process.memory.copyIn(address, bytes)) return;
    const { flags, index } = vfio_region_info.read(bytes);
    if ((flags & VFIO_REGION_INFO_FLAG_MMAP) === 0 || mappable(this.session, process, open, index)) return;
    vfio_region_info.write(bytes, { ...vfio_region_info.read(bytes), flags: flags & ~VFIO_REGION_INFO_FLAG_MMAP });
    process.memory.copyOut(address, bytes);
  }

  private move(
    process: ForeignProcess,
    open: OpenFile,
    fd: number,
    kind: 'read' | 'write',
    address: number,
    length: number,
    offset: number | null,
  ): number {
    const { syscalls } = this.session.host.kernel;
    const result = syscalls[kind](process, fd, address, Math.min(length, MOST), offset ?? open.position);
    if (offset === null && result > 0 && open.file.nonseekable !== true) open.position += result;
    return result;
  }

  /** The simulated file behind the descriptor in argument `index`; without one the call is the real kernel's. */
  private onFile(
    call: SeccompListener,
    index: number,
    body: (process: ForeignProcess, open: OpenFile, fd: number) => number,
  ): number {
    const fd = call.int(index);
    const open = this.session.files.resolve(call.pid, fd);
    if (open === null) return PROCEED;
    const process = this.session.tracees.of(call.pid);
    if (process === null) return -ERRNO.EBADF;
    this.session.inHand = { fd, open };
    const result = body(process, open, fd);
    this.session.inHand = null;
    return result;
  }
}
