/** A trace for programs: one JSON object on a line for each hop. */
import { hexPlain } from '../ports/address.ts';
import { lossName } from '../ports/ledger.ts';
import type { FaultRecord, TranslationOutcome, WalkStep } from '../ports/outcome.ts';
import type { Hop, HopObserver } from '../ports/tap.ts';
import { requesterName } from './hop-text.ts';

export interface JsonLinesTraceOptions {
  /** Adds `time` to each object: whatever the clock says, the simulated one in nanoseconds. */
  readonly now?: () => number;
}

/**
 * Addresses, data and table entries are strings (`"0x8090040"`), since JSON's numbers are not exact beyond 2^53 in every reader;
 * a requester is its name (`"0000:01:00.0"`). `n` counts the hops from 1.
 */
export class JsonLinesTrace implements HopObserver {
  readonly #write: (text: string) => void;
  readonly #now: (() => number) | null;
  #n = 0;

  constructor(write: (text: string) => void, options: JsonLinesTraceOptions = {}) {
    this.#write = write;
    this.#now = options.now ?? null;
  }

  hop(hop: Hop): void {
    this.#n++;
    const time = this.#now === null ? {} : { time: this.#now() };
    this.#write(`${JSON.stringify({ n: this.#n, ...time, ...hopObject(hop) })}\n`);
  }
}

type Json = Readonly<Record<string, unknown>>;
const word = (value: number): string => hexPlain(value >>> 0);

/** A hop with its numbers as people and JSON can read them. */
export function hopObject(hop: Hop): Json {
  switch (hop.at) {
    case 'device':
      return { ...hop, requester: requesterName(hop.requester), address: hexPlain(hop.address), data: word(hop.data) };
    case 'iommu': {
      const outcome = outcomeObject(hop.outcome);
      return { ...hop, requester: requesterName(hop.requester), iova: hexPlain(hop.iova), outcome };
    }
    case 'controller':
      return { ...hop, doorbell: hexPlain(hop.doorbell), data: word(hop.data), deviceId: hexPlain(hop.deviceId) };
    case 'irqfd':
      return { ...hop, address: hexPlain(hop.address), data: word(hop.data), deviceId: hexPlain(hop.deviceId) };
    case 'lost':
      return { ...hop, loss: lossName(hop.loss) };
    default:
      return { ...hop };
  }
}

function outcomeObject(outcome: TranslationOutcome): Json {
  switch (outcome.kind) {
    case 'translated':
      return { ...outcome, pa: hexPlain(outcome.pa), steps: outcome.steps.map(stepObject) };
    case 'bypass':
      return { ...outcome, pa: hexPlain(outcome.pa) };
    case 'abort':
      return { ...outcome, steps: outcome.steps.map(stepObject) };
    case 'fault': {
      const { iova, record, steps } = outcome;
      return { ...outcome, iova: hexPlain(iova), record: recordObject(record), steps: steps.map(stepObject) };
    }
    case 'stall':
      return { ...outcome, record: recordObject(outcome.record) };
  }
}

const stepObject = (step: WalkStep): Json => ({ ...step, at: hexPlain(step.at), entry: hexPlain(step.entry) });
const recordObject = (record: FaultRecord): Json => ({
  ...record,
  words: record.words.map((value) => hexPlain(value)),
});
