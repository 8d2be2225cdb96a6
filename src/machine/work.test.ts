import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { JobQueue, SimClock } from './work.ts';

describe('JobQueue', () => {
  it('runs in order, queues a waiting job once, and lets a job post itself again', () => {
    const queue = new JobQueue();
    const ran: string[] = [];
    let again = 1;
    const a = { run: () => ran.push('a') };
    const b = {
      run: () => {
        ran.push('b');
        queue.drain();
        if (again-- > 0) queue.post(b);
        queue.post(a);
      },
    };
    queue.post(a);
    queue.post(b);
    queue.post(a);
    queue.drain();
    expect(ran).toEqual(['a', 'b', 'b', 'a']);
  });

  it('keeps the jobs behind one that throws', () => {
    const queue = new JobQueue();
    let ran = 0;
    queue.post({
      run: () => {
        throw new Error('watcher');
      },
    });
    queue.post({ run: () => ran++ });
    expect(() => queue.drain()).toThrow('watcher');
    queue.drain();
    expect(ran).toBe(1);
  });
});

describe('JobQueue, few jobs and many', () => {
  it('behaves as a set of waiting jobs in the order of posting', () => {
    const program = fc.array(fc.oneof(fc.nat(79), fc.constant('drain' as const)), { maxLength: 300 });
    fc.assert(
      fc.property(program, (steps) => {
        const queue = new JobQueue();
        const ran: number[] = [];
        const jobs = Array.from({ length: 80 }, (_, id) => ({
          run: () => {
            ran.push(id);
            // Every fifth job posts another one while the queue drains.
            if (id % 5 === 4) queue.post(jobs[id - 1]!);
          },
        }));
        const waiting = new Set<number>();
        const expected: number[] = [];
        for (const step of steps) {
          if (step !== 'drain') {
            queue.post(jobs[step]!);
            waiting.add(step);
            continue;
          }
          queue.drain();
          for (const id of waiting) {
            waiting.delete(id);
            expected.push(id);
            if (id % 5 === 4) waiting.add(id - 1);
          }
        }
        expect(ran).toEqual(expected);
      }),
      { numRuns: 1000 },
    );
  });
});

describe('SimClock', () => {
  it('runs alarms in order of time, then of making, each at its own time', () => {
    const clock = new SimClock();
    const ran: string[] = [];
    const note = (name: string) => ({ run: () => ran.push(`${name}@${clock.now()}`) });
    clock.after(20, note('b'));
    clock.after(10, note('a'));
    clock.after(20, note('c'));
    const cancel = clock.after(15, note('never'));
    clock.after(5, { run: () => clock.after(1, note('nested')) });
    cancel();
    clock.advance(19);
    expect(ran).toEqual(['nested@6', 'a@10']);
    expect(clock.now()).toBe(19);
    clock.advance(1);
    expect(ran).toEqual(['nested@6', 'a@10', 'b@20', 'c@20']);
    expect(() => clock.advance(-1)).toThrow(RangeError);
  });
});
