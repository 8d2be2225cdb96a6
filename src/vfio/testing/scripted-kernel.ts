/** A `Kernel` whose answers a test writes down, and which keeps every request byte for byte. Only for tests. */
import type { EventFdConsumer } from '../../ports/eventfd.ts';
import type { EventFdHandle, Kernel, Mapping, Refusal, UserBuffer } from '../../ports/kernel.ts';
import { ERRNO, type ErrnoName } from '../../uapi/errno.ts';
import { type FileKind, requestName } from '../../uapi/request-name.ts';

/** Answers one request; it may write into `bytes`. A name is -errno. */
export type Answer = (bytes: Uint8Array, value: number | bigint | null) => number | ErrnoName;

interface OpenFile {
  readonly path: string;
  readonly kind: FileKind | 'eventfd';
}

export class ScriptedKernel implements Kernel {
  readonly kind = 'linux';
  readonly abi = 'linux-7.2';
  readonly pageSize: number = 4096;
  /** `open(/dev/vfio/3) = 4`, `VFIO_IOMMU_MAP_DMA 2000…`, `close(/dev/vfio/3)`, in order. */
  readonly log: string[] = [];
  readonly texts = new Map<string, string>();
  readonly links = new Map<string, string>();
  readonly lists = new Map<string, readonly string[]>();
  readonly eventfds = new Map<number, ScriptedEventFd>();
  /** What pread finds and pwrite changes, by offset. */
  readonly bytes = new Map<number, number>();
  reason: Refusal | null = null;
  /** How many eventfds can be made. */
  eventfdLimit = Number.POSITIVE_INFINITY;
  readonly #answers = new Map<string, Answer>();
  readonly #paths = new Map<string, FileKind | ErrnoName>();
  readonly #files = new Map<number, OpenFile>();
  readonly #memory = new Map<number, Uint8Array>();
  #nextFd = 3;
  #nextAddress = 0x7f00_0000_0000;

  /** Makes `path` open as a file of this kind, or fail. */
  file(path: string, kind: FileKind | ErrnoName): this {
    this.#paths.set(path, kind);
    return this;
  }

  /** `name` as in the header; without an answer a request is ENOTTY. */
  on(name: string, answer: Answer): this {
    this.#answers.set(name, answer);
    return this;
  }

  /** The file behind a new descriptor, as an answer of a request that makes one. */
  newFile(path: string, kind: FileKind): number {
    const fd = this.#nextFd++;
    this.#files.set(fd, { path, kind });
    return fd;
  }

  /** What was allocated at `address`, as a request finds it that points there. */
  memory(address: number | bigint): Uint8Array {
    const bytes = this.#memory.get(Number(address));
    if (bytes === undefined) throw new Error(`nothing was allocated at 0x${address.toString(16)}`);
    return bytes;
  }

  get openPaths(): readonly string[] {
    return [...this.#files.values()].map(({ path }) => path);
  }

  open(path: string): number {
    const kind = this.#paths.get(path) ?? 'ENOENT';
    if (kind in ERRNO) return -ERRNO[kind as ErrnoName];
    const fd = this.newFile(path, kind as FileKind);
    this.log.push(`open(${path}) = ${fd}`);
    return fd;
  }

  close(fd: number): number {
    const file = this.#files.get(fd);
    if (file === undefined) throw new Error(`descriptor ${fd} is closed twice`);
    this.#files.delete(fd);
    this.log.push(`close(${file.path})`);
    return 0;
  }

  ioctl(fd: number, request: number, argument: Uint8Array | number | bigint = 0): number {
    const file = this.#files.get(fd);
    if (file === undefined) throw new Error(`ioctl on descriptor ${fd}, which is not open`);
    const name = file.kind === 'eventfd' ? 'eventfd' : requestName(file.kind, request);
    const bytes = argument instanceof Uint8Array ? argument : new Uint8Array(0);
    this.log.push(`${name} ${argument instanceof Uint8Array ? Buffer.from(argument).toString('hex') : argument}`);
    const result = this.#answers.get(name)?.(bytes, argument instanceof Uint8Array ? null : argument) ?? 'ENOTTY';
    return typeof result === 'number' ? result : -ERRNO[result];
  }

  read(fd: number, into: Uint8Array): number {
    return this.pread(fd, into, 0);
  }

  write(fd: number, from: Uint8Array): number {
    return this.pwrite(fd, from, 0);
  }

  pread(_fd: number, into: Uint8Array, offset: number): number {
    this.log.push(`pread ${into.length} at 0x${offset.toString(16)}`);
    for (let i = 0; i < into.length; i++) into[i] = this.bytes.get(offset + i) ?? 0;
    return into.length;
  }

  pwrite(_fd: number, from: Uint8Array, offset: number): number {
    this.log.push(`pwrite ${Buffer.from(from).toString('hex')} at 0x${offset.toString(16)}`);
    for (const [i, byte] of from.entries()) this.bytes.set(offset + i, byte);
    return from.length;
  }

  mmap(_fd: number, offset: number, length: number): Mapping | number {
    this.log.push(`mmap 0x${length.toString(16)} at 0x${offset.toString(16)}`);
    return new ScriptedMapping(length, () => this.log.push('munmap'));
  }

  memfd(name: string, length: number): number {
    const fd = this.newFile(`/memfd:${name}`, 'device');
    this.log.push(`memfd(${name}, ${length}) = ${fd}`);
    return fd;
  }

  eventfd(): EventFdHandle | number {
    if (this.eventfds.size >= this.eventfdLimit) return -ERRNO.EMFILE;
    const fd = this.#nextFd++;
    this.#files.set(fd, { path: `eventfd ${fd}`, kind: 'eventfd' });
    const eventfd = new ScriptedEventFd(fd);
    this.eventfds.set(fd, eventfd);
    return eventfd;
  }

  allocate(length: number): UserBuffer | number {
    const address = this.#nextAddress;
    this.#nextAddress += length;
    const bytes = new Uint8Array(length);
    this.#memory.set(address, bytes);
    return { address, length, bytes, free: () => void this.log.push('free') };
  }

  list(path: string): readonly string[] | null {
    return this.lists.get(path) ?? null;
  }

  readText(path: string): string | null {
    return this.texts.get(path) ?? null;
  }

  readLink(path: string): string | null {
    return this.links.get(path) ?? null;
  }

  refusal(): Refusal | null {
    return this.reason;
  }

  settle(): void {}
}

export class ScriptedEventFd implements EventFdHandle {
  readonly fd: number;
  count = 0;
  readonly #watchers = new Set<() => void>();

  constructor(fd: number) {
    this.fd = fd;
  }

  get id(): number {
    return this.fd;
  }

  get watched(): boolean {
    return this.#watchers.size > 0;
  }

  signal(): void {
    this.count++;
    for (const watcher of [...this.#watchers]) watcher();
  }

  /** Raises the counter as something does that happened before anybody watched. */
  signalUnseen(): void {
    this.count++;
  }

  drain(): number {
    const { count } = this;
    this.count = 0;
    return count;
  }

  watch(watcher: () => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  onHangUp(): () => void {
    return () => {};
  }

  setConsumer(_consumer: EventFdConsumer | null): boolean {
    return false;
  }
}

class ScriptedMapping implements Mapping {
  readonly address = 0x7e00_0000_0000;
  readonly length: number;
  readonly bytes: Uint8Array;
  readonly #onUnmap: () => void;

  constructor(length: number, onUnmap: () => void) {
    this.length = length;
    this.bytes = new Uint8Array(length);
    this.#onUnmap = onUnmap;
  }

  read32(offset: number): number {
    return new DataView(this.bytes.buffer).getInt32(offset, true);
  }

  write32(offset: number, value: number): void {
    new DataView(this.bytes.buffer).setInt32(offset, value, true);
  }

  unmap(): void {
    this.#onUnmap();
  }
}
