/** What people read: the set-up, one interrupt hop by hop, the count, and the run without the doorbell. */
import { hex } from '../../ports/address.ts';
import type { Hop } from '../../ports/tap.ts';
import { deviceTitle, machineTitle, plural, span } from './describe.ts';
import type { Explanation } from './explain.ts';
import { hopLines } from './hop-lines.ts';
import type { HopList } from './hop-list.ts';
import type { Report, Timed } from './report.ts';
import type { RingSession, Totals } from './session.ts';
import { doorbells, guestMessages, hardwareMessages } from './vector-table.ts';

/** Vectors that are listed one by one. */
const LISTED = 4;

export class TextReport implements Report {
  private readonly write: (text: string) => void;
  private readonly version: string;

  constructor(write: (text: string) => void, version: string) {
    this.write = write;
    this.version = version;
  }

  refused({ request, code, errno, field, why, hint, passes }: Explanation): void {
    this.line('The set-up was refused');
    this.row('call', request);
    this.row('answer', `${code} (${errno})${field === null ? '' : `, for its ${field}`}`);
    this.row('check', why);
    if (hint !== null) this.row('advice', hint);
    this.row('would pass', passes.length === 0 ? 'none of the options that were tried' : passes.join('; or '));
    this.line('');
  }

  setUp(session: RingSession): void {
    const { host, assignment, map, granted, requested, kind } = session;
    const { unreachable } = assignment;
    const { spec } = host.machine;
    this.line(`belfry ${this.version}: simulated host ${spec.name}, ${machineTitle(spec)}; VFIO as in Linux 7.2`);
    this.line('');
    this.line('Set-up');
    const { device } = assignment.device;
    this.row('device', `${session.name}  ${deviceTitle(session)}, IOMMU group ${device.groupNumber}`);
    for (const { start, end, type } of device.reservedRegions) this.row('reserved', `${span(start, end)}  ${type}`);
    const ram = map.ram.map(({ base, size }) => span(base, base + size - 1)).join(', ');
    this.row(
      'guest',
      `${map.name}: RAM ${ram}, mapped for DMA 1:1${session.vm.iommu === 'type1' ? '' : `, in ${device.space.label} of iommufd`}`,
    );
    for (const { base, size } of unreachable)
      this.row('', `but not ${span(base, base + size - 1)}: no DMA reaches this memory of the guest`);
    if (assignment.nested !== null)
      this.row(
        'stage 1',
        `the VMM's own: RAM 1:1, and the kernel's window 1:1; stream id ${hex(assignment.nested.streamId, 2)}`,
      );
    this.doorbellRows(session);
    const short =
      granted === 0
        ? ` of ${requested}: SET_IRQS was refused;`
        : granted < requested
          ? ` of ${requested}: SET_IRQS answered ${granted}, the positive count of what the host has;`
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

  totals(session: RingSession, totals: Totals, { sent, seconds }: Timed): void {
    this.ownRecord(session);
    this.line('');
    const parts = [`${plural(totals.sent, 'interrupt')} sent`, `${totals.delivered.toLocaleString('en')} delivered`];
    if (totals.coalesced > 0) parts.push(`${totals.coalesced.toLocaleString('en')} coalesced`);
    if (totals.pending > 0) parts.push(`${totals.pending.toLocaleString('en')} pending`);
    for (const [reason, count] of Object.entries(totals.lost))
      parts.push(`${count.toLocaleString('en')} lost (${reason})`);
    if (totals.outOfOrder > 0) parts.push(`${totals.outOfOrder.toLocaleString('en')} out of order`);
    if (totals.faults > 0) parts.push(faultsText(totals));
    const rate = seconds > 0.02 ? `, ${Math.round(sent / seconds).toLocaleString('en')} interrupts/s` : '';
    this.line(`${parts.join(', ')}${rate}`);
  }

  without(session: RingSession, list: HopList, totals: Totals): void {
    const { hops } = list;
    this.line('');
    this.line('Without the doorbell: the vector holds the physical address, and nothing maps it');
    this.hops(hops);
    const outcome = list.find('iommu')?.outcome;
    if (outcome?.kind === 'fault') {
      this.line('');
      this.line(`The ${session.host.machine.iommu?.name ?? 'IOMMU'}'s event record`);
      const [first = 0n, second = 0n, third = 0n, fourth = 0n] = outcome.record.words;
      this.row(outcome.record.name, `${hex(first, 16)}  ${hex(second, 16)}`);
      this.row('', `${hex(third, 16)}  ${hex(fourth, 16)}`);
    }
    this.totals(session, totals, { sent: 0, seconds: 0 });
    if (outcome?.kind === 'bypass')
      this.line('On this platform nothing is missing: the IOMMU lets the MSI range pass, so no doorbell is needed.');
  }

  end(): void {}

  /** Of what the VMM's stage 1 refused: the first that its event queue has. */
  private ownRecord(session: RingSession): void {
    const [event] = session.assignment.nested?.events() ?? [];
    if (event === undefined) return;
    this.line('');
    this.line("The VMM's own record, from its event queue");
    const [first = 0n, second = 0n, third = 0n, fourth = 0n] = event.words;
    this.row(event.name, `${hex(first, 16)}  ${hex(second, 16)}  virtual stream id ${hex(event.streamId, 2)}`);
    this.row('', `${hex(third, 16)}  ${hex(fourth, 16)}`);
  }

  private doorbellRows(session: RingSession): void {
    const { doorbell } = session.assignment;
    this.row('doorbell', `rule ${doorbell.rule}: ${doorbell.why}`);
    const { nested } = session.assignment;
    for (const { iova, ipa, pa, users } of doorbells(session)) {
      const all = users > session.granted ? ': this host cannot add vectors later, so all of the table has them' : '';
      const through = ipa === null ? '' : ` -> ${hex(ipa)}`;
      this.row('', `${hex(iova)}${through} -> ${hex(pa)}, for ${plural(users, 'vector')}${all}`);
    }
    const by = nested?.doorbell.state?.by;
    if (by === 'prepare') this.row('', 'the kernel programs it: VFIO_IRQ_SET_ACTION_PREPARE');
    if (by === 'table') this.row('', 'written into the mapped MSI-X table');
    if (by === 'window') this.row('', "the kernel's own choice: nothing is rewritten");
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
    for (const line of hopLines(hops)) this.line(line);
  }

  private row(name: string, text: string): void {
    this.line(`  ${name.padEnd(14)}${text}`);
  }

  private line(text: string): void {
    this.write(`${text.trimEnd()}\n`);
  }
}

const faultsText = ({ faults, faultsOverflowed }: Totals): string =>
  faultsOverflowed === 0
    ? `${plural(faults, 'event record')}`
    : `${plural(faults, 'event record')} and ${faultsOverflowed.toLocaleString('en')} more that the full queue had no room for`;
