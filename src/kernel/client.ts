/** The Kernel port for one process of the same program: structs go through a scratch mapping of that process and back. */
import type { EventFdConsumer } from '../ports/eventfd.ts';
import type { EventFdHandle, Kernel, Mapping, Refusal, UserBuffer } from '../ports/kernel.ts';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC } from '../uapi/memfd.ts';
import { ClientBuffer, ClientMapping } from './client-mapping.ts';
import type { EventFdContext } from './files.ts';
import type { LocalProcess, SimKernel } from './kernel.ts';
import type { OpenMode } from './syscalls.ts';
import { lookup } from './sysfs/lookup.ts';
import { contents } from './sysfs/text-file.ts';

export class SimKernelClient implements Kernel {
  readonly kind = 'sim';
  readonly kernel: SimKernel;
  readonly process: LocalProcess;
  private readonly scratch: Scratch;
  private refused: Refusal | null = null;

  constructor(kernel: SimKernel, process: LocalProcess = kernel.createProcess()) {
    this.kernel = kernel;
    this.process = process;
    this.scratch = new Scratch(process, kernel.context.pageSize);
  }

  get abi(): 'linux-7.2' | 'belfry' {
    return this.kernel.context.abi;
  }

  get pageSize(): number {
    return this.kernel.context.pageSize;
  }

  open(path: string, mode: OpenMode = 'rw'): number {
    return this.done(this.kernel.syscalls.open(this.process, path, mode));
  }

  close(fd: number): number {
    return this.done(this.kernel.syscalls.close(this.process, fd));
  }

  /** @throws TypeError for a number that is no integer. */
  ioctl(fd: number, request: number, argument: Uint8Array | number | bigint = 0): number {
    const { syscalls } = this.kernel;
    if (!(argument instanceof Uint8Array)) {
      return this.done(syscalls.ioctl(this.process, fd, request, integer(argument)));
    }
    return this.through(argument, true, (address) => syscalls.ioctl(this.process, fd, request, BigInt(address)));
  }

  read(fd: number, into: Uint8Array): number {
    return this.pread(fd, into, 0);
  }

  write(fd: number, from: Uint8Array): number {
    return this.pwrite(fd, from, 0);
  }

  /** @throws RangeError for an offset that is no integer */
  pread(fd: number, into: Uint8Array, offset: number): number {
    assertInteger('offset', offset);
    return this.through(into, true, (address) =>
      this.kernel.syscalls.read(this.process, fd, address, into.length, offset),
    );
  }

  /** @throws RangeError for an offset that is no integer */
  pwrite(fd: number, from: Uint8Array, offset: number): number {
    assertInteger('offset', offset);
    return this.through(from, false, (address) =>
      this.kernel.syscalls.write(this.process, fd, address, from.length, offset),
    );
  }

  /** @throws RangeError for an offset or a length that is no integer */
  mmap(fd: number, offset: number, length: number, access: 'r' | 'rw' = 'rw'): Mapping | number {
    assertInteger('offset', offset);
    assertInteger('length', length);
    const placed = this.kernel.syscalls.mmap(this.process, fd, offset, length, access === 'rw');
    if (typeof placed === 'number') return this.done(placed);
    this.done(0);
    return new ClientMapping(this.process, placed, length, access === 'rw');
  }

  /** @throws RangeError for a length that is no integer from 0 to 2^52 */
  memfd(name: string, length: number): number {
    if (!(Number.isInteger(length) && length >= 0 && length <= 2 ** 52))
      throw new RangeError(`length ${length}: expected an integer from 0 to 2^52`);
    const { syscalls } = this.kernel;
    const fd = this.done(syscalls.memfdCreate(this.process, name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (fd >= 0) this.done(syscalls.ftruncate(this.process, fd, length));
    return fd;
  }

  /** @throws RangeError for a count that does not fit into 32 bits */
  eventfd(initial = 0): EventFdHandle | number {
    if (initial !== initial >>> 0) throw new RangeError(`count ${initial}: expected an integer from 0 to 2^32 - 1`);
    const fd = this.done(this.kernel.syscalls.eventfd(this.process, initial));
    const eventfd = fd < 0 ? undefined : this.process.file(fd)?.eventfd;
    return eventfd === undefined ? fd : new ClientEventFd(fd, eventfd);
  }

  allocate(length: number, alignment = this.pageSize): UserBuffer | number {
    if (!(length > 0) || !Number.isSafeInteger(length))
      throw new RangeError(`length ${length}: expected a positive integer`);
    if (!(alignment >= 1) || !Number.isInteger(Math.log2(alignment)))
      throw new RangeError(`alignment ${alignment}: expected a power of two`);
    const { refusals } = this.kernel.context;
    refusals.last = null;
    refusals.request = 'mmap';
    const address = this.process.memory.allocate(length, Math.max(alignment, this.pageSize));
    if (address >= 0) return new ClientBuffer(this.process, address, length);
    return this.done(
      refusals.refuse('ENOMEM', `the machine has no ${length} bytes of contiguous memory left`, 'length'),
    );
  }

  list(path: string): readonly string[] | null {
    const found = lookup(this.kernel.root, path);
    return found?.node.kind === 'directory' ? found.node.names() : null;
  }

  readText(path: string): string | null {
    const node = lookup(this.kernel.root, path)?.node;
    const value = node?.kind === 'file' ? node.read?.() : undefined;
    return value === undefined ? null : new TextDecoder('latin1').decode(contents(value));
  }

  readLink(path: string): string | null {
    const node = lookup(this.kernel.root, path, false)?.node;
    return node?.kind === 'link' ? node.target : null;
  }

  refusal(): Refusal | null {
    return this.refused;
  }

  settle(): void {
    this.kernel.context.work.drain();
  }

  /** Remembers why, for this process alone. */
  private done(result: number): number {
    this.refused = this.kernel.context.refusals.last;
    return result;
  }

  private through(bytes: Uint8Array, back: boolean, call: (address: number) => number): number {
    const address = this.scratch.take(bytes.length);
    if (address < 0) return address;
    this.process.memory.copyOut(address, bytes);
    const result = this.done(call(address));
    if (back && !this.process.exited) this.process.memory.copyIn(address, bytes);
    return result;
  }
}

/** The mapping that arguments go through. They end where it ends, so that a request that reads behind its struct faults. */
class Scratch {
  private readonly process: LocalProcess;
  private readonly pageSize: number;
  private address = 0;
  private length = 0;

  constructor(process: LocalProcess, pageSize: number) {
    this.process = process;
    this.pageSize = pageSize;
  }

  /** The address for `size` bytes, or -ENOMEM. */
  take(size: number): number {
    if (size > this.length || this.length === 0) {
      const length = Math.max(this.pageSize, 2 ** Math.ceil(Math.log2(Math.max(size, 1))));
      const address = this.process.memory.allocate(length);
      if (address < 0) return address;
      if (this.length > 0) this.process.memory.unmap(this.address);
      this.address = address;
      this.length = length;
    }
    return this.address + this.length - size;
  }
}

/** A descriptor's side of an eventfd: signalling it is user space's write. */
class ClientEventFd implements EventFdHandle {
  readonly fd: number;
  private readonly eventfd: EventFdContext;

  constructor(fd: number, eventfd: EventFdContext) {
    this.fd = fd;
    this.eventfd = eventfd;
  }

  get id(): number {
    return this.eventfd.id;
  }

  get count(): number {
    return this.eventfd.count;
  }

  signal(): void {
    this.eventfd.add(1);
  }

  drain(): number {
    return this.eventfd.drain();
  }

  watch(watcher: () => void): () => void {
    return this.eventfd.watch(watcher);
  }

  onHangUp(watcher: () => void): () => void {
    return this.eventfd.onHangUp(watcher);
  }

  setConsumer(consumer: EventFdConsumer | null): boolean {
    return this.eventfd.setConsumer(consumer);
  }
}

function assertInteger(name: string, value: number): void {
  if (!Number.isInteger(value)) throw new RangeError(`${name} ${value}: expected an integer`);
}

function integer(value: number | bigint): bigint {
  if (typeof value === 'bigint') return value;
  if (!Number.isInteger(value)) throw new TypeError(`argument ${value}: expected an integer`);
  return BigInt(value);
}
