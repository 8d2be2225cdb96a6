/** Expected values: Linux' drivers/dma/ioat/registers.h and hw.h, and the order in which its driver and the selftests' one use them. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { carry } from '../testing/port.ts';
import { Ioat } from './ioat.ts';

const CH = 0x80;
const [CHANCTRL, CHANCMD, DMACOUNT, CHANSTS, CHAINADDR, CHANCMP, CHANERR] = [0, 4, 6, 8, 0x10, 0x18, 0x28];
const [ACTIVE, DONE, SUSPENDED, HALTED, ARMED] = [0, 1, 2, 3, 4];
const RESET = 0x20;
/** INT_REARM, ANY_ERR_ABORT_EN, ERR_COMPLETION_EN, ERR_INT_EN: what Linux calls IOAT_CHANCTRL_RUN. */
const RUN = 0x1d;

interface Copy {
  readonly size: number;
  readonly source: number;
  readonly destination: number;
  readonly control?: number;
}

/** A driver of channel `channel`: descriptors lie from 0x1000 on, each one linked to the next. */
function driver(options: Record<string, number> = {}, channel = 0) {
  const ioat = new Ioat(options);
  const rig = carry(ioat);
  const base = CH * (channel + 1);
  const view = new DataView(rig.memory.buffer);
  const put = (index: number, { size, source, destination, control = 0 }: Copy): void => {
    const at = 0x1000 + index * 64;
    view.setUint32(at, size, true);
    view.setUint32(at + 4, control, true);
    for (const [offset, address] of [
      [8, source],
      [16, destination],
      [24, at + 64],
    ])
      view.setBigUint64(at + offset!, BigInt(address!), true);
  };
  const write32 = (offset: number, value: number): void => ioat.write(base + offset, 4, value);
  const status = (): number => ioat.read(base + CHANSTS, 4) & 7;
  const chain = (at: number): void => {
    write32(CHAINADDR, at);
    write32(CHAINADDR + 4, 0);
  };
  const count = (value: number): void => ioat.write(base + DMACOUNT, 2, value);
  const run = (copies: readonly Copy[]): number => {
    for (const [index, copy] of copies.entries()) put(index, copy);
    chain(0x1000);
    count(copies.length);
    rig.drain();
    return status();
  };
  ioat.write(base + CHANCMD, 1, RESET);
  return {
    ioat,
    ...rig,
    base,
    view,
    put,
    write32,
    status,
    chain,
    count,
    run,
    errors: () => ioat.read(base + CHANERR, 4),
  };
}

describe('ioat', () => {
  it('says what it is: one channel of 1 MiB transfers, version 3.2, block fill', () => {
    const { ioat } = driver();
    expect(ioat.spec).toMatchObject({ vendorId: 0x8086, deviceId: 0x2021, classCode: 0x088000, msix: { vectors: 1 } });
    expect([ioat.read(0, 1), ioat.read(1, 1), ioat.read(8, 1), ioat.read(0x10, 4)]).toEqual([1, 20, 0x32, 0x40]);
    expect(() => new Ioat({ channels: 9 })).toThrow('ioat: channels: expected an integer from 1 to 8, got 9');
  });

  it('is halted after a reset, which it reports done', () => {
    const { ioat, status, base } = driver();
    expect([status(), ioat.read(base + CHANCMD, 1)]).toEqual([HALTED, 0]);
  });

  // DPDK's drivers/dma/ioat starts a channel so, and gives up on one whose CHANSTS is not exactly this.
  it('is armed by a chain after a reset, and not while an error stands', () => {
    const { chain, ioat, base, status, run, write32 } = driver();
    chain(0x1000);
    expect([ioat.read(base + CHANSTS, 4), ioat.read(base + CHANSTS + 4, 4)]).toEqual([ARMED, 0]);
    ioat.write(base + CHANCMD, 1, 4);
    expect(status()).toBe(SUSPENDED);
    expect(run([{ size: 0, source: 0, destination: 0 }])).toBe(HALTED);
    chain(0x1000);
    expect(status()).toBe(HALTED);
    write32(CHANERR, -1);
    ioat.write(base + CHANCMD, 1, RESET);
    chain(0x1000);
    expect(status()).toBe(ARMED);
  });

  it('fills with a pattern of eight bytes, to the byte', () => {
    const { run, memory } = driver();
    const fill = { size: 11, source: 0, destination: 0x5003, control: 0x0100_0000 };
    const source = 0xba98_7654_3210;
    expect(run([{ ...fill, source }])).toBe(DONE);
    expect(Buffer.from(memory.subarray(0x5002, 0x500f)).toString('hex')).toBe(
      '00' + '1032547698ba0000' + '103254' + '00',
    );
  });

  it('copies, and rests in DONE with the descriptor that it completed', () => {
    const { run, ioat, base, memory, events } = driver();
    memory.set([1, 2, 3, 4, 5], 0x4000);
    expect(run([{ size: 5, source: 0x4000, destination: 0x5fff }])).toBe(DONE);
    expect([...memory.subarray(0x5ffe, 0x6005)]).toEqual([0, 1, 2, 3, 4, 5, 0]);
    expect(ioat.read(base + CHANSTS, 4)).toBe(0x1000 | DONE);
    expect(events).toEqual([]);
  });

  it('does nothing before DMA completes: ACTIVE, then DONE', () => {
    const { put, chain, count, status, drain } = driver();
    put(0, { size: 1, source: 0x4000, destination: 0x5000 });
    chain(0x1000);
    count(1);
    expect(status()).toBe(ACTIVE);
    drain();
    expect(status()).toBe(DONE);
  });

  it('goes on along the chain when DMACOUNT grows, and starts anew at another chain', () => {
    const { run, put, count, chain, drain, memory, status, ioat, base } = driver();
    memory.set([7, 8], 0x4000);
    run([{ size: 1, source: 0x4000, destination: 0x5000 }]);
    put(1, { size: 1, source: 0x4001, destination: 0x5001 });
    count(2);
    drain();
    expect([memory[0x5000], memory[0x5001], ioat.read(base + CHANSTS, 4)]).toEqual([7, 8, 0x1040 | DONE]);
    ioat.write(base + CHANCMD, 1, 4);
    expect(status()).toBe(SUSPENDED);
    put(8, { size: 2, source: 0x4000, destination: 0x6000 });
    chain(0x1200);
    count(1);
    drain();
    expect([memory[0x6000], memory[0x6001], ioat.read(base + CHANSTS, 4)]).toEqual([7, 8, 0x1200 | DONE]);
  });

  it('writes its status to CHANCMP where a descriptor asks for it: ACTIVE on the way, DONE at the end', () => {
    const { run, write32, view, base, ioat } = driver();
    write32(CHANCMP, 0x3000);
    write32(CHANCMP + 4, 0);
    expect([ioat.read(base + CHANCMP, 4), run([{ size: 1, source: 0, destination: 8, control: 0x08 }])]).toEqual([
      0x3000,
      DONE,
    ]);
    expect(view.getBigUint64(0x3000, true)).toBe(0x1001n);
    // The null descriptor by which Linux starts a channel: it moves nothing, and completes and interrupts as the others.
    expect(run([{ size: 8, source: 0, destination: 0x4_0000, control: 0x29 }])).toBe(DONE);
  });

  it('sends one interrupt, then none until it is armed again', () => {
    const { run, ioat, base, events } = driver();
    ioat.write(3, 1, 0x08);
    const copy = { size: 1, source: 0, destination: 8, control: 0x01 };
    run([copy, copy, copy]);
    expect(events).toEqual(['vector 0']);
    expect(ioat.read(base + CHANCTRL, 2) & 1).toBe(1);
    ioat.write(base + CHANCTRL, 2, RUN);
    expect(ioat.read(base + CHANCTRL, 2)).toBe(0x1c);
    run([copy]);
    expect(events).toEqual(['vector 0', 'vector 0']);
  });

  it('has a vector for each channel, or one interrupt for all with ATTNSTATUS', () => {
    const { run, ioat, events, state, base } = driver({ channels: 3 }, 2);
    const copy = { size: 1, source: 0, destination: 8, control: 0x01 };
    ioat.write(3, 1, 0x09);
    run([copy]);
    expect(events).toEqual(['vector 2']);
    ioat.write(3, 1, 0x01);
    ioat.write(base + CHANCTRL, 2, RUN);
    run([copy]);
    expect(events.slice(1)).toEqual(['vector 0']);
    // INT, INT_STATUS and MASTER_INT_EN; the read takes the last one away.
    expect([ioat.read(3, 1), ioat.read(3, 1)]).toEqual([0x07, 0x02]);
    expect([ioat.read(4, 4), ioat.read(4, 4), ioat.read(3, 1)]).toEqual([4, 0, 0]);
    state.messages = false;
    ioat.write(3, 1, 0x01);
    ioat.write(base + CHANCTRL, 2, RUN);
    run([copy]);
    ioat.read(4, 4);
    expect(events.slice(2)).toEqual(['line up', 'line down']);
  });

  it.each([
    ['source', { size: 4, source: 0x2_0000, destination: 8 }, 0x100],
    ['destination', { size: 4, source: 8, destination: 0x2_0000 }, 0x200],
    ['operation', { size: 4, source: 8, destination: 16, control: 0x8700_0000 }, 0x400],
    ['size zero', { size: 0, source: 8, destination: 16 }, 0x800],
    ['size beyond XFERCAP', { size: 0x1001, source: 8, destination: 16 }, 0x800],
  ])('halts with its error bit: %s', (_, bad, bit) => {
    const { run, errors, write32, view, events, ioat, base, memory } = driver({ xfercap: 12 });
    ioat.write(3, 1, 0x08);
    ioat.write(base + CHANCTRL, 2, RUN);
    write32(CHANCMP, 0x3000);
    write32(CHANCMP + 4, 0);
    const good = { size: 1, source: 0x4000, destination: 0x5000 };
    memory[0x4000] = 9;
    expect([run([good, bad, { ...good, destination: 0x5001 }]), errors()]).toEqual([HALTED, bit]);
    // The first one was done, the third not begun; memory and an interrupt tell of it.
    expect([memory[0x5000], memory[0x5001], view.getBigUint64(0x3000, true), events]).toEqual([
      9,
      0,
      0x1003n,
      ['vector 0'],
    ]);
    write32(CHANERR, bit);
    expect([errors(), run([good])]).toEqual([0, DONE]);
  });

  it('reports chains that it cannot fetch, and a place that it cannot write', () => {
    const { chain, count, drain, errors, write32, status, run, view } = driver();
    const start = (at: number): number => {
      write32(CHANERR, -1);
      chain(at);
      count(1);
      drain();
      return errors();
    };
    expect([start(0x1020), start(0x4_0000)]).toEqual([0x10, 0x04]);
    expect(status()).toBe(HALTED);
    write32(CHANERR, -1);
    write32(CHANCMP + 4, 1);
    expect([run([{ size: 1, source: 0, destination: 8, control: 0x08 }]), errors()]).toEqual([HALTED, 0x1000]);
    write32(CHANERR, -1);
    view.setBigUint64(0x1000 + 24, 0x1010n, true);
    chain(0x1000);
    view.setUint32(0x1004, 0, true);
    count(2);
    drain();
    expect(errors()).toBe(0x08);
  });

  it('a reset in the middle waits for what is under way, and nothing follows', () => {
    const { put, chain, count, status, drain, ioat, base, memory, events, reset } = (() => {
      const made = driver();
      return { ...made, reset: () => made.ioat.reset() };
    })();
    memory[0x4000] = 5;
    put(0, { size: 1, source: 0x4000, destination: 0x5000, control: 0x09 });
    chain(0x1000);
    count(1);
    ioat.write(base + CHANCMD, 1, RESET);
    expect(ioat.read(base + CHANCMD, 1)).toBe(RESET);
    drain();
    expect([ioat.read(base + CHANCMD, 1), status(), memory[0x5000], events]).toEqual([0, HALTED, 0, []]);
    chain(0x1000);
    count(1);
    reset();
    drain();
    expect([status(), memory[0x5000], events, ioat.read(base + DMACOUNT, 2)]).toEqual([HALTED, 0, [], 0]);
  });

  it('random chains, handed over in parts: memory is what the same copies in order make of it, each completes once', () => {
    const place = fc.integer({ min: 0x4000, max: 0x7f00 });
    const copy = fc.record({ size: fc.integer({ min: 1, max: 0x100 }), source: place, destination: place });
    fc.assert(
      fc.property(
        fc.array(copy, { minLength: 1, maxLength: 12 }),
        fc.array(fc.nat(3), { maxLength: 12 }),
        (copies, steps) => {
          const { put, chain, count, drain, memory, ioat, base, events, write32 } = driver();
          ioat.write(3, 1, 0x08);
          write32(CHANCMP, 0x3000);
          for (let at = 0x4000; at < 0x8000; at++) memory[at] = (at * 31) ^ (at >> 8);
          const expected = memory.slice();
          for (const { size, source, destination } of copies) expected.copyWithin(destination, source, source + size);
          chain(0x1000);
          let given = 0;
          for (const step of [...steps, copies.length]) {
            for (let i = 0; i < step && given < copies.length; i++, given++)
              put(given, { ...copies[given]!, control: 0x09 });
            count(given);
            drain();
            ioat.write(base + CHANCTRL, 2, RUN);
          }
          expect(Buffer.compare(memory.subarray(0x4000, 0x8100), expected.subarray(0x4000, 0x8100))).toBe(0);
          expect(ioat.read(base + CHANSTS, 4)).toBe((0x1000 + (copies.length - 1) * 64) | DONE);
          expect(events.length).toBeLessThanOrEqual(copies.length);
          expect(events.length).toBeGreaterThan(0);
        },
      ),
      { numRuns: 1000 },
    );
  });
});
