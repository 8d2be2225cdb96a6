/** What a case works with: the kernel, what is expected of each call, and everything that must be closed when it ends. */
import { errnoName } from 'belfry/uapi';

/** Bytes as hexadecimal text, bigints as text, structures inside out: as JSON holds them. */
export function plain(value) {
  if (typeof value === 'bigint') return `0x${value.toString(16)}`;
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]));
}

export class Subject {
  /** @param advance lets a simulated device's time go on by 20 ms; nothing on real Linux */
  constructor(kernel, platform, { advance = () => {} } = {}) {
    this.kernel = kernel;
    this.platform = platform;
    this.window = platform.window;
    this.steps = [];
    this.advance = advance;
    this.undo = [];
  }

  has(feature) {
    return this.platform.features.includes(feature);
  }

  /** A system call's result: a number that is expected, or the name of an errno. Returns the result. */
  result(what, result, expected) {
    this.same(what, result < 0 ? errnoName(result) : result, expected);
    return result;
  }

  /** A system call that must give a descriptor; it is closed when the case ends. @throws Error when it gives none */
  descriptor(what, result) {
    if (result < 0) throw new Error(`${what}: ${errnoName(result)}`);
    this.undo.push(Object.assign(() => this.kernel.close(result), { fd: result }));
    return result;
  }

  /** A system call that is part of the set-up. @throws Error when it fails */
  must(what, result) {
    if (result < 0) throw new Error(`${what}: ${errnoName(result)}`);
    return result;
  }

  /** What is expected of anything else: a number, a text, a structure of those. */
  same(what, got, expected) {
    this.steps.push({ what, expected: plain(expected), got: plain(got) });
  }

  /** A request with a struct: its errno, or 0 and then the named fields of what was written back. */
  request(what, fd, number, struct, fields, expected) {
    const bytes = struct.bytes(fields);
    const result = this.kernel.ioctl(fd, number, bytes);
    const answer = struct.read(bytes);
    if (typeof expected === 'object') {
      const shown = Object.fromEntries(Object.keys(expected).map((name) => [name, answer[name]]));
      this.same(what, result < 0 ? errnoName(result) : shown, expected);
    } else this.result(what, result, expected);
    return answer;
  }

  /** Opens a path; closed when the case ends. */
  open(path, mode = 'rw') {
    return this.descriptor(`open ${path}`, this.kernel.open(path, mode));
  }

  /** Closes before the case ends. */
  close(fd) {
    this.undo = this.undo.filter((each) => each.fd !== fd);
    return this.kernel.close(fd);
  }

  /** Zeroed memory of this process; freed when the case ends. */
  memory(length, alignment = 4096) {
    const memory = this.kernel.allocate(length, alignment);
    if (typeof memory === 'number') throw new Error(`allocate ${length}: ${errnoName(memory)}`);
    this.undo.push(() => memory.free());
    return memory;
  }

  eventfd(initial = 0) {
    const eventfd = this.kernel.eventfd(initial);
    if (typeof eventfd === 'number') throw new Error(`eventfd: ${errnoName(eventfd)}`);
    this.undo.push(() => this.kernel.close(eventfd.fd));
    return eventfd;
  }

  mmap(fd, offset, length, access = 'rw') {
    const mapping = this.kernel.mmap(fd, offset, length, access);
    if (typeof mapping === 'number') throw new Error(`mmap: ${errnoName(mapping)}`);
    this.undo.push(() => mapping.unmap());
    return mapping;
  }

  /** Runs when the case ends, last in, first out. */
  after(run) {
    this.undo.push(run);
  }

  /** How often an eventfd was signalled: waits until the expected number is there, and a little for one too many. */
  async events(what, eventfd, expected) {
    let count = 0;
    const longest = expected === 0 ? 60 : 1000;
    for (let waited = 0; waited <= longest && (count < expected || expected === 0); waited += 10) {
      await this.step();
      count += eventfd.drain();
    }
    if (expected > 0) {
      await this.step();
      count += eventfd.drain();
    }
    this.same(what, count, expected);
  }

  /** Lets a simulated host do what is due, and gives real hardware 10 ms. */
  async step() {
    this.advance();
    this.kernel.settle();
    if (this.kernel.kind === 'linux') await new Promise((resolve) => setTimeout(resolve, 10));
  }

  end() {
    for (const run of this.undo.reverse()) run();
    this.undo = [];
  }
}
