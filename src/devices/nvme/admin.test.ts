/** Expected values: NVM Express 1.4, by section. */
import { describe, expect, it } from 'vitest';
import { BUFFER, driveWithQueue, enabledDrive, nvmeDriver } from '../testing/nvme-driver.ts';
import { NvmeDrive } from './drive.ts';

const text = (bytes: Uint8Array): string => String.fromCharCode(...bytes).trimEnd();

describe('admin commands (5)', () => {
  it('Identify controller, namespace, list, descriptors', () => {
    const { run, memory, view } = enabledDrive({ size: '8M', blockSize: 4096, serial: 'S1' });
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
    const { run, createQueues } = enabledDrive({ queues: 2, entries: 16 });
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
    const { run, createQueues } = enabledDrive({ queues: 4 });
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
    const { run, memory, view } = driveWithQueue();
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
    const { submit, drain, take, write32, run } = driveWithQueue();
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
    const { drive, submit, drain, take, run, view } = enabledDrive({ size: '1M' });
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
    const { submit, drain, take, run } = enabledDrive();
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
