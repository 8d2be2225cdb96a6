/** What every room on the interrupt's way holds: the ledger, and the observer when there is one. */
import type { Hpa, Iova } from './address.ts';
import type { TranslationOutcome } from './outcome.ts';

/** One hop of one interrupt (or of a DMA), for traces and for people. Built only while an observer is set. */
export type Hop =
  | {
      readonly at: 'device';
      readonly requester: number;
      readonly how: 'msi' | 'msix' | 'intx' | 'dma-read' | 'dma-write';
      /** Vector, or -1 for DMA. */
      readonly vector: number;
      readonly address: Iova;
      readonly data: number;
      /** What became of the raise. */
      readonly state: 'sent' | 'pending' | 'coalesced' | 'lost';
      /** Of a DMA that names an address space. */
      readonly pasid?: number;
    }
  | {
      readonly at: 'iommu';
      readonly name: string;
      readonly requester: number;
      readonly iova: Iova;
      readonly outcome: TranslationOutcome;
    }
  | {
      readonly at: 'controller';
      readonly name: string;
      readonly doorbell: Hpa;
      readonly data: number;
      readonly deviceId: number;
      readonly eventId: number;
      /** Host interrupt id (LPI, SPI, x86 vector). */
      readonly intid: number;
      readonly cpu: number;
    }
  | { readonly at: 'irq'; readonly intid: number; readonly irq: number; readonly action: string }
  | { readonly at: 'eventfd'; readonly id: number; readonly count: number }
  | {
      readonly at: 'irqfd';
      readonly gsi: number;
      readonly address: number;
      readonly data: number;
      readonly deviceId: number;
    }
  | {
      readonly at: 'guest-controller';
      readonly name: string;
      readonly intid: number;
      readonly cpu: number;
      readonly state: 'sent' | 'pending' | 'coalesced';
    }
  | { readonly at: 'guest-cpu'; readonly intid: number; readonly cpu: number; readonly action: 'acknowledge' | 'eoi' }
  | { readonly at: 'lost'; readonly where: string; readonly loss: number; readonly why: string };

export interface HopObserver {
  hop(hop: Hop): void;
}

/** Shared by all rooms of one simulated host. */
export interface Tap {
  /** null: nobody looks, and no hop is built. */
  observer: HopObserver | null;
  /** See ledger.ts; length LEDGER_SIZE. */
  readonly ledger: Float64Array;
}
