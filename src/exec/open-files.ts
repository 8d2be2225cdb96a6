/**
 * What a program holds in place of a simulated open file: an open memfd of its own, whose name says which file it stands for, or a pipe where it may
 * wait for the file. The real kernel follows dup, fork, exec, close, passing over sockets and death; /proc shows the name behind any descriptor, and
 * inotify tells when the last one is gone.
 */
import { randomBytes } from 'node:crypto';
import { type File, fget, fput } from '../kernel/files.ts';
import { type Libc, O_RDWR } from '../libc/index.ts';
import { IN_CLOSE, type Inotify } from '../libc/inotify.ts';
import type { Links } from '../libc/links.ts';
import { PollPipe } from './poll-pipe.ts';

const EPOLLOUT = 4;

export interface OpenFile {
  readonly id: number;
  readonly file: File;
  /** The path that was opened, or what the kernel calls the file. */
  readonly name: string;
  /** Another open file of the stand-in, which the program does not have; -1 where none is needed. */
  readonly backing: number;
  /** Where the next read or write without an offset happens. */
  position: number;
}

/** A stand-in that is about to be given. */
interface StandIn {
  readonly fd: number;
  readonly backing: number;
  readonly pipe: PollPipe | null;
}

interface Polled {
  readonly open: OpenFile;
  readonly pipe: PollPipe;
  readonly link: string;
}

export class OpenFiles {
  private readonly libc: Libc;
  private readonly inotify: Inotify;
  private readonly links: Links;
  private readonly mark = `belfry-${randomBytes(4).toString('hex')}:`;
  private readonly pattern = new RegExp(`^/memfd:${this.mark}(\\d+) `);
  private readonly byId = new Map<number, OpenFile>();
  private readonly byWatch = new Map<number, OpenFile>();
  /** Those that programs wait for, by what /proc calls their stand-in. */
  private readonly byLink = new Map<string, Polled>();
  /** By thread and descriptor. */
  private readonly remembered = new Map<number, OpenFile>();
  /** Called when a file is about to be released. */
  onRelease: (open: OpenFile) => void = () => {};
  private nextId = 1;

  constructor(libc: Libc, inotify: Inotify, links: Links) {
    this.libc = libc;
    this.inotify = inotify;
    this.links = links;
  }

  get size(): number {
    return this.byId.size;
  }

  /**
   * Makes the stand-in and lets `give` put it into the program. What `give` answers: a descriptor, or -errno, and then nothing is left of it.
   * The file gains a reference that ends with the program's last descriptor.
   */
  install(file: File, give: (fd: number) => number): number {
    this.forgetDescriptors();
    const id = this.nextId;
    this.nextId += 1;
    // What a program maps has bytes, and is ready whenever it looks.
    const waits = file.poll !== undefined && file.mmap === undefined;
    const made = waits ? this.pipe(file) : this.memfd(file, id);
    if (typeof made === 'number') return made;
    const { fd, backing, pipe } = made;
    const watch = this.inotify.watch(`/proc/self/fd/${fd}`, IN_CLOSE);
    const link = this.links.read(`/proc/self/fd/${fd}`);
    const given = watch < 0 ? watch : give(fd);
    if (given >= 0) {
      const open: OpenFile = { id, file, name: file.name, backing, position: 0 };
      fget(file);
      this.byId.set(id, open);
      this.byWatch.set(watch, open);
      if (pipe !== null && link !== null) this.byLink.set(link, { open, pipe, link });
    } else {
      if (watch >= 0) this.inotify.forget(watch);
      if (backing >= 0) this.libc.close(backing);
    }
    this.libc.close(fd);
    return given;
  }

  /** Programs that wait for a file find it as its poll says now. */
  followPolls(): void {
    for (const { open, pipe } of this.byLink.values()) pipe.follow(open.file.poll?.() ?? 0);
  }

  private memfd(file: File, id: number): StandIn | number {
    const created = this.libc.memfd(`${this.mark}${id}`, 0);
    if (created < 0) return created;
    // An open file of its own: the first one came without the notification of its close.
    const fd = this.libc.open(`/proc/self/fd/${created}`, O_RDWR);
    // Programs map what lies in the stand-in: BARs of a device, pages of an iommufd's drivers.
    const mappable = file.kind === 'device' || file.kind === 'iommufd';
    const backing = mappable && fd >= 0 ? created : -1;
    if (backing < 0) this.libc.close(created);
    return fd < 0 ? fd : { fd, backing, pipe: null };
  }

  private pipe(file: File): StandIn | number {
    const pipe = PollPipe.open(this.libc, ((file.poll?.() ?? 0) & EPOLLOUT) !== 0);
    return typeof pipe === 'number' ? pipe : { fd: pipe.fd, backing: pipe.backing, pipe };
  }

  /** The simulated file behind a descriptor of a thread, or null. Remembered until `forgetDescriptors`. */
  resolve(pid: number, fd: number): OpenFile | null {
    const key = pid * 0x1_0000 + fd;
    const known = this.remembered.get(key);
    if (known !== undefined) return known;
    const found = this.lookUp(pid, fd);
    if (found !== null && fd >= 0 && fd < 0x1_0000) this.remembered.set(key, found);
    return found;
  }

  /** A descriptor may stand for something else from now on: one was closed, given, or replaced, or a process ended. */
  forgetDescriptors(): void {
    this.remembered.clear();
  }

  private lookUp(pid: number, fd: number): OpenFile | null {
    const target = this.links.read(`/proc/${pid}/fd/${fd}`);
    return target === null ? null : this.named(target);
  }

  /** The file that a path of /proc (a descriptor's target, a mapping's) stands for, or null. */
  named(path: string): OpenFile | null {
    if (path.startsWith('pipe:')) return this.byLink.get(path)?.open ?? null;
    const found = this.pattern.exec(path);
    return found === null ? null : (this.byId.get(Number(found[1])) ?? null);
  }

  /** What stands for a simulated file, or null: no program has it open. */
  of(file: File): OpenFile | null {
    for (const open of this.byId.values()) if (open.file === file) return open;
    return null;
  }

  /** Releases what no program holds any more, in the order in which it was let go. How many. */
  collect(): number {
    let count = 0;
    this.inotify.drain((watch) => {
      const open = this.byWatch.get(watch);
      if (open === undefined) return;
      this.forget(watch, open);
      count += 1;
    });
    return count;
  }

  /** At the end: everything that is still held is released, the oldest first. */
  releaseAll(): void {
    for (const [watch, open] of [...this.byWatch]) this.forget(watch, open);
  }

  private forget(watch: number, open: OpenFile): void {
    this.byWatch.delete(watch);
    this.forgetDescriptors();
    this.byId.delete(open.id);
    for (const polled of this.byLink.values()) if (polled.open === open) this.byLink.delete(polled.link);
    this.inotify.forget(watch);
    this.onRelease(open);
    if (open.backing >= 0) this.libc.close(open.backing);
    fput(open.file);
  }
}
