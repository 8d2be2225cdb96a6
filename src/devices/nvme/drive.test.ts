/** Expected values: NVM Express 1.4, by section. */
import { describe, expect, it } from 'vitest';
import type { BlockStore } from '../../ports/block-store.ts';
import { MemoryStore } from '../memory-store.ts';
import type { DeviceOptions } from '../options.ts';
import { createDevice } from '../registry.ts';
import { BUFFER, CC_ENABLE, nvmeDriver } from '../testing/nvme-driver.ts';
import { NvmeDrive, type NvmeDriveParts } from './drive.ts';

const [CAP, VS, INTMS, INTMC, CC, CSTS] = [0x00, 0x08, 0x0c, 0x10, 0x14, 0x1c];
const OUTSIDE = 0x100_0000;

/** A driver with its admin queue running. */
function enabled(options: DeviceOptions = {}, parts: NvmeDriveParts = {}) {
  const driver = nvmeDriver(new NvmeDrive(options, parts));
  driver.enable();
  return driver;
}

/** The same with one pair of I/O queues of 8 entries. */
function withQueue(options: DeviceOptions = {}, parts: NvmeDriveParts = {}) {
  const driver = enabled(options, parts);
  expect(driver.createQueues(1, 8)).toEqual([0, 0]);
  driver.events.length = 0;
  return driver;
}

const text = (bytes: Uint8Array): string => String.fromCharCode(...bytes).trimEnd();

describe('registers (3.1)', () => {
  it('say what the controller can', () => {
    const { read32, drive } = nvmeDriver(new NvmeDrive());
    // 1,024 entries, contiguous queues, 15 × 500 ms; NVM command set, pages up to 2^(12 + 4).
    expect([read32(CAP), read32(CAP + 4), read32(VS)]).toEqual([0x0f01_03ff, 0x0040_0020, 0x0001_0400]);
    expect([drive.read(CAP, 2), drive.read(CAP + 3, 1), drive.read(CAP + 3, 2)]).toEqual([0x3ff, 0x0f, 0]);
    expect(drive.spec).toMatchObject({ classCode: 0x010802, msix: { vectors: 65, table: { bar: 0, offset: 0x2000 } } });
  });

  it('enable, disable: RDY follows; the admin queue registers stay', () => {
    const { read32, write32, enable } = nvmeDriver(new NvmeDrive());
    expect(read32(CSTS)).toBe(0);
    enable();
    expect([read32(CSTS), read32(CC)]).toEqual([1, CC_ENABLE]);
    write32(CC, CC_ENABLE & ~1);
    expect([read32(CSTS), read32(CC), read32(0x24), read32(0x28), read32(0x30)]).toEqual([
      0, 0, 0xf000f, 0x1000, 0x2000,
    ]);
  });

  it.each([
    ['a command set that is not there', CC_ENABLE | (1 << 4)],
    ['pages of 128 KiB', CC_ENABLE | (5 << 7)],
    ['weighted round robin', CC_ENABLE | (1 << 11)],
    ['queues that are no page of 8 KiB', CC_ENABLE | (1 << 7)],
  ])('%s: CFS', (_, cc) => {
    const { read32, enable } = nvmeDriver(new NvmeDrive());
    enable(cc);
    expect(read32(CSTS)).toBe(2);
  });

  it('shutdown flushes and says so; the next enabling forgets it', () => {
    let flushes = 0;
    const store = new MemoryStore(2 ** 20);
    store.flush = () => {
      flushes += 1;
      return true;
    };
    const { read32, write32, enable } = enabled({}, { store });
    write32(CC, CC_ENABLE | (1 << 14));
    expect([read32(CSTS), flushes]).toEqual([0x9, 1]);
    write32(CC, 0);
    enable();
    expect(read32(CSTS)).toBe(1);
  });
});

describe('admin commands (5)', () => {
  it('Identify controller, namespace, list, descriptors', () => {
    const { run, memory, view } = enabled({ size: '8M', blockSize: 4096, serial: 'S1' });
    const identify = (cns: number, nsid = 0): number => run(0, { opcode: 6, nsid, prp1: BUFFER, words: [cns] }).status;
    const at = (offset: number, length: number): Uint8Array =>
      memory.subarray(BUFFER + offset, BUFFER + offset + length);
    expect(identify(1)).toBe(0);
    expect([text(at(4, 20)), text(at(24, 40)), text(at(64, 8))]).toEqual(['S1', 'belfry NVMe drive', '1.0']);
    expect([
      view.getUint16(BUFFER, true),
      view.getUint32(BUFFER + 80, true),
      view.getUint32(BUFFER + 516, true),
    ]).toEqual([0x1b36, 0x10400, 1]);
    expect([...at(512, 2), ...at(77, 1), ...at(525, 1)]).toEqual([0x66, 0x44, 7, 1]);
    expect(text(at(768, 256))).toMatch(
      /^nqn\.2014-08\.org\.nvmexpress:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\0*$/,
    );
    expect([identify(0, 1), view.getBigUint64(BUFFER, true), at(130, 1)[0]]).toEqual([0, 2048n, 12]);
    expect([identify(2, 0), view.getUint32(BUFFER, true), identify(2, 1), view.getUint32(BUFFER, true)]).toEqual([
      0, 1, 0, 0,
    ]);
    expect([identify(3, 1), ...at(0, 4)]).toEqual([0, 3, 16, 0, 0]);
    // Invalid Namespace or Format; Invalid Field in Command.
    expect([identify(0, 2), identify(0, 0xffff_ffff), identify(0x1c)]).toEqual([0x0b, 0x0b, 0x02]);
  });

  it('queues: made, refused, deleted', () => {
    const { run, createQueues } = enabled({ queues: 2, entries: 16 });
    const create = (opcode: number, id: number, entries: number, word11: number, prp1 = 0x9000): number =>
      run(0, { opcode, prp1, words: [((entries - 1) << 16) | id, word11] }).status;
    const remove = (opcode: number, id: number): number => run(0, { opcode, words: [id] }).status;
    expect([create(5, 0, 4, 3), create(5, 3, 4, 3), create(5, 1, 1, 3), create(5, 1, 17, 3)]).toEqual([
      0x101, 0x101, 0x102, 0x102,
    ]);
    // Not contiguous; not at a page; a vector that is not there.
    expect([create(5, 1, 4, 2), create(5, 1, 4, 3, 0x9010), create(5, 1, 4, 0x3_0003)]).toEqual([0x02, 0x13, 0x108]);
    expect([create(1, 1, 4, 0x0_0001), create(1, 1, 4, 0x3_0001), create(1, 1, 4, 0x1_0001)]).toEqual([
      0x101, 0x101, 0x100,
    ]);
    expect(createQueues(1, 4)).toEqual([0, 0]);
    expect([create(5, 1, 4, 3), create(1, 1, 4, 0x1_0001)]).toEqual([0x101, 0x101]);
    expect([remove(4, 1), remove(0, 1), remove(0, 1), remove(4, 1), remove(4, 0), remove(0, 0)]).toEqual([
      0x10c, 0, 0x101, 0, 0x101, 0x101,
    ]);
  });

  it('refuses I/O queues before CC told the sizes of their entries', () => {
    const driver = nvmeDriver(new NvmeDrive());
    driver.enable(0x0000_0001);
    expect(driver.run(0, { opcode: 5, prp1: 0x9000, words: [0x3_0001, 3] }).status).toBe(0x102);
  });

  it('features', () => {
    const { run, createQueues } = enabled({ queues: 4 });
    const set = (id: number, value: number): [number, number] => {
      const { status, result } = run(0, { opcode: 9, words: [id, value] });
      return [status, result];
    };
    const get = (id: number, word11 = 0): [number, number] => {
      const { status, result } = run(0, { opcode: 10, words: [id, word11] });
      return [status, result];
    };
    expect([get(7), set(7, 0x000f_000f), set(7, 0x0001_0001), get(7)]).toEqual([
      [0, 0x3_0003],
      [0, 0x3_0003],
      [0, 0x1_0001],
      [0, 0x1_0001],
    ]);
    expect([set(7, 0xffff), set(8, 0x1234_0a05), get(8)]).toEqual([
      [2, 0],
      [0, 0],
      [0, 0x0a05],
    ]);
    expect([get(6), set(6, 0), get(6), get(4), set(4, 400), get(4)]).toEqual([
      [0, 1],
      [0, 0],
      [0, 0],
      [0, 343],
      [0, 0],
      [0, 400],
    ]);
    expect([get(9, 2), set(9, 0x1_0002), get(9, 2), set(9, 5)]).toEqual([
      [0, 2],
      [0, 0],
      [0, 0x1_0002],
      [2, 0],
    ]);
    expect([set(2, 1), get(0x7f), set(0x8000_0006 | 0, 1), run(0, { opcode: 0x7f }).status]).toEqual([
      [2, 0],
      [2, 0],
      [0x10d, 0],
      1,
    ]);
    createQueues(1, 4);
    expect(set(7, 0)).toEqual([0x0c, 0]);
    // A third one is more than was asked for.
    expect(createQueues(3, 4)).toEqual([0x101, 0x101]);
  });

  it('log pages: errors, SMART, firmware, offsets', () => {
    const { run, memory, view } = withQueue();
    const log = (id: number, bytes: number, offset = 0, nsid = 0): number =>
      run(0, { opcode: 2, nsid, prp1: BUFFER, words: [((bytes / 4 - 1) << 16) | id, 0, offset] }).status;
    const failed = run(1, { opcode: 2, nsid: 1, prp1: BUFFER, words: [0xffff_ffff, 0, 0] });
    expect(failed).toMatchObject({ status: 0x80, dnr: true });
    expect(log(1, 64)).toBe(0);
    const at = (offset: number): number => view.getUint16(BUFFER + offset, true);
    expect([view.getBigUint64(BUFFER, true), at(8), at(10), at(12), view.getUint32(BUFFER + 16, true)]).toEqual([
      1n,
      1,
      failed.id,
      0x8100,
      0xffff_ffff,
    ]);
    expect([log(1, 64, 64), view.getBigUint64(BUFFER, true)]).toEqual([0, 0n]);
    run(1, { opcode: 1, nsid: 1, prp1: BUFFER, words: [0, 0, 0] });
    expect([log(2, 512), at(1), view.getBigUint64(BUFFER + 48, true), view.getBigUint64(BUFFER + 80, true)]).toEqual([
      0,
      308,
      1n,
      1n,
    ]);
    expect(view.getBigUint64(BUFFER + 176, true)).toBe(1n);
    expect([log(3, 512), memory[BUFFER], text(memory.subarray(BUFFER + 8, BUFFER + 16))]).toEqual([0, 1, '1.0']);
    expect([log(0x70, 4), log(2, 512, 0, 1), log(2, 4, 2), log(2, 4, 516)]).toEqual([0x109, 2, 2, 2]);
  });

  it('asynchronous events: an invalid doorbell is told once until the error log was read', () => {
    const { submit, drain, take, write32, run } = withQueue();
    const ids = [0, 1].map(() => submit(0, { opcode: 0x0c }));
    write32(0x1000 + 9 * 8, 1);
    drain();
    expect(take(0)).toMatchObject([{ id: ids[0], status: 0, result: 0x01_00_00 }]);
    write32(0x1008, 99);
    drain();
    expect(take(0)).toEqual([]);
    // Retain Asynchronous Event keeps it silent, a plain read does not.
    run(0, { opcode: 2, prp1: BUFFER, words: [0x0000_8001] });
    submit(0, { opcode: 2, prp1: BUFFER, words: [1] });
    drain();
    expect(take(0)).toMatchObject([{ status: 0 }, { id: ids[1], result: 0x01_01_00 }]);
    for (let i = 0; i < 5; i++) submit(0, { opcode: 0x0c });
    drain();
    expect(take(0)).toMatchObject([{ status: 0x105 }]);
  });

  it('tells of a namespace that changed, and of a temperature beyond its threshold, if the host wants it', () => {
    const { drive, submit, drain, take, run, view } = enabled({ size: '1M' });
    drive.resize(2 ** 21);
    submit(0, { opcode: 0x0c });
    drain();
    expect(take(0)).toEqual([]);
    run(0, { opcode: 9, words: [0x0b, 0x102] });
    drive.resize(2 ** 22);
    drain();
    expect(take(0)).toMatchObject([{ result: 0x04_00_02 }]);
    run(0, { opcode: 2, prp1: BUFFER, words: [0x0001_0004] });
    expect([view.getUint32(BUFFER, true), view.getUint32(BUFFER + 4, true)]).toEqual([1, 0]);
    run(0, { opcode: 6, nsid: 1, prp1: BUFFER, words: [0] });
    expect(view.getBigUint64(BUFFER, true)).toBe(8192n);
    submit(0, { opcode: 0x0c });
    submit(0, { opcode: 9, words: [4, 300] });
    drain();
    expect(take(0)).toMatchObject([{ status: 0 }, { status: 0, result: 0x02_01_01 }]);
    run(0, { opcode: 2, prp1: BUFFER, words: [0x007f_0002] });
    expect(view.getUint8(BUFFER)).toBe(2);
  });

  it('Abort ends what waits, and says when there is nothing', () => {
    const { submit, drain, take, run } = enabled();
    const waiting = submit(0, { opcode: 0x0c, id: 0x77 });
    const abort = submit(0, { opcode: 8, words: [0x77_0000] });
    drain();
    expect(take(0)).toMatchObject([
      { id: waiting, status: 7 },
      { id: abort, status: 0, result: 0 },
    ]);
    expect(run(0, { opcode: 8, words: [0x77_0000] })).toMatchObject({ status: 0, result: 1 });
  });
});

describe('I/O commands (6)', () => {
  const rw = (opcode: number, block: number, count: number, prp1 = BUFFER, prp2 = 0) => ({
    ...{ opcode, nsid: 1, prp1, prp2 },
    words: [block, 0, count - 1],
  });

  it('write, read, compare, write zeroes, flush', () => {
    const { run, memory } = withQueue();
    memory.fill(0xab, BUFFER, BUFFER + 1024);
    expect(run(1, rw(1, 5, 2)).status).toBe(0);
    expect([run(1, rw(5, 5, 2)).status, run(1, rw(5, 6, 2)).status]).toEqual([0, 0x285]);
    expect(run(1, rw(8, 6, 1)).status).toBe(0);
    memory.fill(1, BUFFER, BUFFER + 2048);
    expect(run(1, rw(2, 4, 4)).status).toBe(0);
    expect([0, 511, 512, 1023, 1024, 2047].map((at) => memory[BUFFER + at])).toEqual([0, 0, 0xab, 0xab, 0, 0]);
    expect([run(1, { opcode: 0, nsid: 1 }).status, run(1, { opcode: 0, nsid: 0xffff_ffff }).status]).toEqual([0, 0]);
  });

  it('moves data by PRP lists that start within a page and go on in another list', () => {
    const { run, memory, view } = withQueue({ blockSize: 4096 });
    const pages = [0x2_1000, 0x2_3000, 0x2_2000, 0x2_8000];
    // The list begins in the last two slots of its page: one page, then the address of the next list.
    const list = 0x3_0ff0;
    view.setBigUint64(list, BigInt(pages[1]), true);
    view.setBigUint64(list + 8, 0x3_2000n, true);
    view.setBigUint64(0x3_2000, BigInt(pages[2]), true);
    view.setBigUint64(0x3_2008, BigInt(pages[3]), true);
    const first = pages[0] + 0x800;
    const places = [first, ...pages.slice(1)];
    const lengths = [0x800, 0x1000, 0x1000, 0x800];
    for (const [i, place] of places.entries()) memory.fill(i + 1, place, place + lengths[i]);
    expect(run(1, rw(1, 0, 3, first, list)).status).toBe(0);
    expect(run(1, rw(2, 0, 1, BUFFER)).status).toBe(0);
    expect([memory[BUFFER], memory[BUFFER + 0x7ff], memory[BUFFER + 0x800], memory[BUFFER + 0xfff]]).toEqual([
      1, 1, 2, 2,
    ]);
    for (const [i, place] of places.entries()) memory.fill(0, place, place + lengths[i]);
    expect(run(1, rw(2, 0, 3, first, list)).status).toBe(0);
    expect(places.map((place, i) => [memory[place], memory[place + lengths[i] - 1]])).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
      [4, 4],
    ]);
  });

  it('deallocates ranges, and refuses all of them for one beyond the end', () => {
    const { run, memory, view } = withQueue({ size: '1M' });
    memory.fill(7, BUFFER, BUFFER + 512);
    for (const block of [0, 9]) run(1, rw(1, block, 1));
    const range = (index: number, block: number, count: number): void => {
      view.setUint32(BUFFER + 0x1000 + index * 16 + 4, count, true);
      view.setBigUint64(BUFFER + 0x1000 + index * 16 + 8, BigInt(block), true);
    };
    const deallocate = (count: number, attributes: number): number =>
      run(1, { opcode: 9, nsid: 1, prp1: BUFFER + 0x1000, words: [count - 1, attributes] }).status;
    const first = (block: number): number => {
      run(1, rw(2, block, 1, BUFFER + 0x2000));
      return memory[BUFFER + 0x2000];
    };
    range(0, 0, 4);
    range(1, 2047, 2);
    expect([deallocate(2, 4), first(0)]).toEqual([0x80, 7]);
    range(1, 9, 1);
    expect([deallocate(2, 1), first(0)]).toEqual([0, 7]);
    expect([deallocate(2, 4), first(0), first(9)]).toEqual([0, 0, 0]);
  });

  it.each([
    ['opcode', { opcode: 0x55, nsid: 1 }, 0x01],
    ['namespace', { ...rw(2, 0, 1), nsid: 2 }, 0x0b],
    ['all namespaces', { ...rw(2, 0, 1), nsid: 0xffff_ffff }, 0x0b],
    ['a fused command', { ...rw(2, 0, 1), flags: 1 }, 0x02],
    ['an SGL', { ...rw(2, 0, 1), flags: 0x40 }, 0x02],
    ['one block beyond the end', rw(2, 2047, 2), 0x80],
    ['block 2^32', { opcode: 2, nsid: 1, prp1: BUFFER, words: [0, 1, 0] }, 0x80],
    ['more than MDTS', rw(2, 0, 1025), 0x02],
    ['PRP1 at an odd byte', rw(2, 0, 1, BUFFER + 1), 0x13],
    ['PRP2 within a page', rw(2, 0, 16, BUFFER, BUFFER + 0x1200), 0x13],
    ['a list at an odd place', rw(2, 0, 32, BUFFER, BUFFER + 0x1204), 0x13],
    ['data where nothing is', rw(2, 0, 1, OUTSIDE), 0x04],
    ['data from where nothing is', rw(1, 0, 1, OUTSIDE), 0x04],
    ['a list where nothing is', rw(2, 0, 32, BUFFER, OUTSIDE), 0x04],
    ['an address of 2^63', rw(2, 0, 1, 2 ** 63), 0x04],
  ])('refuses %s', (_, entry, status) => {
    const { run } = withQueue({ size: '1M' });
    expect(run(1, entry).status).toBe(status);
  });

  it('ends a list that leads to itself', () => {
    const { run, view } = withQueue();
    view.setBigUint64(0x3_0ff8, 0x3_0ff8n, true);
    expect(run(1, rw(2, 0, 64, BUFFER, 0x3_0ff8)).status).toBe(0x13);
  });

  it('a medium that fails, and one that is not to be written', () => {
    const broken: BlockStore = {
      size: 2 ** 20,
      read: () => false,
      write: () => false,
      zero: () => false,
      flush: () => false,
    };
    const { run, view } = withQueue({}, { store: broken });
    const flush = { opcode: 0, nsid: 1 };
    expect([rw(1, 0, 1), rw(2, 0, 1), rw(5, 0, 1), rw(8, 0, 1), flush].map((entry) => run(1, entry).status)).toEqual([
      0x280, 0x281, 0x281, 0x280, 0x280,
    ]);
    run(0, { opcode: 2, prp1: BUFFER, words: [0x007f_0002] });
    expect(view.getBigUint64(BUFFER + 160, true)).toBe(4n);
    const safe = withQueue({ readOnly: true });
    expect([rw(1, 0, 1), rw(8, 0, 1), rw(2, 0, 1)].map((entry) => safe.run(1, entry).status)).toEqual([0x20, 0x20, 0]);
    safe.run(0, { opcode: 6, nsid: 1, prp1: BUFFER, words: [0] });
    expect(safe.memory[BUFFER + 99]).toBe(1);
  });

  it('a command id in use is refused, and the first one goes on', () => {
    const { put, ring, drain, take } = withQueue();
    put(1, { ...rw(2, 0, 1), id: 5 });
    put(1, { ...rw(2, 0, 1), id: 5 });
    ring(1);
    drain();
    expect(
      take(1)
        .map(({ status }) => status)
        .sort(),
    ).toEqual([0, 3]);
  });
});

describe('queues, interrupts and resets', () => {
  const flush = { opcode: 0, nsid: 1 };

  it('a full completion queue holds answers back, and none is lost', () => {
    const { submit, put, ring, drain, take, events } = withQueue();
    const ids = [1, 2, 3, 4, 5, 6, 7].map(() => put(1, flush));
    ring(1);
    drain();
    const seen = take(1, 2).map(({ id }) => id);
    for (let i = 0; i < 2; i++) ids.push(submit(1, flush));
    drain();
    for (let i = 0; i < 4; i++) {
      seen.push(...take(1, 4).map(({ id }) => id));
      drain();
    }
    expect(seen).toEqual(ids);
    expect(events).toEqual(ids.map(() => 'vector 1'));
  });

  it('the pin stays up while there is something unseen, and the mask takes it down', () => {
    const driver = enabled({ msix: false, msi: 0 });
    driver.state.messages = false;
    const { submit, drain, take, events, write32, read32 } = driver;
    submit(0, { opcode: 0x7f });
    submit(0, { opcode: 0x7f });
    drain();
    expect(events).toEqual(['line up']);
    write32(INTMS, 1);
    expect([events.at(-1), read32(INTMS)]).toEqual(['line down', 1]);
    write32(INTMC, 1);
    take(0, 1);
    expect(events).toEqual(['line up', 'line down', 'line up']);
    take(0);
    expect(events.at(-1)).toBe('line down');
  });

  it('INTMS holds messages back', () => {
    const { submit, drain, events, write32 } = withQueue();
    write32(INTMS, 2);
    submit(1, flush);
    drain();
    expect(events).toEqual([]);
    write32(INTMC, 2);
    expect(events).toEqual(['vector 1']);
  });

  it('a submission entry that cannot be fetched, a completion that cannot be written: CFS until a reset', () => {
    for (const broken of [0x28, 0x30]) {
      const driver = nvmeDriver(new NvmeDrive());
      driver.enable();
      driver.write32(CC, 0);
      driver.write32(broken, OUTSIDE);
      driver.write32(CC, CC_ENABLE);
      driver.submit(0, { opcode: 0x7f });
      driver.drain();
      expect(driver.read32(CSTS)).toBe(3);
      driver.write32(CC, 0);
      driver.enable();
      expect([driver.read32(CSTS), driver.run(0, { opcode: 0x7f }).status]).toEqual([1, 1]);
    }
  });

  it('deleting a queue answers what was fetched from it', () => {
    const { put, ring, submit, drain, take } = withQueue();
    const id = put(1, { opcode: 2, nsid: 1, prp1: BUFFER, words: [0, 0, 0] });
    const removal = put(0, { opcode: 0, words: [1] });
    ring(1);
    ring(0);
    drain();
    const [answer] = take(1);
    expect(answer?.id).toBe(id);
    // The reading was fetched first, and its data moves behind the deletion.
    expect(answer?.status).toBe(8);
    expect(take(0)).toMatchObject([{ id: removal, status: 0 }]);
    submit(0, { opcode: 4, words: [1] });
    drain();
    expect(take(0)).toMatchObject([{ status: 0 }]);
  });

  it('a controller reset in the middle: RDY goes when DMA has landed, nothing is answered', () => {
    const { submit, drain, take, write32, read32, enable, createQueues, run, events } = withQueue();
    submit(1, { opcode: 2, nsid: 1, prp1: BUFFER, words: [0, 0, 0] });
    write32(CC, CC_ENABLE & ~1);
    expect(read32(CSTS)).toBe(1);
    drain();
    expect([read32(CSTS), take(1), events]).toEqual([0, [], []]);
    enable();
    // The queues are gone with it.
    write32(0x1008, 1);
    drain();
    expect(createQueues(1, 8)).toEqual([0, 0]);
    expect(run(1, flush).status).toBe(0);
  });

  it('a function reset keeps the medium only', () => {
    const { run, drive, read32, memory, enable, createQueues } = withQueue();
    memory.fill(3, BUFFER, BUFFER + 512);
    run(1, { opcode: 1, nsid: 1, prp1: BUFFER, words: [1, 0, 0] });
    drive.reset();
    expect([read32(CC), read32(CSTS), read32(0x24), read32(0x28)]).toEqual([0, 0, 0, 0]);
    enable();
    createQueues(1, 8);
    memory.fill(0, BUFFER, BUFFER + 512);
    run(1, { opcode: 2, nsid: 1, prp1: BUFFER, words: [1, 0, 0] });
    expect(memory[BUFFER]).toBe(3);
  });
});

describe('options', () => {
  it.each([
    [{ size: '1000' }, 'nvme-drive: size: expected bytes from 1048576 to 8796093022208, such as 64M, got "1000"'],
    [{ blockSize: 1024 }, 'nvme-drive: blockSize: expected one of 512, 4096, got 1024'],
    [{ serial: 'x'.repeat(21) }, 'nvme-drive: serial: expected up to 20 printable characters'],
    [{ file: 'disk.img' }, 'nvme-drive: file: expected a carrier that opens files, got "disk.img"'],
    [{ sise: 1 }, 'nvme-drive: sise: no such option'],
  ])('refuses %j', (options, message) => {
    expect(() => createDevice('nvme-drive', options)).toThrow(message);
  });

  it('a file is opened by whoever has a file system', () => {
    const opened: [string, boolean][] = [];
    const open = (path: string, readOnly: boolean): BlockStore => {
      opened.push([path, readOnly]);
      return new MemoryStore(2 ** 21);
    };
    createDevice('nvme-drive', { file: 'a.img', readOnly: true }, open);
    expect(opened).toEqual([['a.img', true]]);
    expect(() => createDevice('nvme-drive', { file: 'a.img', size: '2M' }, open)).toThrow(
      'nvme-drive: size: a file has its own',
    );
  });
});
