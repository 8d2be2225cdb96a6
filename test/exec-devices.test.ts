/**
 * Several programs on one simulated host, and programs that end at any moment. BELFRY_KILLS is the number of kills (`npm run nightly`: 500),
 * BELFRY_REQUESTS that of random requests (20,000; 10,000,000 take some eight minutes).
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { jsonLines, programOf, root, run, spawned, titled } from './support/exec-run.ts';

const KILLS = Number(process.env['BELFRY_KILLS'] ?? 40);
const REQUESTS = Number(process.env['BELFRY_REQUESTS'] ?? 20_000);
/** The one of all random tests; it stands in the titles. */
const SEED = (fc.readConfigureGlobal().seed ?? Math.floor(Math.random() * 2 ** 31)) >>> 0;
const { program, reason } = programOf('device-program');
const two = ['--device', 'bell', '--device', 'bell'];

describe('two programs on two devices of one host', () => {
  it.skipIf(reason !== null)(titled('each has its own bytes at the same IOVA, and its own interrupts', reason), () => {
    const script = '"$0" 0000:01:00.0 pattern 60 & "$0" 0000:02:00.0 pattern 60 & wait';
    const ran = run(['--json', ...two, '--', 'sh', '-c', script, program]);
    expect(ran.out.split('\n').sort()).toEqual([
      '',
      expect.stringMatching(/^0000:01:00\.0: 0 wrong, \d+ sent, 0 missing$/),
      expect.stringMatching(/^0000:02:00\.0: 0 wrong, \d+ sent, 0 missing$/),
    ]);
    const sent = [...ran.out.matchAll(/(\d+) sent/g)].reduce((sum, [, count]) => sum + Number(count), 0);
    const [summary] = jsonLines(ran);
    expect(summary).toMatchObject({ kind: 'summary', refused: 0, interrupts: { sent, delivered: sent, lost: {} } });
  });

  it.skipIf(reason !== null)(
    titled('a group has one owner: EBUSY for another program, and for its own second open', reason),
    () => {
      const script = [
        '"$0" 0000:01:00.0 twice',
        // Its own input: the shell gives what runs behind & an empty one.
        'mkfifo "$1"; "$0" 0000:01:00.0 hold < "$1" | { read held; echo "$held"; "$0" 0000:01:00.0 open; "$0" 0000:02:00.0 open; echo > "$1"; } &',
        'exec 3> "$1"; wait; "$0" 0000:01:00.0 open',
      ].join('\n');
      const fifo = `${program}.fifo`;
      const { out } = run(['--quiet', ...two, '--', 'sh', '-c', script, program, fifo]);
      expect(out.split('\n')).toEqual([
        'second -1 Device or resource busy',
        'held',
        '/dev/vfio/2: Device or resource busy',
        'opened',
        'opened',
        '',
      ]);
    },
  );
});

describe('kill -9 at any moment', () => {
  it.skipIf(reason !== null)(
    titled(`${KILLS} times, seed ${SEED}: every count is back, and the other program works on`, reason),
    () => {
      const harness = `${root}/test/support/kill-counts.mjs`;
      const { out, err } = spawned(process.execPath, [harness, program, String(KILLS), String(SEED)]);
      expect(err).toBe('');
      const lines = out.trim().split('\n');
      expect(lines.at(-2)).toMatch(/^0000:02:00\.0: 0 wrong, [1-9]\d* sent, 0 missing$/);
      const { ended, different, before, sent, delivered } = JSON.parse(lines.at(-1) ?? '');
      // What the other program holds: container, group, device; 16 pages; an eventfd for each of two vectors.
      expect(before).toMatchObject({ files: 3, pinned: 65_536, eventfds: 2, vectors: null, translates: true });
      expect({ different, lost: sent - delivered }).toEqual({ different: [], lost: 0 });
      // Some are killed before their first call.
      expect(ended).toBeGreaterThan(KILLS / 2);
    },
    3_600_000,
  );
});

describe('random requests', () => {
  const random = programOf('random-program');

  it.skipIf(random.reason !== null)(
    titled(`${REQUESTS} on every kind of file, seed ${SEED}: all are answered`, random.reason),
    () => {
      const devices = ['--iommufd-test', '--device', 'bell', '--device', 'edu'];
      const args = ['--json', ...devices, '--', random.program, String(REQUESTS), String(SEED)];
      const ran = run(args);
      expect(ran.err.split('\n').filter((line) => line !== '' && !line.startsWith('{'))).toEqual([]);
      const [, calls, well, kinds] = /^(\d+) calls, (\d+) did something, (\d+) kinds/.exec(ran.out) ?? [];
      expect({ status: ran.status, calls: Number(calls) }).toEqual({ status: 0, calls: REQUESTS });
      // They must reach what they are about.
      expect(Number(well)).toBeGreaterThan(REQUESTS / 50);
      expect(Number(kinds)).toBeGreaterThanOrEqual(20);
    },
    3_600_000,
  );
});
