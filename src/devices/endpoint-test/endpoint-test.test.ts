/** Expected values: drivers/misc/pci_endpoint_test.c of Linux 7.2 (what the host checks), and CRC-32's check value. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { BarRange, Registers } from '../../ports/pci.ts';
import { carry } from '../testing/port.ts';
import { crc32 } from './crc32.ts';
import { EndpointTest } from './endpoint-test.ts';

const [COMMAND, STATUS, SRC, DST, SIZE, CHECKSUM, IRQ_TYPE, IRQ_NUMBER] = [4, 8, 0xc, 0x14, 0x1c, 0x20, 0x24, 0x28];
const [READ, WRITE, COPY] = [8, 16, 32];
const RAISED = 0x40;

function host(options = {}) {
  const device = new EndpointTest(options);
  const rig = carry(device);
  const registers = (bar: number): Registers => {
    const [range] = device.spec.bars[bar]!.ranges as readonly [BarRange];
    if (range.kind !== 'registers') throw new Error(`BAR ${bar} is memory`);
    return range.registers;
  };
  const read = (offset: number): number => registers(0).read(offset, 4) >>> 0;
  const write = (offset: number, value: number): void => registers(0).write(offset, 4, value);
  const run = (command: number, values: Record<number, number> = {}): number => {
    for (const [offset, value] of Object.entries(values)) write(Number(offset), value);
    write(COMMAND, command);
    rig.drain();
    return read(STATUS);
  };
  return { device, ...rig, registers, read, write, run };
}

describe('pci-endpoint-test', () => {
  it('has the ids that the driver binds to, its register BAR and its capabilities', () => {
    const { device, read, write } = host();
    expect(device.spec).toMatchObject({ vendorId: 0x104c, deviceId: 0xb00d, msix: { vectors: 32 }, interruptPin: 1 });
    expect(read(0x30)).toBe(0x3f);
    write(0x30, 0);
    write(0, 0xa0a0_a0a0);
    expect([read(0x30), read(0)]).toEqual([0x3f, 0xa0a0_a0a0]);
    expect(host({ msi: 0, msix: 0, intx: false }).read(0x30)).toBe(0x31);
  });

  it('raises each kind of interrupt by number, and sets the status first', () => {
    const { run, events, state } = host();
    expect(run(2, { [IRQ_TYPE]: 1, [IRQ_NUMBER]: 32 })).toBe(RAISED);
    expect(run(4, { [IRQ_TYPE]: 2, [IRQ_NUMBER]: 1 })).toBe(RAISED);
    expect(events).toEqual(['vector 31', 'vector 0']);
    run(2, { [IRQ_TYPE]: 1, [IRQ_NUMBER]: 33 });
    run(2, { [IRQ_NUMBER]: 0 });
    state.messages = false;
    run(1, { [IRQ_TYPE]: 0, [IRQ_NUMBER]: 0 });
    expect(events.slice(2)).toEqual(['line up', 'line down']);
    // An unknown type: the command is dropped.
    expect(run(1, { [IRQ_TYPE]: 3 })).toBe(0);
  });

  it('reads, writes and copies with a checksum', () => {
    const { run, read, memory, events } = host();
    memory.set(new TextEncoder().encode('123456789'), 0x1001);
    // CRC-32/JAMCRC's check value: no inversion at the end.
    const irq = { [IRQ_TYPE]: 1, [IRQ_NUMBER]: 1, [SIZE]: 9 };
    expect(run(READ, { ...irq, [SRC]: 0x1001, [CHECKSUM]: 0x340b_c6d9 })).toBe(RAISED | 1);
    expect(run(READ, { [CHECKSUM]: 0 })).toBe(RAISED | 2);
    expect(run(COPY, { [DST]: 0x2003 })).toBe(RAISED | 0x10);
    expect(new TextDecoder().decode(memory.subarray(0x2003, 0x200c))).toBe('123456789');
    expect(run(WRITE, { [DST]: 0x3000, [SIZE]: 1000 })).toBe(RAISED | 4);
    expect(crc32(memory.subarray(0x3000, 0x33e8)) >>> 0).toBe(read(CHECKSUM));
    expect(new Set(memory.subarray(0x3000, 0x33e8)).size).toBeGreaterThan(200);
    expect(events).toEqual(Array(4).fill('vector 0'));
  });

  it('says which address was not to be reached', () => {
    const { run } = host();
    const bad = 0x10_0000;
    const irq = { [IRQ_TYPE]: 1, [IRQ_NUMBER]: 1, [SIZE]: 16 };
    expect(run(READ, { ...irq, [SRC]: bad })).toBe(RAISED | 0x82);
    expect(run(COPY)).toBe(RAISED | 0xa0);
    expect(run(COPY, { [SRC]: 0, [DST]: bad })).toBe(RAISED | 0x120);
    expect(run(WRITE)).toBe(RAISED | 0x108);
    expect(run(WRITE, { [SIZE]: -1 })).toBe(RAISED | 0x108);
  });

  it('has a doorbell in BAR 1 that rings while it is enabled', () => {
    const { run, read, write, registers, events } = host();
    const bar = registers(1);
    bar.write(0x40, 4, 0x1234_5678);
    expect(run(0x80, { [IRQ_TYPE]: 1, [IRQ_NUMBER]: 1 })).toBe(RAISED | 0x2000);
    expect(run(0x40)).toBe(RAISED | 0x400);
    expect(read(0x34)).toBe(1);
    write(STATUS, 0);
    bar.write(read(0x38), 4, read(0x3c) ^ 1);
    expect([read(STATUS), bar.read(0x40, 4)]).toEqual([0, 0]);
    bar.write(read(0x38), 4, read(0x3c));
    expect([read(STATUS), events.length]).toEqual([RAISED | 0x200, 3]);
    expect([run(0x80), bar.read(0x40, 4)]).toEqual([RAISED | 0x1000, 0x1234_5678]);
  });

  it.each([1, 2, 4])('maps the halves of BAR %d in the other order, and back', (bar) => {
    const { device, run, port, registers } = host();
    const size = device.spec.bars[bar]!.size;
    const byte = (at: number): number => (bar === 1 ? registers(1).read(at, 1) : port.barMemory(bar, at, 1)[0]);
    const half = size / 2;
    expect(run(0x100, { [IRQ_TYPE]: 1, [IRQ_NUMBER]: 1, [SIZE]: bar })).toBe(RAISED | 0x4000);
    const first = 0x50 + bar * 8;
    expect([byte(0), byte(half - 1), byte(half), byte(size - 1)]).toEqual([first, first, first + 1, first + 1]);
    expect(run(0x200)).toBe(RAISED | 0x1_0000);
    expect([byte(0), byte(half - 1), byte(half), byte(size - 1)]).toEqual([first + 1, first + 1, first, first]);
    expect(run(0x200)).toBe(RAISED | 0x2_0000);
    expect([run(0x100, { [SIZE]: 0 }), run(0x100, { [SIZE]: 3 })]).toEqual([RAISED | 0x8000, RAISED | 0x8000]);
  });

  it('a reset in the middle: nothing is told afterwards', () => {
    const { device, write, read, drain, events, memory } = host();
    for (const [offset, value] of [
      [SIZE, 4],
      [DST, 0x2000],
      [IRQ_TYPE, 1],
      [IRQ_NUMBER, 1],
      [COMMAND, COPY],
    ])
      write(offset, value);
    memory.set([1, 2, 3, 4]);
    device.reset();
    drain();
    expect([read(STATUS), read(SIZE), memory[0x2000], events]).toEqual([0, 0, 0, []]);
  });

  it('random copies and checksums agree with a model', () => {
    const place = fc.integer({ min: 0, max: 0xff00 });
    const step = fc.record({ copy: fc.boolean(), from: place, to: place, size: fc.integer({ min: 1, max: 0x200 }) });
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 8 }), (steps) => {
        const { run, read, memory, events } = host();
        for (let at = 0; at < memory.length; at += 7) memory[at] = at;
        const expected = memory.slice();
        for (const { copy, from, to, size } of steps) {
          const reachable = to + size <= memory.length && (!copy || from + size <= memory.length);
          const values = { [IRQ_TYPE]: 2, [IRQ_NUMBER]: 2, [SRC]: from, [DST]: to, [SIZE]: size };
          const status = run(copy ? COPY : WRITE, values);
          expect((status & (copy ? 0x10 : 4)) !== 0).toBe(reachable);
          if (copy && reachable) expected.copyWithin(to, from, from + size);
          else if (reachable) {
            const bytes = memory.subarray(to, to + size);
            expect(crc32(bytes) >>> 0).toBe(read(CHECKSUM));
            expected.set(bytes, to);
          }
        }
        expect(Buffer.compare(memory, expected)).toBe(0);
        expect(events).toEqual(steps.map(() => 'vector 1'));
      }),
      { numRuns: 1000 },
    );
  });
});
