/**
 * Runs programs of plain data on a kernel, simulated or real, and says what each call answered. It depends on belfry alone: the same file is put into the lab's guest.
 *
 * A program is a list of calls, `Call` below. Names stand for what differs between two kernels or two runs: descriptors, addresses, the numbers of groups.
 *
 * @typedef {{
 *   op: 'open' | 'close' | 'ioctl' | 'pread' | 'pwrite' | 'read' | 'write' | 'signal',
 *   fd?: string,          a name: `c0`, `g-edu`; a call on a name that is not open is not made
 *   path?: string,        open: `container`, `iommufd`, `group edu`, `cdev edu`
 *   as?: string,          the name of the descriptor that the call gives
 *   request?: string,     ioctl: its name in belfry/uapi, or a number
 *   value?: unknown,      ioctl: an argument that is passed by value
 *   struct?: string,      ioctl: or the struct that is pointed to,
 *   fields?: object,      with these fields,
 *   tail?: unknown[] | string,   behind it words of 32 bits (64 for `0x…` and `mem …`), or bytes in hexadecimal,
 *   raw?: [number, number][],    and then these bytes, each with its offset
 *   poke?: [number, string],     before the call: bytes into this process's memory
 *   peek?: [number, number],     after it: offset and length of memory that is shown
 *   keep?: [string, string],     kind and field of an object's id that is written back
 *   masked?: string[],    fields that are written back and are different each time
 *   offset?: number, length?: number, bytes?: string,
 * }} Call
 *
 * A value is a number; `0x…` for what a double cannot hold; `fd NAME`; `mem OFFSET`; `id KIND N`, the N-th object of a kind; `name MODEL`, a PCI address.
 */
import * as u from 'belfry/uapi';

/** By name. */
const UAPI = { ...u };
export const MODELS = { edu: '0x1234:0x11e8', nvme: '0x1b36:0x0010', igb: '0x8086:0x10c9' };
/** Bytes of memory that programs may name, aligned as huge pages are. The first 64 KiB are for what structs point to. */
export const MEMORY = 0x10_0000;
export const NO_FD = 9999;
export const NO_ID = 0x7777;
const ROOM = 512;
const DATA = 0x1_0000;
const CONFIG = u.VFIO_PCI_CONFIG_REGION_INDEX * 2 ** 40;

export class Executor {
  constructor(kernel) {
    this.kernel = kernel;
    this.places = places(kernel);
    const memory = kernel.allocate(MEMORY, 0x20_0000);
    if (typeof memory === 'number') throw new Error(`allocate: ${u.errnoName(memory)}`);
    this.memory = memory;
    this.calls = 0;
    /** Called with each call before it is made. */
    this.before = () => {};
    this.begin();
  }

  begin() {
    this.open = new Map();
    this.eventfds = new Map();
    this.ids = new Map();
    this.placed = new Set();
    this.memory.bytes.fill(0, 0, DATA);
  }

  end() {
    this.memory.free();
  }

  /** What each call answered; null for one that was not made. Everything that the program opened is closed behind it, the last first. */
  run(program) {
    const answers = program.map((call) => this.call(call));
    for (const name of [...this.open.keys()].reverse()) this.close(name);
    for (const { fd } of this.eventfds.values()) this.kernel.close(fd);
    this.kernel.settle();
    this.begin();
    return answers;
  }

  call(call) {
    this.before(call);
    const made = this.make(call);
    if (made === null) return null;
    this.calls += 1;
    this.kernel.settle();
    const signalled = [...this.eventfds].map(([name, each]) => [name, each.drain()]).filter(([, count]) => count > 0);
    return [made, ...signalled.map(([name, count]) => `${name}=${count}`)].join(' ');
  }

  make(call) {
    if (call.op === 'open') return this.opened(call);
    if (call.op === 'signal') return this.signal(call);
    const fd = this.open.get(call.fd);
    if (fd === undefined) return null;
    if (call.op === 'close') return shown(this.close(call.fd));
    if (call.op === 'ioctl') return this.ioctl(fd, call);
    return this.transfer(fd, call);
  }

  opened({ path, as }) {
    if (this.open.has(as)) return null;
    const result = this.kernel.open(this.path(path));
    return this.descriptor(as, result);
  }

  descriptor(name, result) {
    if (result < 0) return shown(result);
    if (this.open.has(name)) this.kernel.close(result);
    else this.open.set(name, result);
    return 'fd';
  }

  close(name) {
    const fd = this.open.get(name);
    this.open.delete(name);
    this.placed.delete(fd);
    return this.kernel.close(fd);
  }

  path(words) {
    const [kind, model] = words.split(' ');
    if (kind === 'container') return '/dev/vfio/vfio';
    if (kind === 'iommufd') return '/dev/iommu';
    const { group, node } = this.places[model];
    return kind === 'group' ? `/dev/vfio/${group}` : `/dev/vfio/devices/${node}`;
  }

  eventfd(name) {
    if (!this.eventfds.has(name)) {
      const made = this.kernel.eventfd();
      if (typeof made === 'number') throw new Error(`eventfd: ${u.errnoName(made)}`);
      this.eventfds.set(name, made);
    }
    return this.eventfds.get(name);
  }

  /** By the descriptor, as anybody does who has it. */
  signal({ fd, bytes }) {
    return shown(this.kernel.write(this.eventfd(fd).fd, fromHex(bytes)));
  }

  transfer(fd, { op, offset = 0, length = 0, bytes = '' }) {
    const buffer = op.endsWith('write') ? fromHex(bytes) : new Uint8Array(length);
    if (offset >= CONFIG && offset < CONFIG + 0x40) this.placeBars(fd);
    if (op === 'write') return shown(this.kernel.write(fd, buffer));
    if (op === 'pwrite') return shown(this.kernel.pwrite(fd, buffer, offset));
    const result = op === 'read' ? this.kernel.read(fd, buffer) : this.kernel.pread(fd, buffer, offset);
    return result > 0 ? `${result} ${hex(buffer.subarray(0, result))}` : shown(result);
  }

  /** The base addresses, INTERRUPT_LINE and COMMAND begin with what the host's firmware left, which is different on each: zeroed before they are seen first. */
  placeBars(fd) {
    if (this.placed.has(fd)) return;
    const done = this.kernel.pwrite(fd, new Uint8Array(24), CONFIG + 0x10);
    if (done < 0) return;
    this.kernel.pwrite(fd, new Uint8Array(4), CONFIG + 0x30);
    this.kernel.pwrite(fd, new Uint8Array(1), CONFIG + 0x3c);
    this.kernel.pwrite(fd, new Uint8Array(2), CONFIG + 0x04);
    this.placed.add(fd);
  }

  ioctl(fd, call) {
    const request = UAPI[call.request] ?? Number(call.request);
    if (call.struct === undefined && call.tail === undefined)
      return this.finished(call, this.kernel.ioctl(fd, request, this.value(call.value ?? 0)), null, null);
    if (call.poke !== undefined) this.memory.bytes.set(fromHex(call.poke[1]), call.poke[0]);
    const bytes = this.argument(call);
    const before = bytes.slice();
    return this.finished(call, this.kernel.ioctl(fd, request, bytes), bytes, before);
  }

  argument({ struct, fields = {}, tail = [], raw = [] }) {
    const bytes = new Uint8Array(ROOM);
    const values = Object.entries(fields).map(([name, value]) => [name, this.value(value)]);
    if (struct !== undefined) UAPI[struct].patch(bytes, Object.fromEntries(values));
    const size = struct === undefined ? 0 : UAPI[struct].size;
    const behind = typeof tail === 'string' ? fromHex(tail) : this.words(tail);
    bytes.set(behind.subarray(0, ROOM - size), size);
    for (const [offset, value] of raw) bytes[offset] = value;
    return bytes;
  }

  words(values) {
    if (typeof values[0] === 'string' && values[0].startsWith('name ')) return this.text(values[0]);
    const wide = (value) => typeof value === 'string' && /^(0x|mem )/.test(value);
    const parts = values.map((value) =>
      wide(value)
        ? new Uint8Array(BigUint64Array.of(BigInt(this.value(value))).buffer)
        : new Uint8Array(Int32Array.of(this.value(value)).buffer),
    );
    return new Uint8Array(Buffer.concat(parts));
  }

  text(value) {
    return new TextEncoder().encode(`${this.places[value.slice(5)].name}\0`);
  }

  value(value) {
    if (typeof value === 'number') return value;
    if (value.startsWith('0x')) return BigInt(value);
    const [kind, what, number] = value.split(' ');
    if (kind === 'mem') return this.memory.address + Number(what);
    if (kind === 'id') {
      const ids = this.ids.get(what) ?? [];
      return ids[number % ids.length] ?? NO_ID;
    }
    if (/^e\d/.test(what)) return this.eventfd(what).fd;
    return this.open.get(what) ?? NO_FD;
  }

  finished(call, result, bytes, before) {
    if (call.as !== undefined && result >= 0 && bytes !== null && call.masked === undefined)
      return this.descriptor(call.as, result);
    const answer = [
      call.as !== undefined && result >= 0 && bytes === null ? this.descriptor(call.as, result) : shown(result),
    ];
    if (bytes !== null) {
      if (result >= 0) this.remember(call, bytes);
      for (const field of call.masked ?? []) mask(call.struct, field, bytes, before);
      answer.push(...changes(before, bytes));
    }
    if (call.peek !== undefined) {
      const [at, length] = call.peek;
      answer.push(`[${trimmed(hex(this.memory.bytes.subarray(at, at + length)))}]`);
    }
    return answer.join(' ');
  }

  remember(call, bytes) {
    const struct = UAPI[call.struct];
    if (call.keep !== undefined) {
      const [kind, field] = call.keep;
      if (!this.ids.has(kind)) this.ids.set(kind, []);
      this.ids.get(kind).push(struct.get(bytes, field));
    }
    if (call.as !== undefined && call.masked !== undefined) this.descriptor(call.as, struct.get(bytes, call.masked[0]));
  }
}

/** Name, group and cdev of each device. */
function places(kernel) {
  const root = '/sys/bus/pci/devices';
  const read = (name, file) => kernel.readText(`${root}/${name}/${file}`)?.trim();
  const names = kernel.list(root) ?? [];
  return Object.fromEntries(
    Object.entries(MODELS).map(([model, id]) => {
      const name = names.find((each) => `${read(each, 'vendor')}:${read(each, 'device')}` === id);
      if (name === undefined) throw new Error(`no device ${id}`);
      const group = kernel.readLink(`${root}/${name}/iommu_group`).split('/').at(-1);
      return [model, { name, group, node: kernel.list(`${root}/${name}/vfio-dev`)?.[0] }];
    }),
  );
}

/** Where MSIs are not isolated, VFIO takes the machine only when it is told to. */
export function allowUnsafe(kernel) {
  for (const module of ['vfio_iommu_type1', 'iommufd']) {
    const fd = kernel.open(`/sys/module/${module}/parameters/allow_unsafe_interrupts`, 'rw');
    if (fd < 0) continue;
    kernel.write(fd, new TextEncoder().encode('Y\n'));
    kernel.close(fd);
  }
}

const shown = (result) => (result < 0 ? u.errnoName(result) : `${result}`);
const hex = (bytes) => Buffer.from(bytes).toString('hex');
const fromHex = (text) => Uint8Array.from(Buffer.from(text, 'hex'));
const trimmed = (text) => text.replace(/(00)+$/, '');

/** What was written back: runs of bytes that changed, each with its offset. */
function changes(before, after) {
  const runs = [];
  for (let at = 0; at < after.length; at++) {
    if (before[at] === after[at]) continue;
    let end = at + 1;
    while (end < after.length && before[end] !== after[end]) end += 1;
    runs.push(`${at}:${hex(after.subarray(at, end))}`);
    at = end;
  }
  return runs;
}

function mask(struct, field, bytes, before) {
  const [from, to] = [UAPI[struct].offsetOf(field), UAPI[struct].endOf(field)];
  bytes.set(before.subarray(from, to), from);
}
