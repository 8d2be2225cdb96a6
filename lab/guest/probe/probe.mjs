/** What every part of the probe uses: calls whose results are recorded under a name, one JSON line each. */
import { errnoName } from 'belfry/uapi';

export class Probe {
  constructor(kernel, write, advance) {
    this.kernel = kernel;
    this.write = write;
    this.advance = advance;
    this.prefix = '';
    this.names = new Map();
  }

  /** Names repeat when a call is made again: they are numbered. */
  note(name, value) {
    const whole = `${this.prefix}${name}`;
    const times = (this.names.get(whole) ?? 0) + 1;
    this.names.set(whole, times);
    this.write(JSON.stringify({ name: times === 1 ? whole : `${whole} (${times})`, value }));
    return value;
  }

  /** A system call's result: the number, or the errno's name. */
  result(name, number) {
    this.note(name, number < 0 ? errnoName(number) : number);
    return number;
  }

  /** A result that is a descriptor when it succeeds. */
  descriptor(name, number) {
    this.note(name, number < 0 ? errnoName(number) : 'fd');
    return number;
  }

  ioctl(name, fd, request, argument) {
    return this.result(name, this.kernel.ioctl(fd, request, argument));
  }

  /** A request whose answer is read with `read(bytes)` when it succeeds. */
  ask(name, fd, request, bytes, read) {
    const result = this.kernel.ioctl(fd, request, bytes);
    const value = result < 0 ? errnoName(result) : plain(read(bytes));
    this.note(name, value);
    return result;
  }

  pread(name, fd, offset, length, show = hexBytes) {
    const bytes = new Uint8Array(length);
    const result = this.kernel.pread(fd, bytes, offset);
    this.note(name, result < 0 ? errnoName(result) : { read: result, bytes: show(bytes.subarray(0, result)) });
    return bytes;
  }

  /** A file without places: an event queue. */
  read(name, fd, length) {
    const bytes = new Uint8Array(length);
    const result = this.kernel.read(fd, bytes);
    this.note(name, result < 0 ? errnoName(result) : { read: result, bytes: hexBytes(bytes.subarray(0, result)) });
  }

  pwrite(name, fd, offset, bytes) {
    return this.result(name, this.kernel.pwrite(fd, Uint8Array.from(bytes), offset));
  }

  eventfd() {
    const eventfd = this.kernel.eventfd();
    if (typeof eventfd === 'number') throw new Error(`eventfd: ${errnoName(eventfd)}`);
    return eventfd;
  }

  /** A simulated host has done all there is to do when it has settled. */
  patience(longest) {
    return this.kernel.kind === 'sim' ? 0 : longest;
  }

  /** What arrives within a while: real interrupts take a while, simulated ones a step. */
  async arrived(name, eventfd, patience = 500) {
    this.note(name, await this.wait(eventfd, patience));
  }

  async wait(eventfd, longest) {
    const patience = this.patience(longest);
    for (let waited = 0; ; waited += 5) {
      this.kernel.settle();
      const count = eventfd.drain();
      if (count > 0 || waited >= patience) return count;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** Runs a part with its name before each of its notes. What it throws is a finding too. */
  async part(name, run) {
    const outside = this.prefix;
    this.prefix = `${outside}${name}: `;
    try {
      await run();
    } catch (error) {
      this.note('threw', String(error.message));
    }
    this.prefix = outside;
  }
}

export const hexBytes = (bytes) => Buffer.from(bytes).toString('hex');
export const hex = (value) => `0x${value.toString(16)}`;

/** Values as JSON can hold them: numbers that may be large as hexadecimal text. */
export function plain(value) {
  if (typeof value === 'bigint') return hex(value);
  if (value instanceof Uint8Array) return hexBytes(value);
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]));
}
