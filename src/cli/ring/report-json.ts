/** `--json`: one object a line; the last is the summary. Addresses are hex strings. */
import { hexPlain } from '../../ports/address.ts';
import type { Hop } from '../../ports/tap.ts';
import { hopObject } from '../../trace/index.ts';
import { deviceTitle } from './describe.ts';
import type { Explanation } from './explain.ts';
import type { HopList } from './hop-list.ts';
import type { Report, Timed } from './report.ts';
import type { RingSession, Totals } from './session.ts';
import { doorbells, guestMessages, hardwareMessages, type Message } from './vector-table.ts';

/** Vectors that the set-up lists. */
const LISTED = 16;

export class JsonReport implements Report {
  private readonly write: (text: string) => void;
  private summary: object | null = null;

  constructor(write: (text: string) => void) {
    this.write = write;
  }

  refused(explanation: Explanation): void {
    this.line('refusal', explanation);
  }

  setUp(session: RingSession): void {
    const { host, assignment, requested, granted, kind, name, map } = session;
    const { doorbell } = assignment;
    const iova = doorbell.iova === null ? null : hexPlain(doorbell.iova);
    this.line('set-up', {
      host: host.machine.spec.name,
      device: name,
      title: deviceTitle(session),
      guest: map.name,
      iommu: session.vm.iommu,
      interrupts: kind,
      vectors: { requested, granted },
      doorbell: { rule: doorbell.rule, iova, why: doorbell.why },
      unreachable: assignment.unreachable.map(({ base, size }) => ({ base: hexPlain(base), size: hexPlain(size) })),
      warnings: assignment.device.warnings,
    });
    const guest = guestMessages(session, LISTED);
    const hardware = hardwareMessages(session);
    for (const [vector, entry] of guest.entries()) {
      const physical = hardware[vector];
      this.line('vector', {
        vector,
        guest: message(entry),
        physical: physical === undefined ? null : message(physical),
      });
    }
  }

  firstInterrupt(_session: RingSession, { hops }: HopList): void {
    this.hops('doorbell', hops);
  }

  totals(session: RingSession, totals: Totals, { sent, seconds }: Timed): void {
    const mapped = doorbells(session).map(({ iova, ipa, pa, users }) => ({
      iova: hexPlain(iova),
      ...(ipa === null ? {} : { ipa: hexPlain(ipa) }),
      pa: hexPlain(pa),
      users,
    }));
    const { requested, granted } = session;
    this.events(session);
    this.summary = {
      ...counts(totals),
      requested,
      granted,
      rule: session.assignment.doorbell.rule,
      doorbells: mapped,
      timed: { sent, seconds },
    };
  }

  without(session: RingSession, { hops }: HopList, totals: Totals): void {
    this.hops('none', hops);
    this.events(session);
    this.line('without', counts(totals));
  }

  end(): void {
    if (this.summary !== null) this.line('summary', this.summary);
  }

  /** What the VMM's event queue holds of its stage 1. */
  private events({ assignment }: RingSession): void {
    for (const event of assignment.nested?.events() ?? []) this.line('event', event);
  }

  private hops(run: string, hops: readonly Hop[]): void {
    for (const hop of hops) this.line('hop', { run, ...hopObject(hop) });
  }

  private line(kind: string, object: object): void {
    this.write(
      `${JSON.stringify({ kind, ...object }, (_, value) => (typeof value === 'bigint' ? hexPlain(value) : value))}\n`,
    );
  }
}

const message = ({ address, data }: Message): object => ({ address: hexPlain(address), data: hexPlain(data) });

/** `lost` is a number as the other counts are; `losses` tells it by reason. */
const counts = ({ lost, ...rest }: Totals): object => ({
  ...rest,
  lost: Object.values(lost).reduce((sum, part) => sum + part, 0),
  losses: lost,
});
