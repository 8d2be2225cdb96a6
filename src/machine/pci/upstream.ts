/** The way up from every function of a segment: across to a peer where nothing forbids it, through the IOMMU, onto the bus. */
import type { Bus } from '../../ports/bus.ts';
import type { Iommu } from '../../ports/iommu.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import type { Tap } from '../../ports/tap.ts';
import { Status, type StatusCode, type Transaction } from '../../ports/transaction.ts';
import type { Clock, WorkQueue } from '../../ports/work.ts';
import { type HostFunction, lossOf } from './function.ts';
import type { PeerRouter } from './peers.ts';

/** Compares unequal to every page (a page's low half has its low 12 bits clear). */
const NO_PAGE = 1;

export class Upstream {
  readonly tap: Tap;
  readonly work: WorkQueue;
  readonly clock: Clock;
  readonly bus: Bus;
  readonly iommu: Iommu | null;
  /** null until the segment has started. */
  peers: PeerRouter | null = null;
  // The 4 KiB page last seen to be a doorbell's, so that an interrupt's end is known by one compare.
  private bellHi = 0;
  private bellLo = NO_PAGE;

  constructor(parts: { tap: Tap; work: WorkQueue; clock: Clock; bus: Bus; iommu: Iommu | null }) {
    this.tap = parts.tap;
    this.work = parts.work;
    this.clock = parts.clock;
    this.bus = parts.bus;
    this.iommu = parts.iommu;
  }

  /** Sends an interrupt's write. Below zero: a controller has it. Otherwise the {@link Loss} that it ended in. */
  message(tx: Transaction, from: HostFunction): number {
    if (from.reachesPeers) {
      const peer = this.peers?.find(from, tx.iovaHi, tx.iovaLo) ?? null;
      if (peer !== null) {
        peer.write(peer.offsetOf(tx.iovaHi, tx.iovaLo), tx.size, tx.data);
        return Loss.PEER_TO_PEER;
      }
    }
    const translated = this.translate(tx);
    if (translated !== Status.OK) return lossOf(translated);
    if ((tx.paLo & -4096) !== this.bellLo || tx.paHi !== this.bellHi) {
      const loss = this.classify(tx);
      if (loss >= 0) {
        const status = this.bus.store(tx);
        return status === Status.OK ? loss : lossOf(status);
      }
    }
    const status = this.bus.store(tx);
    return status === Status.UNCLAIMED ? Loss.UNCLAIMED : -1;
  }

  /** Sets tx.pa. Without an IOMMU, addresses are physical. */
  translate(tx: Transaction): StatusCode {
    const { iommu } = this;
    if (iommu === null) {
      tx.paHi = tx.iovaHi;
      tx.paLo = tx.iovaLo;
      return Status.OK;
    }
    return iommu.translate(tx);
  }

  /** A translated DMA write that memory does not take: registers, or a doorbell, whose interrupt is counted as sent. */
  storeDma(tx: Transaction): StatusCode {
    if (this.classify(tx) < 0) this.tap.ledger[Count.SENT] += 1;
    return this.bus.store(tx);
  }

  /** Where a write to tx.pa ends if not at an interrupt controller: the loss, else -1 (and the page is remembered). */
  private classify(tx: Transaction): number {
    if (this.bus.memory.locate(tx.paHi, tx.paLo)) return Loss.WENT_TO_MEMORY;
    const pa = (tx.paHi >>> 0) * 2 ** 32 + (tx.paLo >>> 0);
    if (this.bus.claimant(pa) === null) return Loss.UNCLAIMED;
    if (this.peers?.owner(tx.paHi, tx.paLo) ?? false) return Loss.PEER_TO_PEER;
    this.bellHi = tx.paHi;
    this.bellLo = tx.paLo & -4096;
    return -1;
  }
}
