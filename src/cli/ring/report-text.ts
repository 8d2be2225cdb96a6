/** What people read: the set-up, one interrupt hop by hop, the count, and the run without the doorbell. */
import { hex } from '../../ports/address.ts';
import type { TranslationOutcome, WalkStep } from '../../ports/outcome.ts';
import type { Hop } from '../../ports/tap.ts';
import { hopText } from '../../trace/index.ts';
import type { Report } from './command.ts';
import { deviceTitle, machineTitle, plural, span } from './describe.ts';
import type { HopList } from './hop-list.ts';
import type { RingSession, Totals } from './session.ts';
import { doorbells, guestMessages, hardwareMessages } from './vector-table.ts';

/** Vectors that are listed one by one. */
const LISTED = 4;

const NAMES: Readonly<Record<Hop['at'], string>> = {
  device: 'device',
  iommu: 'IOMMU',
  controller: 'controller',
  irq: 'irq core',
  eventfd: 'eventfd',
  irqfd: 'irqfd',
  'guest-controller': 'guest',
  'guest-cpu': 'guest CPU',
  lost: 'LOST',
};

export class TextReport implements Report {
  private readonly write: (text: string) => void;
  private readonly version: string;

  constructor(write: (text: string) => void, version: string) {
    this.write = write;
    this.version = version;
  }

  setUp(session: RingSession): void {
    const { host, assignment, map, granted, requested, kind } = session;
    const { spec } = host.machine;
    this.line(
      `belfry ${this.version}: a simulated host, ${spec.name} (${machineTitle(spec)}), Linux 7.2's VFIO, ABI ${host.context.abi}`,
    );
    this.line('');
    this.line('Set-up');
    const { group } = assignment.device.device;
    this.row('device', `${session.name}  ${deviceTitle(session)}, IOMMU group ${group.number}`);
    for (const { start, end, type } of group.reservedRegions) this.row('reserved', `${span(start, end)}  ${type}`);
    const ram = map.ram.map(({ base, size }) => span(base, base + size - 1)).join(', ');
    this.row('guest', `${map.name}: RAM ${ram}, mapped for DMA 1:1`);
    this.doorbellRows(session);
    const short =
      granted < requested
        ? ` of ${requested}: SET_IRQS answered ${granted}, the positive count of what the host has`
        : '';
    this.row(
      'vectors',
      `${granted}${short} ${kind === 'msix' ? 'MSI-X' : 'MSI'}, with ${plural(granted, 'eventfd')}, ${plural(granted, 'route')} and ${plural(granted, 'irqfd')}`,
    );
    for (const warning of assignment.device.warnings) this.row('warning', warning);
    this.vectorTable(session);
  }

  firstInterrupt(_session: RingSession, { hops }: HopList): void {
    this.line('');
    this.line('Vector 0 rings');
    this.hops(hops);
  }

  totals(_session: RingSession, totals: Totals, seconds: number): void {
    this.line('');
    const parts = [`${plural(totals.sent, 'interrupt')} sent`, `${totals.delivered.toLocaleString('en')} delivered`];
    if (totals.coalesced > 0) parts.push(`${totals.coalesced.toLocaleString('en')} coalesced`);
    if (totals.pending > 0) parts.push(`${totals.pending.toLocaleString('en')} pending`);
    for (const [reason, count] of Object.entries(totals.lost))
      parts.push(`${count.toLocaleString('en')} lost (${reason})`);
    if (totals.outOfOrder > 0) parts.push(`${totals.outOfOrder.toLocaleString('en')} out of order`);
    if (totals.faults > 0) parts.push(faultsText(totals));
    const rate = seconds > 0.02 ? `, ${Math.round(totals.sent / seconds).toLocaleString('en')} interrupts/s` : '';
    this.line(`${parts.join(', ')}${rate}`);
  }

  without(session: RingSession, list: HopList, totals: Totals): void {
    const { hops } = list;
    this.line('');
    this.line(
      'The same without the doorbell: the kernel before the RFC puts the physical address into the vector, and maps nothing',
    );
    this.hops(hops);
    const outcome = list.find('iommu')?.outcome;
    if (outcome?.kind === 'fault') {
      this.line('');
      this.line(`The ${session.host.machine.iommu?.name ?? 'IOMMU'}'s event record`);
      this.row(outcome.record.name, outcome.record.words.map((word) => hex(word, 16)).join('  '));
    }
    this.totals(session, totals, 0);
    if (outcome?.kind === 'bypass')
      this.line('On this platform nothing is missing: the IOMMU lets the MSI range pass, so no doorbell is needed.');
  }

  end(): void {}

  private doorbellRows(session: RingSession): void {
    const { doorbell } = session.assignment;
    this.row('doorbell', `rule ${doorbell.rule}: ${doorbell.why}`);
    for (const { iova, pa, users } of doorbells(session)) {
      this.row('', `${hex(iova)} -> ${hex(pa)}, for ${plural(users, 'vector')}`);
    }
  }

  private vectorTable(session: RingSession): void {
    const guest = guestMessages(session, LISTED);
    const hardware = hardwareMessages(session);
    this.line('');
    this.line(`  ${'vector'.padEnd(8)}${"the guest's entry".padEnd(28)}the device's entry, read back over the bus`);
    for (const [vector, entry] of guest.entries()) {
      const physical = hardware[vector];
      const left = `${hex(entry.address)} <- ${entry.data}`;
      const right = physical === undefined ? 'none' : `${hex(physical.address)} <- ${physical.data}`;
      this.line(`  ${String(vector).padEnd(8)}${left.padEnd(28)}${right}`);
    }
    if (session.requested > guest.length)
      this.line(`  …       ${plural(session.requested - guest.length, 'more vector')}`);
  }

  private hops(hops: readonly Hop[]): void {
    let number = 0;
    for (const hop of hops) {
      number += 1;
      const { who, what, end } = hopText(hop);
      if (hop.at === 'lost') this.line(`  ${NAMES[hop.at].padStart(4)}  at ${who}: ${what}, ${end}`);
      else
        this.line(
          `  ${String(number).padStart(3)}  ${NAMES[hop.at].padEnd(12)}${who.padEnd(20)}${what.padEnd(60)}${end}`,
        );
      if (hop.at === 'iommu') this.steps(hop.outcome);
    }
  }

  private steps(outcome: TranslationOutcome): void {
    if (!('steps' in outcome)) return;
    for (const step of outcome.steps) this.line(`       ${stepText(step)}`);
  }

  private row(name: string, text: string): void {
    this.line(`  ${name.padEnd(14)}${text}`);
  }

  private line(text: string): void {
    this.write(`${text.trimEnd()}\n`);
  }
}

const stepText = ({ table, level, at, entry }: WalkStep): string =>
  `${''.padEnd(12)}${(level < 0 ? table : `${table} level ${level}`).padEnd(20)}${hex(at).padEnd(18)}${hex(entry, 16)}`;

const faultsText = ({ faults, faultsOverflowed }: Totals): string =>
  faultsOverflowed === 0
    ? `${plural(faults, 'event record')}`
    : `${plural(faults, 'event record')} and ${faultsOverflowed.toLocaleString('en')} more that the full queue had no room for`;
