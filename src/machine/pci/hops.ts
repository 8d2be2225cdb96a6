/** What an observer is told about a function's requests. Nothing here runs while nobody observes. */
import { fromHalves, hex, type Iova } from '../../ports/address.ts';
import { Loss, type LossCode, lossName } from '../../ports/ledger.ts';
import { Access, type Transaction } from '../../ports/transaction.ts';
import type { HostFunction } from './function.ts';

/** The exact address of halves; addresses of 2^53 and above (no hardware has them) keep their low 53 bits. */
const exact = (hi: number, lo: number): Iova => fromHalves(hi & 0x1f_ffff, lo) as Iova;

export function describeRaise(
  from: HostFunction,
  tx: Transaction,
  vector: number,
  state: 'sent' | 'pending' | 'coalesced' | 'lost',
): void {
  from.upstream.tap.observer?.hop({
    at: 'device',
    requester: from.streamId,
    how: from.msix?.enabled === true || from.msi === null ? 'msix' : 'msi',
    vector,
    address: exact(tx.iovaHi, tx.iovaLo),
    data: tx.data >>> 0,
    state,
  });
}

export function describePin(from: HostFunction, asserted: boolean): void {
  from.upstream.tap.observer?.hop({
    at: 'device',
    requester: from.streamId,
    how: 'intx',
    vector: 0,
    address: exact(0, 0),
    data: asserted ? 1 : 0,
    state: 'sent',
  });
}

export function describeDma(from: HostFunction, tx: Transaction): void {
  from.upstream.tap.observer?.hop({
    at: 'device',
    requester: from.streamId,
    how: tx.access === Access.READ ? 'dma-read' : 'dma-write',
    vector: -1,
    address: exact(tx.iovaHi, tx.iovaLo),
    data: tx.size,
    state: 'sent',
    ...(tx.ssid < 0 ? {} : { pasid: tx.ssid }),
  });
}

/** A sentence for people: why vector `vector` of `from` was lost. */
export function lossReason(loss: LossCode, from: HostFunction, vector: number, address: number): string {
  const who = `vector ${vector} of ${from.spec.name}`;
  switch (loss) {
    case Loss.BUS_MASTER_OFF:
      return `${who}: bus mastering is off in COMMAND here or in a bridge above, or the function is not in D0, so the write never left`;
    case Loss.NOT_ENABLED:
      return `${who}: ${from.messagesEnabled ? 'is beyond the vectors that software enabled' : 'neither MSI nor MSI-X is enabled'}`;
    case Loss.IOMMU_FAULT:
      return `${who}: the IOMMU refused a write to ${hex(address)} by requester ${hex(from.streamId, 4)}`;
    case Loss.IOMMU_ABORT:
      return `${who}: the IOMMU aborts every request of requester ${hex(from.streamId, 4)} silently`;
    case Loss.WENT_TO_MEMORY:
      return `${who}: its message address ${hex(address)} is ordinary memory, which now holds the data`;
    case Loss.PEER_TO_PEER:
      return `${who}: the BAR of another function took the write to ${hex(address)}`;
    case Loss.UNCLAIMED:
      return `${who}: nothing took the write to ${hex(address)}`;
    default:
      return `${who}: ${lossName(loss)}`;
  }
}
