/** Expected values: NVM Express 1.4, by section. */
import { describe, expect, it } from 'vitest';
import type { BlockStore } from '../../ports/block-store.ts';
import { MemoryStore } from '../memory-store.ts';
import { createDevice } from '../registry.ts';
import { BUFFER, CC_ENABLE, driveWithQueue, enabledDrive, nvmeDriver } from '../testing/nvme-driver.ts';
import { NvmeDrive } from './drive.ts';

const [CAP, VS, INTMS, INTMC, CC, CSTS] = [0x00, 0x08, 0x0c, 0x10, 0x14, 0x1c];
const OUTSIDE = 0x100_0000;

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
    const { read32, write32, enable } = enabledDrive({}, { store });
    write32(CC, CC_ENABLE | (1 << 14));
    expect([read32(CSTS), flushes]).toEqual([0x9, 1]);
    write32(CC, 0);
    enable();
    expect(read32(CSTS)).toBe(1);
  });
});

describe('queues, interrupts and resets', () => {
  const flush = { opcode: 0, nsid: 1 };

  it('a full completion queue holds answers back, and none is lost', () => {
    const { submit, put, ring, drain, take, events } = driveWithQueue();
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
    const driver = enabledDrive({ msix: false, msi: 0 });
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
    const { submit, drain, events, write32 } = driveWithQueue();
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
    const { put, ring, submit, drain, take } = driveWithQueue();
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
    const { submit, drain, take, write32, read32, enable, createQueues, run, events } = driveWithQueue();
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
    const { run, drive, read32, memory, enable, createQueues } = driveWithQueue();
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
