/** Hops as sentences for the report; the columns of src/trace are for long lists. */
import { hex } from '../../ports/address.ts';
import { lossName } from '../../ports/ledger.ts';
import type { TranslationOutcome, WalkStep } from '../../ports/outcome.ts';
import type { Hop } from '../../ports/tap.ts';
import { requesterName } from '../../trace/index.ts';

const NAME_COLUMNS = 16;
const STEP_COLUMNS = 20;

/** The lines of one interrupt, numbered; a loss is not a hop but the end of them. */
export function hopLines(hops: readonly Hop[]): string[] {
  let number = 0;
  return hops.flatMap((hop) => {
    const [name, text] = sentence(hop);
    if (hop.at === 'lost') return [`  ${'LOST'.padStart(3)} ${name.padEnd(NAME_COLUMNS)}${text}`];
    number += 1;
    const line = `  ${String(number).padStart(3)}  ${name.padEnd(NAME_COLUMNS)}${text}`;
    return hop.at === 'iommu' ? [line, ...stepLines(hop.outcome)] : [line];
  });
}

function sentence(hop: Hop): [string, string] {
  switch (hop.at) {
    case 'device': {
      const from = requesterName(hop.requester);
      if (hop.vector < 0) return ['device', `${from} ${hop.how} at ${hex(hop.address)}`];
      const what = `${hop.how === 'msix' ? 'MSI-X' : 'MSI'} vector ${hop.vector}`;
      if (hop.state === 'sent') return ['device', `${from} ${what} writes ${hop.data >>> 0} to ${hex(hop.address)}`];
      return ['device', `${from} ${what} is ${hop.state}`];
    }
    case 'iommu':
      return ['IOMMU', `${hop.name}, stream ${hex(hop.requester, 4)}: ${hex(hop.iova)} ${outcome(hop.outcome)}`];
    case 'controller':
      return [
        'controller',
        `${hop.name}, device ${hex(hop.deviceId, 4)}, event ${hop.eventId}: interrupt ${hop.intid} for CPU ${hop.cpu}`,
      ];
    case 'irq':
      return ['irq core', `irq ${hop.irq} is ${hop.action}`];
    case 'eventfd':
      return ['eventfd', `number ${hop.id} is signalled`];
    case 'irqfd':
      return [
        'irqfd',
        `gsi ${hop.gsi}: route to ${hex(hop.address)}, data ${hop.data >>> 0}, device ${hex(hop.deviceId, 4)}`,
      ];
    case 'guest-controller':
      return [
        'guest',
        `${hop.name}: interrupt ${hop.intid} for vCPU ${hop.cpu}${hop.state === 'sent' ? '' : `, ${hop.state}`}`,
      ];
    case 'guest-cpu':
      return ['guest CPU', `vCPU ${hop.cpu} ${hop.action === 'eoi' ? 'ends' : 'acknowledges'} interrupt ${hop.intid}`];
    case 'lost':
      return [lossName(hop.loss), `${hop.where}: ${hop.why}`];
  }
}

function outcome(result: TranslationOutcome): string {
  switch (result.kind) {
    case 'translated':
      return `-> ${hex(result.pa)}${result.tlbHit ? ', from the TLB' : ''}`;
    case 'bypass':
      return `passes: ${result.why}`;
    case 'abort':
      return `is aborted: ${result.why}`;
    case 'fault':
      return `-> ${result.record.name}`;
    case 'stall':
      return `is stalled: ${result.why}`;
  }
}

function stepLines(result: TranslationOutcome): string[] {
  return 'steps' in result ? result.steps.map(stepLine) : [];
}

function stepLine({ table, level, at, entry }: WalkStep): string {
  const name = level < 0 ? table : `${table} level ${level}`;
  return `${''.padEnd(9 + NAME_COLUMNS)}${name.padEnd(STEP_COLUMNS)}at ${hex(at)}: ${hex(entry, 16)}`;
}
