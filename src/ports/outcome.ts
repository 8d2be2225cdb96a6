/** The rich answer of a translation, built on demand; the walk itself only answers a {@link StatusCode}. */
import type { Hpa, Iova } from './address.ts';

/** One step of a table walk, as a person would write it down. */
export interface WalkStep {
  /** `stage 1` or `stage 2`, `second level`, `stream table`, `context descriptor`. */
  readonly table: string;
  /** Level of the table, 0 to 3; -1 for a configuration table. */
  readonly level: number;
  /** Host-physical address of the entry. */
  readonly at: Hpa;
  /** The entry's value. */
  readonly entry: bigint;
}

/** An event record as the IOMMU wrote, or would write, it. */
export interface FaultRecord {
  /** The architecture's name: `F_TRANSLATION`, `C_BAD_STE`, `DMA write: PTE not present`. */
  readonly name: string;
  /** Event number (SMMUv3) or fault reason (VT-d). */
  readonly id: number;
  /** The record's 64-bit words, least significant first. */
  readonly words: readonly bigint[];
  /** Stage that refused, 1 or 2; 0 when configuration did. */
  readonly stage: 0 | 1 | 2;
}

export type TranslationOutcome =
  | { readonly kind: 'translated'; readonly pa: Hpa; readonly steps: readonly WalkStep[]; readonly tlbHit: boolean }
  | { readonly kind: 'bypass'; readonly pa: Hpa; readonly why: string }
  | { readonly kind: 'abort'; readonly why: string; readonly steps: readonly WalkStep[] }
  | {
      readonly kind: 'fault';
      readonly record: FaultRecord;
      readonly iova: Iova;
      readonly why: string;
      readonly steps: readonly WalkStep[];
    }
  | { readonly kind: 'stall'; readonly record: FaultRecord; readonly tag: number; readonly why: string };
