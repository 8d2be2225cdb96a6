/** What the SMMU does with the transactions of one stream and substream: an STE and, with stage 1, a CD, decoded. */

import { Regime, tlbHash, tlbId } from '../tlb.ts';
import type { Stage } from './stage.ts';

export type ContextKind = 'abort' | 'bypass' | 'translate';

export interface ContextOptions {
  readonly kind: ContextKind;
  readonly s1?: Stage | null;
  /** Stage 1 of the upper half of the address space (TTB1). */
  readonly s1Upper?: Stage | null;
  readonly topByteIgnored?: boolean;
  readonly s2?: Stage | null;
  readonly asid?: number;
  readonly vmid?: number;
  /** CD.R and STE.S2R: record what a stage refuses. */
  readonly record1?: boolean;
  readonly record2?: boolean;
  readonly stall1?: boolean;
  readonly stall2?: boolean;
}

export class StreamContext {
  declare readonly sid: number;
  declare readonly ssid: number;
  declare readonly kind: ContextKind;
  /** Stage 1 of the lower half; null with EPD0 or without stage 1. */
  declare readonly s1: Stage | null;
  declare readonly s1Upper: Stage | null;
  declare readonly hasStage1: boolean;
  declare readonly topByteIgnored: boolean;
  declare readonly s2: Stage | null;
  /** Compared by every TLB hit. */
  declare readonly regime: number;
  declare readonly id: number;
  declare readonly hash: number;
  declare readonly record1: boolean;
  declare readonly record2: boolean;
  declare readonly stall1: boolean;
  declare readonly stall2: boolean;

  constructor(sid: number, ssid: number, options: ContextOptions) {
    this.sid = sid;
    this.ssid = ssid;
    this.kind = options.kind;
    this.s1 = options.s1 ?? null;
    this.s1Upper = options.s1Upper ?? null;
    this.hasStage1 = options.s1 !== undefined;
    this.topByteIgnored = options.topByteIgnored ?? false;
    this.s2 = options.s2 ?? null;
    this.regime = options.kind !== 'translate' ? Regime.NONE : (this.hasStage1 ? 1 : 0) | (this.s2 === null ? 0 : 2);
    this.id = tlbId(options.vmid ?? 0, options.asid ?? 0);
    this.hash = tlbHash(this.id);
    this.record1 = options.record1 ?? true;
    this.record2 = options.record2 ?? true;
    this.stall1 = options.stall1 ?? false;
    this.stall2 = options.stall2 ?? false;
  }
}

/** Stands in every empty slot of the configuration cache: no transaction has this stream id, and no TLB entry this regime. */
export const NO_CONTEXT = new StreamContext(-2, -2, { kind: 'abort' });

/** Stage 1 for an address: null when the stream has none, undefined when that half of the address space is disabled. */
export function stage1Of(context: StreamContext, hi: number): Stage | null | undefined {
  if (!context.hasStage1) return null;
  // With TBI the top byte says nothing; bit 55 chooses the half.
  const upper = context.topByteIgnored ? (hi & (1 << 23)) !== 0 : hi < 0;
  return (upper ? context.s1Upper : context.s1) ?? undefined;
}

/** The high half that indexes the tables: without the ignored top byte, and without the ones above an upper half's size. */
export function walkHi(context: StreamContext, s1: Stage | null, hi: number): number {
  if (s1 === null) return hi;
  let top = hi;
  if (context.topByteIgnored) top = (hi << 8) >> 8;
  if (s1 !== context.s1Upper || top >= 0) return top;
  // Only if all bits above the input size are ones does anything remain of the address.
  const ones = -1 << (s1.inputBits - 32);
  return (top & ones) === ones ? top & ~ones : top;
}
