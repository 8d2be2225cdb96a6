/** A small NVMe driver for tests, written from the specification: it knows nothing of the model but its registers. */
import type { PciFunction, Registers } from '../../ports/pci.ts';
import { NvmeDrive, type NvmeDriveParts } from '../nvme/drive.ts';
import type { DeviceOptions } from '../options.ts';
import { carry } from './port.ts';

export interface Entry {
  readonly opcode: number;
  readonly nsid?: number;
  readonly flags?: number;
  readonly id?: number;
  readonly prp1?: number;
  readonly prp2?: number;
  /** Words 10 to 15. */
  readonly words?: readonly number[];
}

export interface Completion {
  readonly id: number;
  /** Type and code, without DNR and M. */
  readonly status: number;
  readonly dnr: boolean;
  readonly result: number;
  readonly head: number;
  readonly queue: number;
}

interface Ring {
  readonly base: number;
  readonly size: number;
  at: number;
}

const MEMORY = 0x8_0000;
export const BUFFER = 0x1_0000;
const ADMIN_ENTRIES = 16;
/** Enabled, 64- and 16-byte entries, pages of 4 KiB. */
export const CC_ENABLE = 0x0046_0001;

export function nvmeDriver<T extends PciFunction & Registers>(drive: T) {
  const rig = carry(drive, MEMORY);
  const view = new DataView(rig.memory.buffer);
  const submissions = new Map<number, Ring>();
  const completions = new Map<number, Ring & { phase: number }>();
  let nextId = 1;

  const read32 = (offset: number): number => drive.read(offset, 4) >>> 0;
  const write32 = (offset: number, value: number): void => drive.write(offset, 4, value);

  const enable = (cc = CC_ENABLE): void => {
    rig.memory.fill(0, 0x1000, 0x3000);
    submissions.clear();
    completions.clear();
    submissions.set(0, { base: 0x1000, size: ADMIN_ENTRIES, at: 0 });
    completions.set(0, { base: 0x2000, size: ADMIN_ENTRIES, at: 0, phase: 1 });
    write32(0x24, (ADMIN_ENTRIES - 1) * 0x1_0001);
    write32(0x28, 0x1000);
    write32(0x2c, 0);
    write32(0x30, 0x2000);
    write32(0x34, 0);
    write32(0x14, cc);
  };

  /** Puts a command into a queue without telling the drive. Returns its id. */
  const put = (queue: number, entry: Entry): number => {
    const ring = submissions.get(queue)!;
    const at = ring.base + ring.at * 64;
    const id = entry.id ?? nextId++ & 0x7fff;
    rig.memory.fill(0, at, at + 64);
    view.setUint32(at, entry.opcode | ((entry.flags ?? 0) << 8) | (id << 16), true);
    view.setUint32(at + 4, entry.nsid ?? 0, true);
    view.setBigUint64(at + 24, BigInt(entry.prp1 ?? 0), true);
    view.setBigUint64(at + 32, BigInt(entry.prp2 ?? 0), true);
    for (const [index, word] of (entry.words ?? []).entries()) view.setUint32(at + 40 + index * 4, word >>> 0, true);
    ring.at = (ring.at + 1) % ring.size;
    return id;
  };
  const ring = (queue: number): void => write32(0x1000 + queue * 8, submissions.get(queue)!.at);

  /** Takes up to `most` new completions of a queue, and tells the drive. */
  const take = (queue: number, most = Number.POSITIVE_INFINITY): Completion[] => {
    const cq = completions.get(queue)!;
    const taken: Completion[] = [];
    for (;;) {
      const at = cq.base + cq.at * 16;
      const status = view.getUint16(at + 14, true);
      if ((status & 1) !== cq.phase || taken.length >= most) break;
      taken.push({
        id: view.getUint16(at + 12, true),
        status: (status >> 1) & 0x7ff,
        dnr: (status & 0x8000) !== 0,
        result: view.getUint32(at, true),
        head: view.getUint16(at + 8, true),
        queue: view.getUint16(at + 10, true),
      });
      cq.at = (cq.at + 1) % cq.size;
      if (cq.at === 0) cq.phase ^= 1;
    }
    if (taken.length > 0) write32(0x1004 + queue * 8, cq.at);
    return taken;
  };

  const submit = (queue: number, entry: Entry): number => {
    const id = put(queue, entry);
    ring(queue);
    return id;
  };

  /** One command and its answer. */
  const run = (queue: number, entry: Entry): Completion => {
    const id = submit(queue, entry);
    rig.drain();
    const answers = take(queue);
    const answer = answers.find((each) => each.id === id);
    if (answers.length !== 1 || answer === undefined)
      throw new Error(`command ${id} got ${answers.length} answers: ${JSON.stringify(answers)}`);
    return answer;
  };

  /** Creates I/O queue pair `id` of `entries` each; returns both statuses. */
  const createQueues = (id: number, entries: number, { vector = id, interrupts = true } = {}): [number, number] => {
    const [cqBase, sqBase] = [0x3000 + id * 0x2000, 0x4000 + id * 0x2000];
    rig.memory.fill(0, cqBase, cqBase + 0x2000);
    const size = ((entries - 1) << 16) | id;
    const cq = run(0, { opcode: 5, prp1: cqBase, words: [size, (vector << 16) | (interrupts ? 3 : 1)] });
    completions.set(id, { base: cqBase, size: entries, at: 0, phase: 1 });
    const sq = run(0, { opcode: 1, prp1: sqBase, words: [size, (id << 16) | 1] });
    submissions.set(id, { base: sqBase, size: entries, at: 0 });
    return [cq.status, sq.status];
  };

  return { drive, ...rig, view, read32, write32, enable, put, ring, take, submit, run, createQueues };
}

/** A driver with its admin queue running. */
export function enabledDrive(options: DeviceOptions = {}, parts: NvmeDriveParts = {}) {
  const driver = nvmeDriver(new NvmeDrive(options, parts));
  driver.enable();
  return driver;
}

/** The same with one pair of I/O queues of 8 entries. */
export function driveWithQueue(options: DeviceOptions = {}, parts: NvmeDriveParts = {}) {
  const driver = enabledDrive(options, parts);
  const refused = driver.createQueues(1, 8).filter((status) => status !== 0);
  if (refused.length > 0) throw new Error(`queue 1 was refused: ${refused.join()}`);
  driver.events.length = 0;
  return driver;
}
