/**
 * memfds: memory that is a file (mm/memfd.c, mm/shmem.c, fs/hugetlbfs/inode.c). Pages come with their first use and go when the file is cut short;
 * what a device has pinned stays where it is until it is let go, though the file has forgotten it.
 */
import { hex } from '../ports/address.ts';
import type { PinnedPages } from '../ports/process.ts';
import { ERRNO } from '../uapi/errno.ts';
import {
  F_ADD_SEALS,
  F_GET_SEALS,
  F_SEAL_EXEC,
  F_SEAL_FUTURE_WRITE,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  F_SEAL_WRITE,
} from '../uapi/fcntl.ts';
import {
  MFD_ALLOW_SEALING,
  MFD_CLOEXEC,
  MFD_EXEC,
  MFD_HUGE_MASK,
  MFD_HUGE_SHIFT,
  MFD_HUGETLB,
  MFD_NOEXEC_SEAL,
} from '../uapi/memfd.ts';
import type { KernelContext } from './context.ts';
import { type File, type FileMapping, type FileStat, type Located, SEEK_CUR, SEEK_END, SEEK_SET } from './files.ts';
import { MemfdMapping } from './memfd-mapping.ts';
import { MemfdPages } from './memfd-pages.ts';
import type { Process } from './process.ts';

const KNOWN = MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_NOEXEC_SEAL | MFD_EXEC;
const SEALS = F_SEAL_SEAL | F_SEAL_EXEC | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
const WRITE_SEALS = F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
/** NAME_MAX without `memfd:`. */
const LONGEST_NAME = 249;
/** log2 of the one size of huge pages that there is. */
const HUGE_LOG = 21;
const S_IFREG = 0o100000;
const EXECUTABLE = 0o111;
/** The largest file: what page cache indexes and addresses here both hold. */
const MAX_BYTES = 2 ** 52;

/** memfd_create(2): the file, or -EINVAL (flags, a name beyond 249 bytes), -ENODEV (huge pages of a size that is not there). */
export function memfdCreate(context: KernelContext, name: string, flags: number): MemfdFile | number {
  const { refusals } = context;
  const huge = (flags & MFD_HUGETLB) !== 0;
  const known = huge ? KNOWN | (MFD_HUGE_MASK << MFD_HUGE_SHIFT) : KNOWN;
  if ((flags & ~known) !== 0)
    return refusals.refuse('EINVAL', `flags ${hex(flags >>> 0, 1)} has unknown bits`, 'flags');
  if ((flags & (MFD_EXEC | MFD_NOEXEC_SEAL)) === (MFD_EXEC | MFD_NOEXEC_SEAL))
    return refusals.refuse('EINVAL', 'MFD_EXEC and MFD_NOEXEC_SEAL exclude each other', 'flags');
  const { length } = new TextEncoder().encode(name);
  if (length > LONGEST_NAME)
    return refusals.refuse('EINVAL', `the name has ${length} bytes, more than ${LONGEST_NAME}`, 'name');
  const log = (flags >>> MFD_HUGE_SHIFT) & MFD_HUGE_MASK;
  if (huge && log !== 0 && log !== HUGE_LOG)
    return refusals.refuse('ENODEV', `there are no huge pages of 2^${log} bytes, only of 2^${HUGE_LOG}`, 'flags');
  return new MemfdFile(context, name, flags);
}

export class MemfdFile implements File {
  readonly name: string;
  /** Bytes of one page of the file: the kernel's, or a huge page's. */
  readonly pageSize: number;
  size = 0;
  private readonly context: KernelContext;
  private readonly pages: MemfdPages;
  private readonly huge: boolean;
  private seals: number;
  private executable: boolean;
  private position = 0;
  /** Shared mappings through which somebody may write (i_mmap_writable). */
  private writable = 0;

  constructor(context: KernelContext, name: string, flags: number) {
    this.context = context;
    this.name = `/memfd:${name} (deleted)`;
    this.huge = (flags & MFD_HUGETLB) !== 0;
    this.pageSize = this.huge ? 2 ** HUGE_LOG : context.pageSize;
    this.pages = new MemfdPages(context.memory, this.pageSize);
    this.executable = (flags & MFD_NOEXEC_SEAL) === 0;
    if (!this.executable) this.seals = F_SEAL_EXEC;
    else this.seals = (flags & MFD_ALLOW_SEALING) !== 0 ? 0 : F_SEAL_SEAL;
  }

  /** Bytes of memory behind it. */
  get resident(): number {
    return this.pages.resident;
  }

  /** -EINVAL negative, too long, or no whole huge pages; -EPERM sealed. */
  truncate(length: number): number {
    const { refusals } = this.context;
    if (!(Number.isInteger(length) && length >= 0))
      return refusals.refuse('EINVAL', `length ${length} is negative`, 'length');
    if (length > MAX_BYTES) return refusals.refuse('EFBIG', `length ${length} is more than 2^52`, 'length');
    if (this.huge && length % this.pageSize !== 0)
      return refusals.refuse('EINVAL', `length ${length} is not made of huge pages`, 'length');
    const seal = length < this.size ? F_SEAL_SHRINK : length > this.size ? F_SEAL_GROW : 0;
    if ((this.seals & seal) !== 0) return refusals.refuse('EPERM', 'the file is sealed against it', 'length');
    if (length < this.size) this.pages.truncate(length);
    this.size = length;
    return 0;
  }

  read(process: Process, address: number, count: number, offset: number): number {
    const length = Math.max(0, Math.min(count, this.size - offset));
    for (let done = 0; done < length; ) {
      const bytes = this.pages.read(offset + done, length - done);
      if (!process.memory.copyOut(address + done, bytes)) return done > 0 ? done : this.unreadable();
      done += bytes.length;
    }
    return length;
  }

  /** Grows the file. -EPERM sealed, -EINVAL huge pages, -ENOSPC no memory. */
  write(process: Process, address: number, count: number, offset: number): number {
    const { refusals } = this.context;
    if (this.huge) return refusals.refuse('EINVAL', 'a file of huge pages is written through its mappings', 'fd');
    if ((this.seals & WRITE_SEALS) !== 0) return refusals.refuse('EPERM', 'the file is sealed against writes', 'fd');
    if ((this.seals & F_SEAL_GROW) !== 0 && offset + count > this.size)
      return refusals.refuse('EPERM', 'the file is sealed against growing', 'fd');
    if (offset + count > MAX_BYTES) return refusals.refuse('EFBIG', 'the file would have more than 2^52 bytes', 'fd');
    const bytes = new Uint8Array(count);
    if (!process.memory.copyIn(address, bytes)) return this.unreadable();
    const before = this.size;
    this.size = Math.max(this.size, offset + count);
    if (this.pages.write(offset, bytes, this.size)) return count;
    this.size = before;
    return refusals.refuse('ENOSPC', `the machine has no memory for ${count} bytes`, 'count');
  }

  /** -EPERM a writable mapping of a file that is sealed against writes; -EINVAL where huge pages are not met. */
  mmap(_process: Process, offset: number, length: number, write: boolean): FileMapping | number {
    const { refusals } = this.context;
    if (offset % this.pageSize !== 0)
      return refusals.refuse('EINVAL', `offset ${hex(offset, 1)} is no multiple of ${this.pageSize}`, 'offset');
    const sealed = (this.seals & WRITE_SEALS) !== 0;
    if (write && sealed) return refusals.refuse('EPERM', 'the file is sealed against writes', 'fd');
    const bytes = Math.ceil(length / this.pageSize) * this.pageSize;
    if (this.huge && write) this.size = Math.max(this.size, offset + bytes);
    // One that reads alone counts too: mprotect could make it writable.
    if (!sealed) this.writable += 1;
    return new MemfdMapping(this, this.context.memory, offset, bytes, () => {
      if (!sealed) this.writable -= 1;
    });
  }

  /** The page under an offset, made if need be; null beyond the end (SIGBUS), or without memory. */
  locate(offset: number): Located | null {
    return offset < this.end ? this.pages.locate(offset, this.end) : null;
  }

  /** memfd_pin_folios. */
  pin(offset: number, length: number, _write: boolean): PinnedPages | number {
    if (offset + length > this.size) return -ERRNO.EINVAL;
    const runs: { pa: number; length: number }[] = [];
    const holds: (() => void)[] = [];
    const release = (): void => {
      for (const hold of holds.splice(0)) hold();
    };
    for (let at = offset; at < offset + length; ) {
      const found = this.locate(at);
      if (found === null) {
        release();
        return -ERRNO.ENOMEM;
      }
      const bytes = Math.min(found.length, offset + length - at);
      holds.push(found.hold(bytes));
      runs.push({ pa: found.pa, length: bytes });
      at += bytes;
    }
    return { runs, accountedPages: length / this.context.pageSize, deviceMemory: false, release };
  }

  fcntl(command: number, argument: number): number {
    if (command === F_GET_SEALS) return this.seals;
    if (command === F_ADD_SEALS) return this.addSeals(argument);
    return this.context.refusals.refuse('EINVAL', `command ${command} is not known`, 'command');
  }

  seek(offset: number, whence: number): number {
    const { refusals } = this.context;
    const base = { [SEEK_SET]: 0, [SEEK_CUR]: this.position, [SEEK_END]: this.size }[whence];
    if (base === undefined) return refusals.refuse('EINVAL', `whence ${whence} is none of 0 to 2`, 'whence');
    if (base + offset < 0) return refusals.refuse('EINVAL', `position ${base + offset} is negative`, 'offset');
    this.position = base + offset;
    return this.position;
  }

  stat(): FileStat {
    return { mode: S_IFREG | (this.executable ? 0o666 | EXECUTABLE : 0o666), size: this.size };
  }

  release(): void {
    this.pages.truncate(0);
  }

  /** Page cache reaches to the end of the last page. */
  private get end(): number {
    return Math.ceil(this.size / this.pageSize) * this.pageSize;
  }

  /** memfd_add_seals. What is pinned, or mapped so that it may be written, cannot be sealed against writes: -EBUSY. */
  private addSeals(seals: number): number {
    const { refusals } = this.context;
    if ((seals & ~SEALS) !== 0)
      return refusals.refuse('EINVAL', `seals ${hex(seals >>> 0, 1)} has unknown bits`, 'seals');
    if ((this.seals & F_SEAL_SEAL) !== 0) return refusals.refuse('EPERM', 'the file takes no more seals', 'fd');
    let added = seals;
    if ((seals & F_SEAL_EXEC) !== 0 && this.executable) added |= F_SEAL_SHRINK | F_SEAL_GROW | WRITE_SEALS;
    if ((added & F_SEAL_WRITE & ~this.seals) !== 0) {
      if (this.writable > 0)
        return refusals.refuse('EBUSY', `${this.writable} mappings of the file may be written`, 'seals');
      if (this.pages.held) return refusals.refuse('EBUSY', 'a device has pages of the file pinned', 'seals');
    }
    this.seals |= added;
    return 0;
  }

  private unreadable(): number {
    return this.context.refusals.refuse('EFAULT', 'the buffer is not all mapped', 'buffer');
  }
}
