/** A carrier for one model without a machine: memory that is an array, time that a test moves, interrupts written down. */
import type { PciFunction, PciPort } from '../../ports/pci.ts';
import type { Job } from '../../ports/work.ts';

export function carry(model: PciFunction, memoryBytes = 0x1_0000) {
  const memory = new Uint8Array(memoryBytes);
  const bars = new Map<number, Uint8Array>();
  const events: string[] = [];
  const jobs: (() => void)[] = [];
  let alarms: { at: number; job: Job }[] = [];
  let now = 0;
  const state = { messages: true };
  const fits = (iova: number, length: number): boolean => iova >= 0 && iova + length <= memory.length;
  const port: PciPort = {
    clock: {
      now: () => now,
      after: (delay, job) => {
        const alarm = { at: now + delay, job };
        alarms.push(alarm);
        return () => {
          alarms = alarms.filter((other) => other !== alarm);
        };
      },
    },
    get messagesEnabled() {
      return state.messages;
    },
    raise: (vector) => {
      events.push(`vector ${vector}`);
      return true;
    },
    setInterruptLine: (asserted) => void events.push(asserted ? 'line up' : 'line down'),
    dmaRead: (iova, length, complete) => {
      jobs.push(() =>
        complete(fits(iova, length), fits(iova, length) ? memory.slice(iova, iova + length) : new Uint8Array(length)),
      );
    },
    dmaWrite: (iova, bytes, complete) => {
      const copy = bytes.slice();
      jobs.push(() => {
        if (fits(iova, copy.length)) memory.set(copy, iova);
        complete(fits(iova, copy.length));
      });
    },
    barMemory: (bar, offset, size) => {
      if (!bars.has(bar)) bars.set(bar, new Uint8Array(model.spec.bars[bar]!.size));
      return bars.get(bar)!.subarray(offset, offset + size);
    },
  };
  model.connect(port);
  return {
    memory,
    events,
    state,
    port,
    drain: () => {
      for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) job();
    },
    advance: (ns: number) => {
      now += ns;
      const due = alarms.filter(({ at }) => at <= now);
      alarms = alarms.filter(({ at }) => at > now);
      for (const { job } of due) job.run();
    },
  };
}
