/** Interrupts that did not arrive: where each was lost, on which way, why, and what would help. */
import { hex } from '../ports/address.ts';
import { Count, LEDGER_SIZE, Loss, lossName } from '../ports/ledger.ts';
import type { Hop, HopObserver, Tap } from '../ports/tap.ts';
import { requesterName } from '../trace/index.ts';
import type { Watch } from './watched-function.ts';

/** Interrupts that were lost alike. */
export interface LostInterrupts {
  readonly count: number;
  /** `BUS_MASTER_OFF`, a name of ports/ledger.ts. */
  readonly loss: string;
  /** The function that sent them, `0000:01:00.0`; null: it is not known any more. */
  readonly device: string | null;
  readonly how: 'msi' | 'msix' | 'intx' | null;
  readonly vector: number | null;
  /** Where the message was written to. */
  readonly address: string | null;
  /** The part of the host where they ended. */
  readonly where: string | null;
  /** A sentence. */
  readonly why: string;
  /** What would make them arrive, where that is known. */
  readonly hint: string | null;
}

/** Kinds of loss that are kept apart; what comes beyond them is counted by its reason alone. */
const MOST = 16;

type Sent = Hop & { readonly at: 'device' };
type Translated = Hop & { readonly at: 'iommu' };

export class Losses implements HopObserver {
  /** Without a doorbell the kernel programs the controller's physical address: a loss at the IOMMU then has one reason. */
  private readonly doorbell: boolean;
  /** The host's, once it has booted. */
  tap: Tap | null = null;
  private sent: Sent | null = null;
  private translated: Translated | null = null;
  private readonly seen = new Map<string, LostInterrupts>();
  /** Vectors that were raised behind a mask. */
  private readonly held = new Map<string, Sent>();
  /** Of each reason: how many were told or are in `seen`. */
  private readonly counted = new Map<number, number>();

  constructor(doorbell: boolean) {
    this.doorbell = doorbell;
  }

  /** Observes the tap around an interrupt; who observes all the time already is told as well. */
  readonly watch: Watch = (act) => {
    const { tap } = this;
    if (tap === null) return act();
    const { observer } = tap;
    tap.observer = observer === null ? this : both(this, observer);
    try {
      return act();
    } finally {
      tap.observer = observer;
    }
  };

  hop(hop: Hop): void {
    if (hop.at === 'device') {
      this.sent = hop;
      this.translated = null;
      if (hop.state === 'pending' && this.held.size < MOST) this.held.set(`${hop.requester} ${hop.vector}`, hop);
    } else if (hop.at === 'iommu') this.translated = hop;
    else if (hop.at === 'lost') this.lost(hop.where, hop.loss, hop.why);
  }

  /** What was lost since the last call. */
  take(): readonly LostInterrupts[] {
    const result = [...this.seen.values()];
    this.seen.clear();
    const ledger = this.tap?.ledger ?? [];
    for (let slot: number = Count.LOST; slot < LEDGER_SIZE; slot += 1) {
      const loss = slot - Count.LOST;
      const count = (ledger[slot] ?? 0) - (this.counted.get(loss) ?? 0);
      if (count <= 0) continue;
      this.counted.set(loss, ledger[slot] ?? 0);
      const why = UNSEEN[loss] ?? 'others, of more vectors than are told apart here';
      const from = loss === Loss.TORN_DOWN ? this.onlyHeld() : NOT_KNOWN;
      result.push({ count, loss: lossName(loss), ...from, address: null, where: null, why, hint: this.hint(loss) });
    }
    return result;
  }

  /** What waited behind a mask can be named when it was one vector alone. */
  private onlyHeld(): Pick<LostInterrupts, 'device' | 'how' | 'vector'> {
    const [only] = this.held.values();
    if (only === undefined || this.held.size > 1) return NOT_KNOWN;
    return { device: requesterName(only.requester), how: interruptOf(only), vector: only.vector };
  }

  private lost(where: string, loss: number, why: string): void {
    const { sent, translated } = this;
    const how = sent === null ? null : interruptOf(sent);
    const vector = sent === null || how === null ? null : sent.vector;
    const device = sent === null ? null : requesterName(sent.requester);
    const key = `${loss} ${device} ${vector} ${where}`;
    const known = this.seen.get(key);
    if (known === undefined && this.seen.size >= MOST) return;
    this.counted.set(loss, (this.counted.get(loss) ?? 0) + 1);
    if (known !== undefined) {
      this.seen.set(key, { ...known, count: known.count + 1 });
      return;
    }
    const programmed = sent !== null && loss !== Loss.NOT_ENABLED && how !== 'intx' && sent.address !== 0;
    const address = programmed ? hex(sent.address) : null;
    const refused = translated !== null && atIommu(loss) ? outcomeOf(translated) : null;
    this.seen.set(key, {
      ...{ count: 1, loss: lossName(loss), device, vector },
      // Where no message was programmed, which kind it would have been is a guess.
      how: how === 'intx' || address !== null ? how : null,
      address,
      where: refused === null || translated === null ? where : translated.name,
      why: refused === null ? why : `${why}: ${refused}`,
      hint: this.hint(loss),
    });
  }

  private hint(loss: number): string | null {
    if (atIommu(loss)) return this.doorbell ? MAPPED : WITHOUT_DOORBELL;
    return HINTS[loss] ?? null;
  }
}

const both = (first: HopObserver, second: HopObserver): HopObserver => ({
  hop(hop) {
    second.hop(hop);
    first.hop(hop);
  },
});

const NOT_KNOWN = { device: null, how: null, vector: null } as const;

/** null: it is DMA. */
const interruptOf = ({ how }: Sent): 'msi' | 'msix' | 'intx' | null =>
  how === 'msi' || how === 'msix' || how === 'intx' ? how : null;
const atIommu = (loss: number): boolean => loss === Loss.IOMMU_FAULT || loss === Loss.IOMMU_ABORT;

function outcomeOf({ outcome }: Translated): string | null {
  if (outcome.kind === 'fault' || outcome.kind === 'stall') return `${outcome.record.name}, ${outcome.why}`;
  return outcome.kind === 'abort' ? outcome.why : null;
}

const WITHOUT_DOORBELL = 'run without --doorbell none: the kernel then maps a doorbell for the device';
const MAPPED =
  'keep the device attached while it may raise, and leave the message addresses that the kernel programmed as they are';

/** What the owner of the device can do. */
const HINTS: Readonly<Record<number, string>> = {
  [Loss.BUS_MASTER_OFF]:
    'set bit 2 (bus master) of COMMAND, 2 bytes at 4 in the configuration region; it is off after VFIO opens or resets a device',
  [Loss.NOT_ENABLED]:
    'VFIO_DEVICE_SET_IRQS with ACTION_TRIGGER and an eventfd for each vector enables them; a reset or count 0 disables them',
  [Loss.NO_EVENTFD]: 'give the vector an eventfd: it was enabled with -1',
  [Loss.NO_HANDLER]: 'give the vector an eventfd before the device raises it',
  [Loss.EVENTFD_CLOSED]: 'keep the eventfd open until it was read',
  [Loss.TORN_DOWN]:
    'unmask the vector, or take the interrupt, before the vectors are disabled and before the device is reset or closed',
  [Loss.WENT_TO_MEMORY]: 'leave the message addresses that the kernel programmed as they are',
  [Loss.UNCLAIMED]: 'leave the message addresses that the kernel programmed as they are',
};

/** Losses that happen to interrupts which wait, not to one that is being raised. */
const UNSEEN: Readonly<Record<number, string>> = {
  [Loss.TORN_DOWN]: 'pending behind a mask when the vectors were freed or the function was reset',
  [Loss.EVENTFD_CLOSED]: 'in an eventfd that was closed before it was read',
};
