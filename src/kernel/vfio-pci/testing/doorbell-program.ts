/** Random programs against doorbells: what they can do, an independent model of what must hold, and the check after every step. */

import * as uapi from '../../../uapi/vfio.ts';
import { type MsiCookie, msiCookie, setMsiCookie } from '../../irq/msi-cookie.ts';
import type { MsiDesc } from '../../irq/msi-desc.ts';
import { prepared } from '../../irq/msi-desc-iova.ts';
import type { FakeDomain } from '../../irq/testing/fakes.ts';
import type { Process } from '../../process.ts';
import { type DmaContext, dmaContext } from '../../vfio/doorbell-context.ts';
import { doorbellPages } from '../../vfio/doorbell-pages.ts';
import { type Bell, DoorbellHost, FakeIoas, ITS } from './doorbell-host.ts';

export const VECTORS = 5;
const FRAMES = [0, 1, 2].map((n) => ({ base: ITS + n * 0x2_0000, size: 0x1_0000, register: 0x40, isolated: true }));
const PAGE = 0x1000;
const RANGES = 0x900_0000;
const WINDOW = 0x800_0000;

/** [what, device, a, b, c]; each part is taken modulo what makes sense. */
export type Step = readonly [number, number, number, number, number];

interface Span {
  readonly iova: number;
  readonly size: number;
}

/** What user space gave, as the rules say, without a look at the implementation. */
class Model {
  fallback: Span | null = null;
  readonly single = new Map<number, Span>();
  of(vector: number): Span | null {
    return this.single.get(vector) ?? this.fallback;
  }
}

/** iommufd's software MSI window: one table for the fd, the same IOVA in every domain. */
class SwMsi {
  private readonly table = new Map<number, number>();
  readonly installed = new Map<FakeDomain, Set<number>>();

  cookie(domain: FakeDomain): MsiCookie {
    return {
      kind: 'iommufd',
      prepare: (desc, doorbell) => prepared(desc, this.install(domain, doorbell), PAGE),
      unprepare: () => {},
    };
  }

  install(domain: FakeDomain, doorbell: number): number {
    const pa = doorbell - (doorbell % PAGE);
    const iova = this.table.get(pa) ?? WINDOW + this.table.size * PAGE;
    this.table.set(pa, iova);
    const pages = this.installed.get(domain) ?? new Set();
    if (!pages.has(iova)) domain.map(iova, pa, PAGE, 3);
    this.installed.set(domain, pages.add(iova));
    return iova;
  }
}

/** Devices 0 and 1 are in one container, 2 and 3 in IOASes. */
export class Program {
  readonly host = new DoorbellHost();
  readonly devs: Bell[];
  private readonly models: Model[];
  private readonly swMsi = new SwMsi();
  private readonly ioases = [new FakeIoas(), new FakeIoas()];
  private readonly hwpts: FakeDomain[];
  private readonly process: Process;
  private request: Uint8Array = new Uint8Array(64);
  /** Handlers by irq of the vectors, as the program installed them. */
  private readonly handled: Set<number>[];

  constructor() {
    const { host } = this;
    host.parent.doorbells = FRAMES;
    host.parent.dynamicMsix = true;
    host.parent.frameOf = (desc) => this.frame(desc);
    this.devs = [0, 1, 2, 3].map(() => host.bell({ msix: VECTORS }));
    this.models = this.devs.map(() => new Model());
    this.handled = this.devs.map(() => new Set());
    this.hwpts = [this.ioases[0]!.hwpt(), this.ioases[0]!.hwpt(), this.ioases[1]!.hwpt()];
    for (const hwpt of this.hwpts) {
      setMsiCookie(hwpt, this.swMsi.cookie(hwpt));
      host.watch(hwpt);
    }
    this.process = this.fakeProcess();
    for (const dev of this.devs.slice(0, 2)) host.join(dev);
  }

  frame(desc: MsiDesc): (typeof FRAMES)[number] {
    return FRAMES[(desc.index + desc.dev.address.device) % FRAMES.length]!;
  }

  step([what, who, a, b, c]: Step): void {
    const n = who % this.devs.length;
    this.host.context.refusals.last = null;
    const steps = [
      () => this.set(n, a % VECTORS, 1 + (b % VECTORS), c),
      () => this.set(n, 0, 0, c),
      () => this.enable(n, 1 + (a % VECTORS)),
      () => this.disable(n),
      () => this.toggle(n, a % VECTORS),
      () => this.map(n, a % 16, 1 + (b % 3)),
      () => this.unmap(n, a % 16),
      () => this.arrive(n, a % this.hwpts.length, b % 4 === 0),
      () => this.leave(n),
      () => this.affinity(n, a),
      () => this.dynamic(n, a % VECTORS),
      () => this.close(n),
    ];
    steps[what % steps.length]!();
  }

  end(): void {
    for (let n = 0; n < this.devs.length; n++) this.close(n);
  }

  private set(n: number, start: number, count: number, c: number): void {
    // A group's device file exists only while its container has the group.
    if (start + count > VECTORS || (n < 2 && this.devs[n]!.iommuGroup.domain.type === 'blocked')) return;
    const size = (c % 4) * PAGE;
    const inWindow = n < 2 && c % 5 === 0;
    const iova = (inWindow ? WINDOW : RANGES) + ((c >> 2) % 12) * PAGE;
    const result = this.host.set(this.devs[n]!, { start, count, iova, size });
    if (result !== 0) return;
    const given = size === 0 ? null : { iova, size };
    const model = this.models[n]!;
    if (count === 0) model.fallback = given;
    for (let i = start; i < start + count; i++) {
      if (given === null) model.single.delete(i);
      else model.single.set(i, given);
    }
  }

  private enable(n: number, count: number): void {
    const dev = this.devs[n]!;
    if (this.host.msi.mode(dev) !== null) return;
    const made = this.host.enable(dev, count);
    for (let i = 0; i < made; i++) this.handled[n]!.add(i);
  }

  private disable(n: number): void {
    this.host.msi.freeIrqVectors(this.devs[n]!);
    this.handled[n]!.clear();
  }

  /** A vector gets an eventfd, or -1. */
  private toggle(n: number, index: number): void {
    const dev = this.devs[n]!;
    const irq = this.host.msi.irqVector(dev, index);
    if (irq < 0) return;
    if (this.handled[n]!.delete(index)) this.host.msi.freeIrq(irq);
    else {
      this.host.handle(dev, index);
      this.handled[n]!.add(index);
    }
  }

  private dynamic(n: number, index: number): void {
    const dev = this.devs[n]!;
    if (this.host.msi.mode(dev) === null) return;
    if (this.host.msi.irqVector(dev, index) < 0) this.host.msi.msixAllocAt(dev, index);
    else if (this.host.msi.vectors(dev).length > 1) {
      this.host.msi.msixFreeAt(dev, index);
      this.handled[n]!.delete(index);
    }
  }

  private map(n: number, slot: number, pages: number): void {
    const span = { start: RANGES + slot * PAGE, end: RANGES + (slot + pages) * PAGE - 1 };
    if (n < 2) {
      const layout = uapi.vfio_iommu_type1_dma_map;
      const size = pages * PAGE;
      this.request = layout.bytes({ argsz: layout.size, flags: 3, vaddr: 0x10_0000, iova: span.start, size });
      this.host.type1.ioctl(this.process, uapi.VFIO_IOMMU_MAP_DMA, 0n);
      return;
    }
    const ioas = this.ioases[n - 2]!;
    const taken = [...ioas.maps, ...ioas.reserved].some((other) => other.start <= span.end && span.start <= other.end);
    if (taken) return;
    ioas.maps.push(span);
    for (const domain of ioas.domains) domain.map(span.start, 0x5000_0000, pages * PAGE, 3);
  }

  private unmap(n: number, slot: number): void {
    const start = RANGES + slot * PAGE;
    if (n < 2) {
      const layout = uapi.vfio_iommu_type1_dma_unmap;
      this.request = layout.bytes({ argsz: layout.size, iova: start, size: 4 * PAGE });
      this.host.type1.ioctl(this.process, uapi.VFIO_IOMMU_UNMAP_DMA, 0n);
      return;
    }
    const ioas = this.ioases[n - 2]!;
    const at = ioas.maps.findIndex((span) => span.start === start);
    if (at < 0) return;
    const [span] = ioas.maps.splice(at, 1);
    for (const domain of ioas.domains as FakeDomain[]) {
      domain.unmap(start, span!.end + 1 - start);
      domain.sync();
    }
  }

  /** `fails`: the switch itself is refused, after everything was got ready. */
  private arrive(n: number, which: number, fails: boolean): void {
    const dev = this.devs[n]!;
    if (n < 2) {
      if (dev.iommuGroup.domain.type === 'blocked') this.host.join(dev);
      return;
    }
    const domain = this.hwpts[which]!;
    if (dev.iommuGroup.domain === domain) return;
    const move = dev.bell.beginMove({ dma: dmaContext(domain) as DmaContext, domain });
    if (typeof move === 'number') return;
    for (const { desc, doorbell } of this.host.msi.vectors(dev)) {
      if (this.models[n]!.of(desc.index) === null) this.swMsi.install(domain, doorbell);
    }
    if (fails) {
      move.cancel();
      return;
    }
    dev.iommuGroup.replace(domain);
    move.commit();
  }

  /** A container's group leaves with its device closed, as VFIO demands; an IOAS is left at any time. */
  private leave(n: number): void {
    const dev = this.devs[n]!;
    if (n < 2) {
      this.close(n);
      this.host.type1.detachGroup(dev.iommuGroup);
      return;
    }
    dev.iommuGroup.detach();
    dev.bell.detach();
  }

  private affinity(n: number, shift: number): void {
    this.host.parent.shift = shift % 7;
    for (const { desc } of this.host.msi.vectors(this.devs[n]!)) this.host.msi.recompose(desc.irq);
  }

  private close(n: number): void {
    this.devs[n]!.bell.close();
    this.handled[n]!.clear();
    this.models[n]!.fallback = null;
    this.models[n]!.single.clear();
  }

  /** What is wrong now, in sentences; empty when nothing is. */
  faults(): string[] {
    const wrong = [...this.host.violations];
    const domains = new Set([...this.hwpts, ...(this.host.type1.domains as FakeDomain[])]);
    const counts = new Map([...domains].map((domain) => [domain, new Map<number, number>()]));
    for (const [n, dev] of this.devs.entries()) this.checkDevice(n, dev, counts, wrong);
    for (const domain of domains) this.checkDomain(domain, counts.get(domain)!, wrong);
    const { type1 } = this.host;
    checkSpans(
      'type1',
      type1.reservations,
      type1.dmas.all().map((dma) => ({ start: dma.iova, end: dma.iova + dma.size - 1 })),
      wrong,
    );
    for (const ioas of this.ioases) checkSpans('ioas', ioas.reserved, ioas.maps, wrong);
    for (const context of [type1, ...this.ioases]) this.checkReservations(context, wrong);
    return wrong;
  }

  /** What is reserved is what the attached devices were given, each distinct range once. */
  private checkReservations(context: DmaContext, wrong: string[]): void {
    const given = new Set<string>();
    for (const [n, dev] of this.devs.entries()) {
      if (dmaContext(dev.iommuGroup.domain) !== context) continue;
      const { fallback, single } = this.models[n]!;
      for (const span of [...(fallback === null ? [] : [fallback]), ...single.values()]) {
        given.add(`${span.iova}+${span.size}`);
      }
    }
    const reserved = context instanceof FakeIoas ? context.reserved : this.host.type1.reservations;
    const have = reserved.map(({ start, end }) => `${start}+${end + 1 - start}`);
    if (have.sort().join() !== [...given].sort().join()) wrong.push(`reserved ${have}, given ${[...given]}`);
  }

  private checkDevice(n: number, dev: Bell, counts: Map<FakeDomain, Map<number, number>>, wrong: string[]): void {
    const domain = dev.iommuGroup.domain as FakeDomain;
    for (const { desc } of this.host.msi.vectors(dev)) {
      const name = `device ${n} vector ${desc.index}`;
      const { address, masked } = this.host.entry(dev, desc.index);
      const frame = this.frame(desc);
      const span = this.models[n]!.of(desc.index);
      if (masked === this.handled[n]!.has(desc.index)) wrong.push(`${name} is masked: ${masked}`);
      if (address % PAGE !== frame.register) wrong.push(`${name} has low bits of ${address}`);
      if (span !== null && (address < span.iova || address >= span.iova + span.size))
        wrong.push(`${name} is outside its range`);
      if (span === null && address >= RANGES) wrong.push(`${name} is in a range that nobody gave it`);
      if (domain.type === 'blocked') continue;
      const arrives = domain.lookup(address);
      if (arrives !== frame.base + frame.register)
        wrong.push(`${name} at ${address.toString(16)} arrives at ${arrives.toString(16)}`);
      const at = counts.get(domain)!;
      if (span !== null) at.set(address - frame.register, (at.get(address - frame.register) ?? 0) + 1);
    }
  }

  /** Doorbell pages are exactly those that allocated vectors need, counted; nothing else is mapped but the user's maps and the window. */
  private checkDomain(domain: FakeDomain, needed: Map<number, number>, wrong: string[]): void {
    if (domain.stale.size > 0) wrong.push('an unmapped page may still be cached');
    const { slots } = doorbellPages(this.host.context, dmaContext(domain)?.kind ?? 'type1', domain);
    const have = Object.fromEntries(slots.map((slot) => [slot.iova, slot.vectors]));
    if (JSON.stringify(have) !== JSON.stringify(Object.fromEntries([...needed].sort(([a], [b]) => a - b)))) {
      wrong.push(`slots ${JSON.stringify(have)}, needed ${JSON.stringify([...needed])}`);
    }
    const window = new Set([
      ...(msiCookie(domain)?.pages ?? []).map((page) => page.iova),
      ...(this.swMsi.installed.get(domain) ?? []),
    ]);
    const dma = dmaContext(domain);
    for (const iova of domain.pages.keys()) {
      if (window.has(iova) || needed.has(iova) || (dma?.userMapping(iova, iova + PAGE - 1) ?? null) !== null) continue;
      wrong.push(`page ${iova.toString(16)} is mapped for nobody`);
    }
  }

  get leftovers(): number {
    return (
      this.host.type1.reservations.length +
      this.ioases.reduce((sum, ioas) => sum + ioas.reserved.length, 0) +
      this.host.parent.allocated.size
    );
  }

  private fakeProcess(): Process {
    return {
      pid: 1,
      comm: 'program',
      credentials: { euid: 0, capabilities: new Set(['CAP_IPC_LOCK']) },
      limits: { memlock: Number.POSITIVE_INFINITY, nofile: 16 },
      lockedPages: 0,
      pinnedPages: 0,
      memory: {
        copyIn: (address, into) => {
          into.set(this.request.subarray(address, address + into.length));
          return true;
        },
        copyOut: () => true,
        pin: (_address, length) => ({
          runs: [{ pa: 0x5000_0000, length }],
          accountedPages: length / PAGE,
          deviceMemory: false,
          release: () => {},
        }),
      },
      file: () => null,
      install: () => -1,
    };
  }
}

interface Range {
  readonly start: number;
  readonly end: number;
}

/** Reservations touch neither the user's maps nor each other. */
function checkSpans(name: string, reserved: readonly Range[], maps: readonly Range[], wrong: string[]): void {
  for (const [i, span] of reserved.entries()) {
    for (const other of [...maps, ...reserved.slice(i + 1)]) {
      if (span.start <= other.end && other.start <= span.end)
        wrong.push(`${name}: ${span.start.toString(16)} overlaps ${other.start.toString(16)}`);
    }
  }
}
