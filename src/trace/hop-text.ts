/** Hops in words: what text and Chrome traces say of one. */
import { hex } from '../ports/address.ts';
import { lossName } from '../ports/ledger.ts';
import type { TranslationOutcome } from '../ports/outcome.ts';
import { pciName } from '../ports/pci.ts';
import type { Hop } from '../ports/tap.ts';

/** What a hop did, in three columns: who, with what, to what end. */
export interface HopText {
  readonly who: string;
  readonly what: string;
  readonly end: string;
}

/** `0000:01:00.0` of a requester id. */
export const requesterName = (requester: number): string =>
  pciName({
    segment: requester >>> 16,
    bus: (requester >>> 8) & 0xff,
    device: (requester >>> 3) & 0x1f,
    function: requester & 7,
  });

/** Unsigned: data may arrive as a signed 32-bit half. */
const data = (value: number): string => hex(value >>> 0);

export function hopText(hop: Hop): HopText {
  switch (hop.at) {
    case 'device': {
      const message = hop.vector >= 0 ? `${hop.how} ${hop.vector}: ${data(hop.data)} to ` : `${hop.how} `;
      return { who: requesterName(hop.requester), what: `${message}${hex(hop.address)}`, end: hop.state };
    }
    case 'iommu':
      return {
        who: hop.name,
        what: `${requesterName(hop.requester)} iova ${hex(hop.iova)}`,
        end: outcomeText(hop.outcome),
      };
    case 'controller':
      return {
        who: hop.name,
        what: `device ${hex(hop.deviceId, 4)} event ${hop.eventId}: ${data(hop.data)} at ${hex(hop.doorbell)}`,
        end: `intid ${hop.intid} to cpu ${hop.cpu}`,
      };
    case 'irq':
      return { who: `irq ${hop.irq}`, what: `intid ${hop.intid}`, end: hop.action };
    case 'eventfd':
      return { who: `eventfd ${hop.id}`, what: 'signalled', end: `count ${hop.count}` };
    case 'irqfd':
      return {
        who: `gsi ${hop.gsi}`,
        what: `device ${hex(hop.deviceId, 4)}: ${data(hop.data)} to ${hex(hop.address)}`,
        end: 'injected',
      };
    case 'guest-controller':
      return { who: hop.name, what: `intid ${hop.intid} to cpu ${hop.cpu}`, end: hop.state };
    case 'guest-cpu':
      return { who: `cpu ${hop.cpu}`, what: `intid ${hop.intid}`, end: hop.action };
    case 'lost':
      return { who: hop.where, what: lossName(hop.loss), end: hop.why };
  }
}

export function outcomeText(outcome: TranslationOutcome): string {
  switch (outcome.kind) {
    case 'translated':
      return `${hex(outcome.pa)}${outcome.tlbHit ? ' (TLB)' : ''}`;
    case 'bypass':
      return `${hex(outcome.pa)} bypass: ${outcome.why}`;
    case 'abort':
      return `aborted: ${outcome.why}`;
    case 'fault':
      return `${outcome.record.name}: ${outcome.why}`;
    case 'stall':
      return `stalled (${outcome.record.name}, tag ${outcome.tag}): ${outcome.why}`;
  }
}
