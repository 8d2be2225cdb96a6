/** One run: the simulated host, the programs on it, and everything that its parts share. */
import type { Host } from '../kernel/boot/boot.ts';
import type { File } from '../kernel/files.ts';
import type { Libc } from '../libc/index.ts';
import { Inotify } from '../libc/inotify.ts';
import { Links } from '../libc/links.ts';
import { Pidfds } from '../libc/pidfd.ts';
import { ProcessMemory } from '../libc/process-memory.ts';
import type { SeccompListener } from '../libc/seccomp.ts';
import { ERRNO } from '../uapi/errno.ts';
import { BarMemory } from './bar-memory.ts';
import type { FdRange } from './filter.ts';
import type { ForeignProcess } from './foreign-process.ts';
import { FrameWindow } from './frame-window.ts';
import { IommufdTest } from './iommufd-mock/test-cmd.ts';
import { MappedPages } from './mapped-pages.ts';
import { isMemory, MemoryFile, objectOf } from './memory-file.ts';
import { type OpenFile, OpenFiles } from './open-files.ts';
import { ProgramEventFd, type Waiter } from './program-eventfd.ts';
import { RegisterAccess } from './register-access.ts';
import { Tracees } from './tracees.ts';
import { World } from './world.ts';

/** What the last line of a run tells. */
export interface Counts {
  calls: number;
  ioctls: number;
  opens: number;
  refused: number;
}

/** What the simulated host holds for all programs together. */
export interface Held {
  /** Open files of the simulated host, each with its last descriptor still open. */
  readonly files: number;
  readonly eventfds: number;
  /** Bytes of programs that are pinned for devices. */
  readonly pinned: number;
}

export class Session {
  readonly host: Host;
  readonly libc: Libc;
  readonly links: Links;
  readonly pidfds: Pidfds;
  readonly memory: ProcessMemory;
  readonly inotify: Inotify;
  readonly files: OpenFiles;
  readonly world: World;
  readonly tracees: Tracees;
  readonly window: FrameWindow;
  readonly bars: BarMemory;
  readonly pages: MappedPages;
  readonly registers: RegisterAccess;
  readonly counts: Counts = { calls: 0, ioctls: 0, opens: 0, refused: 0 };
  /** Paths of device nodes that were opened. */
  readonly nodes = new Set<string>();
  /** The descriptor that the call under way is on: looked up once. */
  inHand: { readonly fd: number; readonly open: OpenFile } | null = null;
  /** Called when a program has ended and what it held alone is released. */
  onEnd: (process: ForeignProcess) => void = () => {};
  /** How the next descriptor is given. */
  closeOnExec = true;
  /** The mock behind IOMMU_TEST_CMD, where it was asked for. */
  readonly iommufdTest: IommufdTest | null;
  private readonly range: FdRange;
  private readonly waiter: Waiter;
  private call: SeccompListener | null = null;
  /** By the real kernel's number. */
  private readonly eventfds = new Map<number, ProgramEventFd>();
  /** Looked up by the call under way. */
  private looked: { dropUnused(): void }[] = [];

  constructor(host: Host, libc: Libc, range: FdRange, waiter: Waiter, iommufdTest = false) {
    this.host = host;
    this.libc = libc;
    this.range = range;
    this.waiter = waiter;
    this.links = new Links(libc);
    this.pidfds = new Pidfds(libc);
    this.memory = new ProcessMemory(libc);
    this.inotify = new Inotify(libc);
    this.files = new OpenFiles(libc, this.inotify, this.links);
    this.world = new World(host.kernel.root);
    this.window = new FrameWindow(host.machine.memory);
    this.bars = new BarMemory(host, libc);
    const settle = (): void => this.settle();
    this.registers = new RegisterAccess({
      host,
      libc,
      memory: this.memory,
      files: this.files,
      bars: this.bars,
      settle,
    });
    this.files.onRelease = (open) => {
      this.bars.release(open);
      this.pages.release(open);
    };
    this.pages = new MappedPages(libc, this.files, this.window);
    this.iommufdTest = iommufdTest ? new IommufdTest(this.window, host.context.refusals, this.pages) : null;
    const { libc: c, pidfds, memory, window, bars, files } = this;
    this.tracees = new Tracees({
      libc: c,
      pidfds,
      kernel: host.kernel,
      access: { libc: c, memory, window, deviceAddress: (area) => bars.address(files.named(area.path), area.offset) },
      descriptors: {
        lookup: (process, fd) => this.lookup(process, fd),
        next: (process) => this.freeNumber(process),
        install: (process, file) => this.files.install(file, (fd) => this.give(process, fd, this.closeOnExec)),
      },
      waiter,
      onEnd: (process) => this.ended(process),
    });
  }

  /** A call is about to be served. `swept`: whatever was closed before it is released already. */
  begin(call: SeccompListener, swept: boolean): void {
    this.call = call;
    this.inHand = null;
    this.counts.calls += 1;
    // What was closed before the call is released before it is served, also when the call that woke the supervisor was another one.
    if (!swept) this.files.collect();
    this.pages.follow(() => this.tracees.pids);
  }

  /** It was served: what it looked up and did not keep is given back, and what it set off happens. */
  end(): void {
    this.call = null;
    for (const eventfd of this.looked) eventfd.dropUnused();
    this.looked = [];
    this.settle();
  }

  get held(): Held {
    return { files: this.files.size, eventfds: this.eventfds.size, pinned: this.window.pinned };
  }

  private ended(process: ForeignProcess): void {
    this.files.forgetDescriptors();
    this.files.collect();
    this.settle();
    this.onEnd(process);
  }

  settle(): void {
    this.host.machine.work.drain();
    this.bars.follow();
    this.files.followPolls();
  }

  opened(path: string, result: number): void {
    this.counts.opens += 1;
    if (result >= 0 && path.startsWith('/dev/')) this.nodes.add(path);
  }

  /** Puts a copy of `fd` into the program at one of the numbers that stop; the number, or -EMFILE. */
  give(process: ForeignProcess, fd: number, closeOnExec: boolean): number {
    if (this.call === null) return -ERRNO.EMFILE;
    this.files.forgetDescriptors();
    const at = this.freeNumber(process);
    return at < this.range.end ? this.call.inject(fd, closeOnExec, at) : -ERRNO.EMFILE;
  }

  /** The lowest of the numbers that stop which is free in the program, or Infinity. */
  private freeNumber(process: ForeignProcess): number {
    for (let at = this.range.first; at < this.range.end; at += 1) {
      if (this.links.read(`/proc/${process.tgid}/fd/${at}`) === null) return at;
    }
    return Infinity;
  }

  /** The program is about to unmap, replace or discard a range of its memory. */
  losing(call: SeccompListener, start: number, length: number): void {
    if (this.registers.tracer.active) this.registers.losing(start, length);
    this.tracees.withPins(call.pid)?.memory.aboutToLose(start, length);
  }

  /** The program is about to take [from, from + length) out of a file: pages of it that are pinned are taken over first. */
  cutting(call: SeccompListener, fd: number, from: number, length: number): void {
    if (this.window.pinned === 0) return;
    const object = objectOf(`/proc/${call.pid}/fd/${fd}`);
    if (object !== null) this.window.aboutToLose(object, from, length);
  }

  /** A descriptor of the program as the kernel's file: simulated, an eventfd, or something that is neither; null when it is not open. */
  private lookup(process: ForeignProcess, fd: number): File | null {
    if (this.inHand !== null && this.inHand.fd === fd) return this.inHand.open.file;
    const target = this.links.read(`/proc/${process.tgid}/fd/${fd}`);
    if (target === null) return null;
    const open = this.files.named(target);
    if (open !== null) return open.file;
    if (target.startsWith('/') && isMemory(`/proc/${process.tgid}/fd/${fd}`)) {
      const copy = this.pidfds.getfd(process.pidfd, fd);
      if (copy < 0) return null;
      const made = new MemoryFile(this.libc, this.window, target, copy);
      this.looked.push(made);
      return made;
    }
    if (target === 'anon_inode:[eventfd]') return this.eventfd(process, fd) ?? { name: target, release: () => {} };
    return { name: target, release: () => {} };
  }

  private eventfd(process: ForeignProcess, fd: number): ProgramEventFd | null {
    const copy = this.pidfds.getfd(process.pidfd, fd);
    if (copy < 0) return null;
    const id = this.eventfdId(copy);
    const known = this.eventfds.get(id);
    if (known !== undefined) {
      this.libc.close(copy);
      return known;
    }
    const { tap } = this.host.context;
    const made = new ProgramEventFd(id, copy, this.libc, tap, this.waiter, () => this.eventfds.delete(id));
    this.eventfds.set(id, made);
    this.looked.push(made);
    return made;
  }

  /** `eventfd-id` of /proc/self/fdinfo: the same for all descriptors of one eventfd (Linux 5.2). */
  private eventfdId(fd: number): number {
    const info = this.libc.open(`/proc/self/fdinfo/${fd}`, 0);
    const bytes = new Uint8Array(512);
    const length = this.libc.read(info, bytes);
    this.libc.close(info);
    const text = Buffer.from(bytes.buffer, 0, Math.max(0, length)).toString('latin1');
    return Number(/eventfd-id:\s*(\d+)/.exec(text)?.[1] ?? -1 - fd);
  }
}
