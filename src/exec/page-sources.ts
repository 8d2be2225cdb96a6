/** What lies behind the pinned pages of a foreign program. */
import { fstatSync } from 'node:fs';
import { type Libc, type MappedMemory, O_RDONLY, O_RDWR } from '../libc/index.ts';
import type { ProcessMemory } from '../libc/process-memory.ts';
import type { PageSource } from './frame-window.ts';
import type { Area } from './maps.ts';

const PAGE = 4096;

/**
 * Pages of a shared mapping (a file, a memfd, shared anonymous memory, hugetlbfs): the same pages are mapped here, so that they stay
 * what they were whatever the program does with its own mapping.
 */
export class SharedPages implements PageSource {
  private readonly mapped: MappedMemory;
  /** Bytes that are mapped in front of the first one. */
  private readonly before: number;
  private bytes: Uint8Array | null = null;
  /** What the file has lost since, sorted: relative to the first byte. */
  private readonly kept: { readonly start: number; readonly end: number; readonly bytes: Uint8Array }[] = [];

  readonly identity: { readonly object: string; readonly at: number };

  private constructor(mapped: MappedMemory, object: string, at: number, before: number) {
    this.mapped = mapped;
    this.before = before;
    this.identity = { object, at };
  }

  /** `object` names the file by device and inode. null: the file has no such pages. */
  static ofFile(
    libc: Libc,
    fd: number,
    object: string,
    at: number,
    length: number,
    writable: boolean,
  ): SharedPages | null {
    const mapped = libc.mapFile(fd, at, length, writable);
    if (typeof mapped !== 'number') return new SharedPages(mapped, object, at, 0);
    // hugetlbfs maps whole huge pages only.
    const grain = fstatSync(fd).blksize;
    const before = at % grain;
    const whole = Math.ceil((before + length) / grain) * grain;
    if (grain <= PAGE || (before === 0 && whole === length)) return null;
    const around = libc.mapFile(fd, at - before, whole, writable);
    return typeof around === 'number' ? null : new SharedPages(around, object, at, before);
  }

  /** null: the process may not be looked at so closely (map_files takes CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE), or the file is gone. */
  static open(libc: Libc, pid: number, area: Area, offset: number, length: number): SharedPages | null {
    const range = `${area.start.toString(16)}-${area.end.toString(16)}`;
    const path = `/proc/${pid}/map_files/${range}`;
    const writable = libc.open(path, O_RDWR);
    const fd = writable >= 0 ? writable : libc.open(path, O_RDONLY);
    if (fd < 0) return null;
    const pages = SharedPages.ofFile(libc, fd, area.file, area.offset + offset, length, writable >= 0);
    libc.close(fd);
    return pages;
  }

  read(offset: number, into: Uint8Array): boolean {
    if (this.kept.length === 0) into.set(this.view().subarray(offset, offset + into.length));
    else this.each(offset, into.length, (bytes, done) => into.set(bytes, done));
    return true;
  }

  write(offset: number, from: Uint8Array): boolean {
    if (this.kept.length === 0) this.view().set(from, offset);
    else this.each(offset, from.length, (bytes, done) => bytes.set(from.subarray(done, done + bytes.length)));
    return true;
  }

  /** The file is about to lose these pages. What is kept already stays as it is: the file's new pages there are others. */
  keep(start: number, end: number): void {
    const known = [...this.kept, { start: end, end, bytes: new Uint8Array(0) }];
    let at = start;
    for (const piece of known) {
      if (piece.end <= at && piece.start < end) continue;
      const stop = Math.min(piece.start, end);
      if (stop > at) this.kept.push({ start: at, end: stop, bytes: this.view().slice(at, stop) });
      at = Math.max(at, piece.end);
      if (at >= end) break;
    }
    this.kept.sort((a, b) => a.start - b.start);
  }

  /** The bytes of a range in pieces, each where it is now. */
  private each(offset: number, length: number, piece: (bytes: Uint8Array, done: number) => void): void {
    for (let done = 0; done < length; ) {
      const at = offset + done;
      const kept = this.kept.find(({ start, end }) => start <= at && at < end);
      const next = kept?.end ?? this.kept.find(({ start }) => start > at)?.start ?? Number.POSITIVE_INFINITY;
      const stop = Math.min(offset + length, next);
      const bytes =
        kept === undefined ? this.view().subarray(at, stop) : kept.bytes.subarray(at - kept.start, stop - kept.start);
      piece(bytes, done);
      done += bytes.length;
    }
  }

  release(): void {
    this.mapped.unmap();
  }

  private view(): Uint8Array {
    this.bytes ??= new Uint8Array(this.mapped.view()).subarray(this.before);
    return this.bytes;
  }
}

/**
 * Pages that only the program has (private memory). They are reached through its address space while it has them mapped; before it
 * lets go of one, `keep` takes the contents here: from then on nobody but devices can reach that page, and this copy is it.
 */
export class PrivatePages implements PageSource {
  readonly start: number;
  readonly length: number;
  private readonly memory: ProcessMemory;
  private readonly pid: number;
  private readonly onRelease: (pages: PrivatePages) => void;
  private readonly kept = new Map<number, Uint8Array>();

  constructor(
    memory: ProcessMemory,
    pid: number,
    start: number,
    length: number,
    onRelease: (pages: PrivatePages) => void,
  ) {
    this.memory = memory;
    this.pid = pid;
    this.start = start;
    this.length = length;
    this.onRelease = onRelease;
  }

  /** Takes over the pages within [start, end). */
  keep(start: number, end: number): void {
    const first = Math.max(start, this.start);
    for (let at = first - (first % PAGE); at < Math.min(end, this.start + this.length); at += PAGE) {
      const index = (at - this.start) / PAGE;
      if (this.kept.has(index)) continue;
      const page = new Uint8Array(PAGE);
      this.memory.read(this.pid, at, page);
      this.kept.set(index, page);
    }
  }

  get identity(): { readonly object: string; readonly at: number } {
    return { object: `process ${this.pid}`, at: this.start };
  }

  read(offset: number, into: Uint8Array): boolean {
    if (this.kept.size === 0) return this.memory.read(this.pid, this.start + offset, into) === into.length;
    return this.each(offset, into.length, (page, at, from, length, address) => {
      const part = into.subarray(from, from + length);
      if (page === null) return this.memory.read(this.pid, address, part) === length;
      part.set(page.subarray(at, at + length));
      return true;
    });
  }

  write(offset: number, bytes: Uint8Array): boolean {
    if (this.kept.size === 0) return this.memory.write(this.pid, this.start + offset, bytes) === bytes.length;
    return this.each(offset, bytes.length, (page, at, from, length, address) => {
      const part = bytes.subarray(from, from + length);
      if (page === null) return this.memory.write(this.pid, address, part) === length;
      page.set(part, at);
      return true;
    });
  }

  release(): void {
    this.onRelease(this);
  }

  private each(
    offset: number,
    length: number,
    piece: (page: Uint8Array | null, at: number, from: number, length: number, address: number) => boolean,
  ): boolean {
    for (let done = 0; done < length; ) {
      const at = (offset + done) % PAGE;
      const part = Math.min(PAGE - at, length - done);
      const page = this.kept.get(Math.floor((offset + done) / PAGE)) ?? null;
      if (!piece(page, at, done, part, this.start + offset + done)) return false;
      done += part;
    }
    return true;
  }
}
