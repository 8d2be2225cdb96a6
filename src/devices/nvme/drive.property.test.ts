/** Random programs on several queues: what is read is what was written, and each command is answered once. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { nvmeDriver } from '../testing/nvme-driver.ts';
import { NvmeDrive } from './drive.ts';

const [WRITE, READ, ZEROES] = [1, 2, 8];
const BLOCK = 512;
/** Commands of one round touch a slot of their own: the order among queues is not told. */
const SLOT_BLOCKS = 12;
const SLOTS = 8;
const buffer = (slot: number): number => 0x2_0000 + slot * 0x4000;

const operation = fc.record({
  opcode: fc.constantFrom(WRITE, READ, READ, ZEROES),
  slot: fc.nat(SLOTS - 1),
  queue: fc.integer({ min: 1, max: 3 }),
  first: fc.nat(SLOT_BLOCKS - 1),
  count: fc.integer({ min: 1, max: SLOT_BLOCKS }),
  /** Where in its page the data begins, in words; and whether the second page follows the first. */
  offset: fc.nat(1023),
  apart: fc.boolean(),
  take: fc.nat(3),
});
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

function start() {
  const driver = nvmeDriver(new NvmeDrive({ size: '1M', queues: 3 }));
  driver.enable();
  for (const queue of [1, 2, 3]) driver.createQueues(queue, 2 + queue);
  return driver;
}
type Driver = ReturnType<typeof start>;

/** The pages of an operation's data, as offset and length. */
function pieces({ slot, offset, count, apart }: Operation): { at: number; length: number }[] {
  const base = buffer(slot);
  const length = count * BLOCK;
  const first = Math.min(length, 4096 - offset * 4);
  const second = Math.min(length - first, 4096);
  const third = length - first - second;
  const page = apart ? 0x2000 : 0x1000;
  return [
    { at: base + offset * 4, length: first },
    { at: base + page, length: second },
    { at: base + (apart ? 0x1000 : 0x2000), length: third },
  ].filter((piece) => piece.length > 0);
}

function submit(driver: Driver, operation: Operation): number {
  const { slot, first, opcode, queue } = operation;
  const count = Math.min(operation.count, SLOT_BLOCKS - first);
  const places = pieces({ ...operation, count });
  const list = buffer(slot) + 0x3000;
  for (const [index, { at }] of places.slice(1).entries()) driver.view.setBigUint64(list + index * 8, BigInt(at), true);
  const prp2 = places.length > 2 ? list : (places[1]?.at ?? 0);
  const words = [slot * SLOT_BLOCKS + first, 0, count - 1];
  return driver.put(queue, { opcode, nsid: 1, prp1: places[0].at, prp2, words });
}

it('1,000 random programs', () => {
  fc.assert(
    fc.property(
      fc.array(fc.array(operation, { minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 5 }),
      (rounds) => {
        const driver = start();
        const medium = new Uint8Array(SLOTS * SLOT_BLOCKS * BLOCK);
        let stamp = 1;
        let total = 0;
        for (const round of rounds) {
          const chosen = round.filter(({ slot }, index) => round.findIndex((other) => other.slot === slot) === index);
          const fits = chosen.filter(
            ({ queue }, index) => chosen.slice(0, index).filter((other) => other.queue === queue).length <= queue,
          );
          const expected = new Map<number, number>();
          const reads: { operation: Operation; from: number; bytes: number }[] = [];
          for (const each of fits) {
            const count = Math.min(each.count, SLOT_BLOCKS - each.first);
            const from = (each.slot * SLOT_BLOCKS + each.first) * BLOCK;
            let at = from;
            for (const piece of pieces({ ...each, count })) {
              for (let i = 0; i < piece.length; i += 64)
                driver.memory.fill(stamp++ & 0xff, piece.at + i, piece.at + i + 64);
              if (each.opcode === WRITE) medium.set(driver.memory.subarray(piece.at, piece.at + piece.length), at);
              at += piece.length;
            }
            if (each.opcode === ZEROES) medium.fill(0, from, at);
            if (each.opcode === READ) reads.push({ operation: { ...each, count }, from, bytes: at - from });
            expected.set(submit(driver, each), each.queue);
          }
          for (const queue of [1, 2, 3]) driver.ring(queue);
          const answered: number[] = [];
          for (const { take, queue } of [...fits, ...fits]) {
            driver.drain();
            answered.push(
              ...driver.take(queue, take).map(({ id, status, queue: from }) => {
                expect([status, expected.get(id)]).toEqual([0, from]);
                return id;
              }),
            );
          }
          for (const queue of [1, 2, 3, 1, 2, 3]) {
            answered.push(...driver.take(queue).map(({ id }) => id));
            driver.drain();
          }
          expect(answered.sort((a, b) => a - b)).toEqual([...expected.keys()]);
          total += answered.length;
          for (const { operation: each, from, bytes } of reads) {
            const got = Buffer.concat(pieces(each).map(({ at, length }) => driver.memory.subarray(at, at + length)));
            expect(Buffer.compare(got, medium.subarray(from, from + bytes))).toBe(0);
          }
        }
        const vectors = driver.events.filter((event) => event !== 'vector 0').length;
        expect(vectors).toBe(total);
      },
    ),
    { numRuns: 1000 },
  );
});
