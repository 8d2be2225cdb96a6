/** What an event record says of a refused transaction. */
import { word64 } from '../../arch/bits.ts';
import type { EventRecord } from '../../arch/smmuv3/events.ts';
import { Access, type Transaction } from '../../ports/transaction.ts';
import type { ConfigurationFault } from './configuration.ts';
import type { TableWalker } from './walker.ts';

export function configurationEvent(tx: Transaction, fault: ConfigurationFault): EventRecord {
  return {
    ...requestOf(tx),
    id: fault.event,
    stage2: fault.stage2,
    class: fault.class,
    ipa: fault.ipa,
    fetch: fault.fetch,
    stall: false,
    tag: 0,
  };
}

/** `tag` -1: terminated, not stalled. */
export function translationEvent(walker: TableWalker, tx: Transaction, id: number, tag: number): EventRecord {
  return {
    ...requestOf(tx),
    id,
    stage2: walker.stage2,
    class: walker.class,
    ipa: word64(walker.ipaLo, walker.ipaHi),
    fetch: word64(walker.fetchLo, walker.fetchHi),
    stall: tag >= 0,
    tag: Math.max(tag, 0),
  };
}

function requestOf(tx: Transaction) {
  return {
    streamId: tx.requester,
    substreamId: tx.ssid,
    input: word64(tx.iovaLo, tx.iovaHi),
    read: (tx.access & Access.WRITE) === 0,
    privileged: (tx.access & Access.PRIVILEGED) !== 0,
    instruction: (tx.access & Access.EXECUTE) !== 0,
  };
}
