/** `belfry exec --trace FILE`, and the places of `--device`. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { obstacle, programOf, run, scratch, titled } from './support/exec-run.ts';

interface TraceEvent {
  readonly name: string;
  readonly cat?: string;
  readonly ph: string;
  readonly pid: number;
  readonly tid: number;
  readonly ts: number;
  readonly dur: number;
  readonly args: Readonly<Record<string, unknown>>;
}

const { program, reason } = programOf('vfio-program');

describe('--trace', () => {
  it.skipIf(obstacle() !== null)(titled('is whole when a signal ends the program', obstacle()), () => {
    const file = join(scratch, 'killed.json');
    const { signal } = run(['--quiet', '--trace', file, '--', 'sh', '-c', 'ls /dev/vfio; kill -SEGV $$']);
    expect(signal).toBe('SIGSEGV');
    const events = JSON.parse(readFileSync(file, 'utf8')) as TraceEvent[];
    expect(events.some(({ name, pid }) => name === 'process_name' && pid !== 1)).toBe(true);
  });

  it.skipIf(obstacle() !== null)(titled('does no harm to the program when the disk is full', obstacle()), () => {
    const { status, err } = run(['--quiet', '--trace', '/dev/full', '--', 'sh', '-c', 'ls /dev/vfio; exit 4']);
    expect(status).toBe(4);
    expect(err).toBe('belfry: --trace /dev/full: ENOSPC: no space left on device, write; the trace ends there\n');
  });

  it.skipIf(reason !== null)(titled('has each request, what it answered, and the hops that it set off', reason), () => {
    const file = join(scratch, 'trace.json');
    const { status } = run(['--quiet', '--trace', file, '--', program, 'basic']);
    expect(status).toBe(0);
    const events = JSON.parse(readFileSync(file, 'utf8')) as TraceEvent[];
    const programs = events.filter(({ name, pid }) => name === 'process_name' && pid !== 1);
    // The name of a program is what the kernel has: 15 characters (TASK_COMM_LEN).
    expect(programs.map(({ args }) => args['name'])).toContain('vfio-program');
    const calls = events.filter(({ cat }) => cat === 'request' || cat === 'refused');
    const ours = calls.filter(({ pid }) => pid === programs.at(-1)?.pid);
    expect(ours.map(({ name }) => name).filter((name) => name.startsWith('VFIO'))).toEqual([
      ...['VFIO_GROUP_SET_CONTAINER', 'VFIO_SET_IOMMU', 'VFIO_GROUP_GET_DEVICE_FD', 'VFIO_DEVICE_GET_INFO'],
      'VFIO_DEVICE_GET_INFO',
    ]);
    const refused = ours.filter(({ cat }) => cat === 'refused');
    expect(refused.map(({ args }) => [args['result'], args['code']])).toEqual([
      [-16, 'EBUSY'],
      [-25, 'ENOTTY'],
      [-14, 'EFAULT'],
    ]);
    expect(refused[0]?.args['why']).toContain('group 1 is open already');
    expect(ours.every(({ ts, dur, tid }, i) => ts >= (ours[i - 1]?.ts ?? 0) && dur > 0 && tid > 0)).toBe(true);
  });

  it.skipIf(reason !== null)(titled('shows an interrupt within the call that raised it', reason), () => {
    const file = join(scratch, 'hops.json');
    run(['--quiet', '--trace', file, '--', program, 'irq']);
    const events = JSON.parse(readFileSync(file, 'utf8')) as TraceEvent[];
    const hops = events.filter(({ ph, pid }) => ph === 'X' && pid === 1);
    const of = hops.map(({ cat }) => cat);
    expect(of.slice(0, 5)).toEqual(['device', 'iommu', 'controller', 'irq', 'eventfd']);
    const [first] = hops;
    const around = events.find(
      ({ name, ts, dur }) => name === 'write' && ts <= (first?.ts ?? 0) && (first?.ts ?? 0) <= ts + dur,
    );
    expect(around).toMatchObject({ cat: 'request', args: { result: 4 } });
  });

  it.skipIf(reason !== null)(titled('a file that cannot be made is a problem', reason), () => {
    const { status, err } = run(['--trace', '/does/not/exist.json', '--', 'true']);
    expect(status).toBe(1);
    expect(err).toMatch(/^belfry: --trace \/does\/not\/exist\.json: ENOENT/);
  });
});

describe('--device …,slot=', () => {
  const why = obstacle();
  const devices = (...options: string[]) =>
    run(['--quiet', ...options.flatMap((option) => ['--device', option]), '--', 'ls', '/sys/bus/pci/devices']);

  it.skipIf(why !== null)(titled('puts a device behind the port, or on the root bus, that it names', why), () => {
    const { out } = devices('bell,slot=0000:03:00.0', 'edu,slot=0000:00:02.0', 'bell,msix=4');
    // Three root ports beside edu's place; the device without a place is behind the first one.
    expect(out.split('\n').filter((name) => name !== '')).toEqual([
      ...['0000:00:01.0', '0000:00:02.0', '0000:00:03.0', '0000:00:04.0', '0000:01:00.0', '0000:03:00.0'],
    ]);
    const id = ['--', 'cat', '/sys/bus/pci/devices/0000:00:02.0/device'];
    expect(run(['--quiet', '--device', 'edu,slot=0000:00:02.0', ...id]).out).toBe('0x11e8\n');
  });

  it.skipIf(why !== null)(titled('says which field is wrong', why), () => {
    const { status, err } = devices('bell,slot=0000:01:00.0', 'edu,slot=0000:01:00.0');
    expect(status).toBe(2);
    expect(err).toMatch(/^belfry: --device edu: slot: 0000:01:00\.0 is not free: bell is there\nusage: /);
  });
});
