/** System calls with a path: those of the simulated host are answered here, all others go their own way. */

import type { OpenMode } from '../kernel/syscalls.ts';
import type { Found } from '../kernel/sysfs/lookup.ts';
import { contents } from '../kernel/sysfs/text-file.ts';
import { O_RDONLY } from '../libc/index.ts';
import type { SeccompListener } from '../libc/seccomp.ts';
import { ERRNO } from '../uapi/errno.ts';
import { type Handler, PROCEED } from './handler.ts';
import type { CallName } from './numbers.ts';
import { statusOf, statusText } from './program-status.ts';
import type { Session } from './session.ts';
import { factsOf, statBytes, statxBytes } from './stat.ts';

const ELOOP = 40;
const ENODATA = 61;
const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_EMPTY_PATH = 0x1000;
const O_CREAT = 0o100;
const O_EXCL = 0o200;
const O_DIRECTORY = process.arch === 'x64' ? 0o200000 : 0o40000;
const O_NOFOLLOW = process.arch === 'x64' ? 0o400000 : 0o100000;
const O_CLOEXEC = 0o2000000;
const MODES: readonly OpenMode[] = ['r', 'w', 'rw'];

export function pathCalls(session: Session): Partial<Record<CallName, Handler>> {
  const calls = new PathCalls(session);
  return {
    open: (call) => calls.open(call, AT_FDCWD, 0, call.int(1)),
    openat: (call) => calls.open(call, call.int(0), 1, call.int(2)),
    openat2: (call) => calls.open2(call),
    stat: (call) => calls.stat(call, AT_FDCWD, 0, 1, 0),
    lstat: (call) => calls.stat(call, AT_FDCWD, 0, 1, AT_SYMLINK_NOFOLLOW),
    newfstatat: (call) => calls.stat(call, call.int(0), 1, 2, call.int(3)),
    statx: (call) => calls.statx(call),
    access: (call) => calls.access(call, AT_FDCWD, 0, call.int(1), 0),
    faccessat: (call) => calls.access(call, call.int(0), 1, call.int(2), 0),
    faccessat2: (call) => calls.access(call, call.int(0), 1, call.int(2), call.int(3)),
    readlink: (call) => calls.readlink(call, AT_FDCWD, 0),
    readlinkat: (call) => calls.readlink(call, call.int(0), 1),
    getxattr: (call) => calls.attribute(call, 0, -ENODATA),
    lgetxattr: (call) => calls.attribute(call, AT_SYMLINK_NOFOLLOW, -ENODATA),
    listxattr: (call) => calls.attribute(call, 0, 0),
    llistxattr: (call) => calls.attribute(call, AT_SYMLINK_NOFOLLOW, 0),
  };
}

class PathCalls {
  private readonly session: Session;

  constructor(session: Session) {
    this.session = session;
  }

  open(call: SeccompListener, directory: number, argument: number, flags: number): number {
    const full = this.fullPath(call, directory, argument);
    return full === null || full === '' ? PROCEED : this.openFull(call, full, flags);
  }

  /** struct open_how: flags@0. */
  open2(call: SeccompListener): number {
    const full = this.fullPath(call, call.int(0), 1);
    if (full === null || full === '') return PROCEED;
    const flags = new Uint8Array(8);
    if (this.session.memory.read(call.pid, call.argument(2), flags) !== 8) return PROCEED;
    return this.openFull(call, full, new DataView(flags.buffer).getInt32(0, true));
  }

  stat(call: SeccompListener, directory: number, argument: number, buffer: number, flags: number): number {
    return this.describe(call, directory, argument, flags, (found) =>
      this.answer(call, call.argument(buffer), statBytes(factsOf(found.path, found.node))),
    );
  }

  statx(call: SeccompListener): number {
    return this.describe(call, call.int(0), 1, call.int(2), (found) =>
      this.answer(call, call.argument(4), statxBytes(factsOf(found.path, found.node))),
    );
  }

  access(call: SeccompListener, directory: number, argument: number, mode: number, flags: number): number {
    return this.describe(call, directory, argument, flags, ({ node }) => {
      const process = this.session.tracees.of(call.pid);
      if (process === null || process.credentials.euid === 0 || mode === 0) return 0;
      const bits = node.kind === 'directory' || node.kind === 'link' ? 5 : node.mode & 7;
      return (bits & mode) === mode ? 0 : -ERRNO.EACCES;
    });
  }

  /** Nodes here have no extended attributes: `result` says so. */
  attribute(call: SeccompListener, flags: number, result: number): number {
    return this.describe(call, AT_FDCWD, 0, flags, () => result);
  }

  readlink(call: SeccompListener, directory: number, argument: number): number {
    const path = this.pathOf(call, directory, argument);
    if (path === null || path === '') return PROCEED;
    const found = this.session.world.find(path, path.endsWith('/'));
    if (found === null) return -ERRNO.ENOENT;
    if (found.node.kind !== 'link') return -ERRNO.EINVAL;
    const target = Buffer.from(found.node.target).subarray(0, call.argument(argument + 2));
    const result = this.answer(call, call.argument(argument + 1), target);
    return result < 0 ? result : target.length;
  }

  /** The path of the simulated host that an argument names; '' for an empty one, null for one that is not the simulated host's. */
  private pathOf(call: SeccompListener, directory: number, argument: number): string | null {
    const full = this.fullPath(call, directory, argument);
    return full === null || full === '' ? full : this.session.world.ownPath(full);
  }

  /** The absolute path that an argument names, of either system; '' for an empty one, null for one that cannot be told. */
  private fullPath(call: SeccompListener, directory: number, argument: number): string | null {
    const { memory, links } = this.session;
    const text = memory.text(call.pid, call.argument(argument));
    if (text === null || text === '' || text.startsWith('/')) return text;
    const base = links.read(directory === AT_FDCWD ? `/proc/${call.pid}/cwd` : `/proc/${call.pid}/fd/${directory}`);
    return base === null ? null : `${base}/${text}`;
  }

  private openFull(call: SeccompListener, full: string, flags: number): number {
    const path = this.session.world.ownPath(full);
    return path === null ? this.openStatus(call, full, flags) : this.openPath(call, path, flags);
  }

  /** A program's status says also what the simulated kernel has locked and pinned of it; every other file is the real kernel's. */
  private openStatus(call: SeccompListener, path: string, flags: number): number {
    const pid = statusOf(path, call.pid);
    const process = pid === null || (flags & 3) !== 0 ? null : this.session.tracees.known(pid);
    if (process === null || (process.lockedPages === 0 && process.pinnedPages === 0)) return PROCEED;
    const text = statusText(`/proc/${pid}/status`, process);
    return text === null ? PROCEED : this.giveText(call, Buffer.from(text, 'latin1'), (flags & O_CLOEXEC) !== 0);
  }

  private describe(
    call: SeccompListener,
    directory: number,
    argument: number,
    flags: number,
    tell: (found: Found) => number,
  ): number {
    const path = this.pathOf(call, directory, argument);
    if (path === null) return PROCEED;
    if (path === '') {
      const open = (flags & AT_EMPTY_PATH) !== 0 ? this.session.files.resolve(call.pid, directory) : null;
      const node = open === null ? null : this.session.world.find(open.name, true);
      return node === null ? PROCEED : tell(node);
    }
    const found = this.session.world.find(path, (flags & AT_SYMLINK_NOFOLLOW) === 0 || path.endsWith('/'));
    return found === null ? -ERRNO.ENOENT : tell(found);
  }

  private openPath(call: SeccompListener, path: string, flags: number): number {
    const result = this.openNode(call, path, flags);
    this.session.opened(path, result);
    return result;
  }

  private openNode(call: SeccompListener, path: string, flags: number): number {
    const { world, host } = this.session;
    const found = world.find(path, (flags & O_NOFOLLOW) === 0 || path.endsWith('/'));
    if (found === null) return (flags & O_CREAT) !== 0 ? -ERRNO.EACCES : -ERRNO.ENOENT;
    if ((flags & O_CREAT) !== 0 && (flags & O_EXCL) !== 0) return -ERRNO.EEXIST;
    const { node } = found;
    const closeOnExec = (flags & O_CLOEXEC) !== 0;
    const mode = MODES[flags & 3] ?? 'rw';
    if (node.kind === 'link') return -ELOOP;
    if (node.kind === 'directory') {
      return mode !== 'r' ? -ERRNO.EISDIR : this.giveDirectory(call, world.materialise(found.path, node), closeOnExec);
    }
    if ((flags & O_DIRECTORY) !== 0) return -ERRNO.ENOTDIR;
    const process = this.session.tracees.of(call.pid);
    if (process === null) return -ERRNO.ENOENT;
    if (node.kind === 'file' && mode === 'r' && node.read !== undefined && (node.mode & 0o444) !== 0) {
      return this.giveText(call, contents(node.read()), closeOnExec);
    }
    process.refresh();
    this.session.closeOnExec = closeOnExec;
    return host.kernel.syscalls.open(process, path, mode);
  }

  private giveDirectory(call: SeccompListener, real: string, closeOnExec: boolean): number {
    const { libc } = this.session;
    const fd = libc.open(real, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return fd;
    const given = call.inject(fd, closeOnExec);
    libc.close(fd);
    return given;
  }

  /** What an attribute reads as now: the program's own reads of it then stay native. */
  private giveText(call: SeccompListener, bytes: Uint8Array, closeOnExec: boolean): number {
    const { libc } = this.session;
    const fd = libc.memfd('attribute', 0);
    if (fd < 0) return fd;
    libc.pwrite(fd, bytes, 0);
    const given = call.inject(fd, closeOnExec);
    libc.close(fd);
    return given;
  }

  private answer(call: SeccompListener, address: number, bytes: Uint8Array): number {
    return this.session.memory.write(call.pid, address, bytes) === bytes.length ? 0 : -ERRNO.EFAULT;
  }
}
