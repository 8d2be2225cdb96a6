/** Features (5.21.1). None can be saved, so that there is one value of each: the current one. */
import { NvmeStatus } from './registers.ts';

export const Feature = {
  ARBITRATION: 0x01,
  POWER_MANAGEMENT: 0x02,
  TEMPERATURE_THRESHOLD: 0x04,
  ERROR_RECOVERY: 0x05,
  VOLATILE_WRITE_CACHE: 0x06,
  NUMBER_OF_QUEUES: 0x07,
  INTERRUPT_COALESCING: 0x08,
  INTERRUPT_VECTOR: 0x09,
  WRITE_ATOMICITY: 0x0a,
  ASYNC_EVENTS: 0x0b,
} as const;

/** Bits that each feature keeps of what is set. */
const KEPT: Readonly<Record<number, number>> = {
  [Feature.ARBITRATION]: 0xffff_ff07,
  [Feature.POWER_MANAGEMENT]: 0xff,
  [Feature.ERROR_RECOVERY]: 0x1_ffff,
  [Feature.VOLATILE_WRITE_CACHE]: 1,
  [Feature.INTERRUPT_COALESCING]: 0xffff,
  [Feature.WRITE_ATOMICITY]: 1,
  // SMART's critical warnings and the notice of a changed namespace.
  [Feature.ASYNC_EVENTS]: 0x1ff,
};
const NO_LIMIT = 7;
/** Kelvin; also what Identify says of the warning threshold. */
export const WARNING_KELVIN = 343;
export const CRITICAL_KELVIN = 353;
/** What the drive's only sensor always shows: 35 °C. */
export const KELVIN = 308;

export interface FeatureAnswer {
  readonly status: number;
  readonly result: number;
}

const ok = (result: number): FeatureAnswer => ({ status: NvmeStatus.SUCCESS, result });
const refused = (status: number): FeatureAnswer => ({ status, result: 0 });

export class Features {
  private readonly mostQueues: number;
  private readonly values = new Map<number, number>();
  private readonly vectors = new Map<number, number>();
  private over = WARNING_KELVIN;
  private under = 0;
  /** How many I/O queues of each kind may be created. */
  queues: number;

  constructor(mostQueues: number) {
    this.mostQueues = mostQueues;
    this.queues = mostQueues;
    this.reset();
  }

  reset(): void {
    this.values.clear();
    this.values.set(Feature.ARBITRATION, NO_LIMIT);
    this.values.set(Feature.VOLATILE_WRITE_CACHE, 1);
    this.vectors.clear();
    this.over = WARNING_KELVIN;
    this.under = 0;
    this.queues = this.mostQueues;
  }

  /** Is the sensor at or beyond a threshold? */
  get isTooHotOrCold(): boolean {
    return KELVIN >= this.over || KELVIN <= this.under;
  }

  /** Are events with these bits of the configuration wanted? */
  wants(bits: number): boolean {
    return ((this.values.get(Feature.ASYNC_EVENTS) ?? 0) & bits) !== 0;
  }

  get(id: number, word11: number): FeatureAnswer {
    if (id === Feature.NUMBER_OF_QUEUES) return ok((this.queues - 1) * 0x1_0001);
    if (id === Feature.TEMPERATURE_THRESHOLD) return this.threshold(word11, false);
    if (id === Feature.INTERRUPT_VECTOR) {
      const vector = word11 & 0xffff;
      return vector > this.mostQueues ? refused(NvmeStatus.INVALID_FIELD) : ok(this.vectors.get(vector) ?? vector);
    }
    return id in KEPT ? ok(this.values.get(id) ?? 0) : refused(NvmeStatus.INVALID_FIELD);
  }

  /** `queuesExist`: the number of queues is no longer to be changed. */
  set(id: number, word11: number, queuesExist: boolean): FeatureAnswer {
    switch (id) {
      case Feature.NUMBER_OF_QUEUES:
        return this.setQueues(word11, queuesExist);
      case Feature.TEMPERATURE_THRESHOLD:
        return this.threshold(word11, true);
      case Feature.INTERRUPT_VECTOR:
        return this.setVector(word11);
      case Feature.POWER_MANAGEMENT:
        // There is one power state.
        if ((word11 & 0x1f) !== 0) return refused(NvmeStatus.INVALID_FIELD);
        break;
    }
    const kept = KEPT[id];
    if (kept === undefined) return refused(NvmeStatus.INVALID_FIELD);
    this.values.set(id, (word11 & kept) >>> 0);
    return ok(0);
  }

  /** As many as asked for of each kind, up to what there are; both counts are zero-based. */
  private setQueues(word11: number, queuesExist: boolean): FeatureAnswer {
    const [submission, completion] = [word11 & 0xffff, word11 >>> 16];
    if (queuesExist) return refused(NvmeStatus.COMMAND_SEQUENCE_ERROR);
    if (submission === 0xffff || completion === 0xffff) return refused(NvmeStatus.INVALID_FIELD);
    this.queues = Math.min(this.mostQueues, Math.max(submission, completion) + 1);
    return ok((this.queues - 1) * 0x1_0001);
  }

  /** Bit 16 disables coalescing for a vector. */
  private setVector(word11: number): FeatureAnswer {
    const vector = word11 & 0xffff;
    if (vector > this.mostQueues) return refused(NvmeStatus.INVALID_FIELD);
    this.vectors.set(vector, word11 & 0x1_ffff);
    return ok(0);
  }

  /** Sensor 0 is the composite temperature, and the only one; a set of all (15) reaches it too. */
  private threshold(word11: number, set: boolean): FeatureAnswer {
    const [sensor, type] = [(word11 >>> 16) & 15, (word11 >>> 20) & 3];
    if (type > 1 || (sensor !== 0 && !(set && sensor === 15))) return refused(NvmeStatus.INVALID_FIELD);
    if (set && type === 0) this.over = word11 & 0xffff;
    if (set && type === 1) this.under = word11 & 0xffff;
    return ok(set ? 0 : type === 0 ? this.over : this.under);
  }
}
