/**
 * The seed's second half: the virtual doorbell. User space gives a device's MSI vectors an IOVA of its choice; the kernel maps it onto the
 * physical doorbell and writes it into the vectors. VFIO_DEVICE_FEATURE 0xBE11 carries it (docs/doorbell.md: the 19 rules).
 */
import { fromHalves, hex } from '../../ports/address.ts';
import type { DoorbellPage } from '../../ports/bus.ts';
import {
  VFIO_DEVICE_FEATURE_BELFRY_DOORBELL_ACTIVE as ACTIVE,
  VFIO_DEVICE_FEATURE_BELFRY_DOORBELL_BYPASS as BYPASS,
  vfio_device_feature_belfry_doorbell as layout,
} from '../../uapi/belfry.ts';
import {
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
} from '../../uapi/vfio-feature.ts';
import type { KernelContext } from '../context.ts';
import type { MsiDesc } from '../irq/msi-desc.ts';
import { prepared } from '../irq/msi-desc-iova.ts';
import { canMaskEach } from '../irq/msi-hardware.ts';
import type { MsiVector } from '../irq/msi-vector.ts';
import type { MsiMode } from '../irq/pci-irqs.ts';
import type { PciMsi } from '../irq/pci-msi.ts';
import { setUserDoorbell, type UserDoorbell } from '../irq/user-doorbell.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { Process } from '../process.ts';
import { dmaContext, doorbellGranule } from '../vfio/doorbell-context.ts';
import { doorbellPages } from '../vfio/doorbell-pages.ts';
import { doorbellRanges } from '../vfio/doorbell-ranges.ts';
import { DoorbellMove, type DoorbellPossessions } from './doorbell-move.ts';
import {
  checkFrames,
  checkRange,
  checkTarget,
  type DoorbellPayload,
  type DoorbellSite,
  doorbellIndex,
} from './doorbell-request.ts';
import { moveVectors, type OwnedPage } from './doorbell-rewrite.ts';
import { type DoorbellSetting, DoorbellSettings, type DoorbellTarget } from './doorbell-settings.ts';
import { Stage1Doorbells } from './doorbell-stage1.ts';

/** One device's doorbell. vfio-pci makes it with the device and closes it at each last close, which leaves it as new. */
export class DoorbellControl implements UserDoorbell {
  readonly settings = new DoorbellSettings();
  private readonly context: KernelContext;
  private readonly dev: PciDev;
  private readonly msi: PciMsi;
  private readonly stage1: Stage1Doorbells;
  /** The page of each allocated vector that user space placed. */
  private readonly owned = new Map<MsiDesc, OwnedPage>();
  /** Where an attach or a replace put the device; null: wherever its domain belongs. */
  private attached: DoorbellSite | null = null;

  constructor(context: KernelContext, dev: PciDev, msi: PciMsi) {
    this.context = context;
    this.dev = dev;
    this.msi = msi;
    this.stage1 = new Stage1Doorbells(context);
    setUserDoorbell(dev, this);
  }

  /** VFIO_DEVICE_FEATURE 0xBE11: `flags` as the user gave them, `size` bytes of payload at `address`. 0 or -errno. */
  feature(process: Process, flags: number, address: number, size: number): number {
    const { refusals, abi } = this.context;
    if (abi !== 'belfry' || this.msi.doorbellPolicy === 'none') {
      return refusals.refuse(
        'ENOTTY',
        'this kernel has no virtual doorbell (abi linux-7.2, or the policy is none)',
        'flags',
      );
    }
    if ((flags & VFIO_DEVICE_FEATURE_PROBE) !== 0) return 0;
    const operation = flags & (VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET);
    if (operation !== VFIO_DEVICE_FEATURE_GET && operation !== VFIO_DEVICE_FEATURE_SET) {
      return refusals.refuse('EINVAL', 'flags name neither PROBE nor exactly one of GET and SET', 'flags');
    }
    if (size < layout.size) {
      return refusals.refuse(
        'EINVAL',
        `argsz leaves ${size} bytes of payload, the doorbell has ${layout.size}`,
        'argsz',
      );
    }
    const bytes = new Uint8Array(layout.size);
    if (!process.memory.copyIn(address, bytes))
      return refusals.refuse('EFAULT', `no payload at ${hex(address)}`, 'data');
    const payload = layout.read(bytes);
    if (operation === VFIO_DEVICE_FEATURE_SET) return this.set(payload);
    const answer = this.get(payload);
    if (typeof answer === 'number') return answer;
    layout.write(bytes, answer);
    return process.memory.copyOut(address, bytes)
      ? 0
      : refusals.refuse('EFAULT', `no payload at ${hex(address)}`, 'data');
  }

  /** SET: 0, or -errno with nothing changed. */
  set(payload: DoorbellPayload): number {
    const target = checkTarget(this.context, this.dev, payload);
    if (typeof target === 'number') return target;
    const site = this.site();
    const unsupported = this.refusePlatform();
    if (unsupported < 0) return unsupported;
    if (payload.size === 0n) return this.apply(target, null, site);
    const range = checkRange(this.context, this.dev, site, payload);
    if (typeof range === 'number') return range;
    const exposed = site === null ? 0 : checkFrames(this.context, this.dev, site, this.frames);
    return exposed < 0 ? exposed : this.apply(target, range, site);
  }

  /** GET: what vector `start` is programmed with; before it is allocated, what user space gave it. Never a physical address. */
  get(payload: DoorbellPayload): DoorbellPayload | number {
    const { refusals } = this.context;
    if (payload.flags !== 0)
      return refusals.refuse('EINVAL', 'flags of a GET are an answer; they are 0 in the request', 'flags');
    const which = doorbellIndex(this.context, this.dev, payload.index);
    if (typeof which === 'number') return which;
    const { mode, vectors } = which;
    const { start } = payload;
    if (start >= vectors) {
      return refusals.refuse('EINVAL', `start ${start}: index ${payload.index} has ${vectors} vectors`, 'start');
    }
    const vector = this.vectorsOf(mode).find(({ desc }) => desc.index === start);
    const bypass = this.bypass() !== null || (vector !== undefined && vector.desc.doorbellShift === 0);
    const active = vector !== undefined && (bypass || this.dev.iommuGroup?.domain.type !== 'blocked');
    const flags = (active ? ACTIVE : 0) | (bypass ? BYPASS : 0);
    const iova = bypass
      ? 0n
      : vector !== undefined
        ? messageAddress(vector)
        : BigInt(this.settings.of(mode, start)?.iova ?? 0);
    const size = BigInt(doorbellGranule(this.context.pageSize, this.site()?.domain ?? null));
    return { ...payload, flags, iova, size };
  }

  /** VFIO_IRQ_SET_ACTION_PREPARE: stage-1 pages for a nested device's vectors; null un-sets those of [start, start + count). 0 or -errno. */
  prepareStage1(mode: MsiMode, start: number, iovas: readonly bigint[] | null, count = Infinity): number {
    const { refusals, abi } = this.context;
    const site = this.site();
    const type = this.dev.iommuGroup?.domain.type;
    if (abi !== 'belfry') return refusals.refuse('EINVAL', 'PREPARE is no action of this kernel', 'flags');
    if (site?.dma.kind === 'type1' || type === 'unmanaged' || type === 'identity') {
      return refusals.refuse('EOPNOTSUPP', 'PREPARE names stage-1 addresses, and the device is not nested', 'flags');
    }
    const active = this.msi.mode(this.dev);
    if (active !== null && active !== mode)
      return refusals.refuse('EINVAL', `${active} is enabled, not ${mode}`, 'index');
    return iovas === null ? this.stage1.unset(mode, start, count) : this.stage1.set(mode, start, iovas);
  }

  prepare(desc: MsiDesc, doorbell: number): number | null {
    const nested = this.stage1.prepare(this.dev, desc, doorbell);
    if (nested !== null) return nested;
    const setting = this.settings.of(desc.msix ? 'msix' : 'msi', desc.index);
    const site = this.site();
    if (setting === null || site === null) return null;
    const range = setting.range ?? doorbellRanges(this.context, site.dma).hold(this.dev, setting.iova, setting.size);
    if (typeof range === 'number') return range;
    setting.range = range;
    const frames = this.frames.filter((frame) => doorbell >= frame.base && doorbell < frame.base + frame.size);
    const exposed = checkFrames(this.context, this.dev, site, frames);
    if (exposed < 0) return exposed;
    const pages = doorbellPages(this.context, site.dma.kind, site.domain);
    const iova = pages.acquire(range, doorbell);
    if (iova < 0) return iova;
    this.owned.set(desc, { pages, iova, doorbell });
    return prepared(desc, iova, pages.granule);
  }

  unprepare(desc: MsiDesc): boolean {
    const page = this.owned.get(desc);
    if (page === undefined) return false;
    this.owned.delete(desc);
    page.pages?.release(page.iova);
    return true;
  }

  /**
   * The device is about to translate through another domain: reserves and installs there first (rule 17). The move is then committed, once the
   * switch was made, or cancelled; -errno changes nothing. It serves a first attach as well.
   */
  beginMove(site: DoorbellSite): DoorbellMove | number {
    return DoorbellMove.begin(this.context, this.dev, this.possessions, site);
  }

  /** beginMove and commit in one, for a context in which nothing of the device was installed yet. 0 or -errno. */
  attach(site: DoorbellSite): number {
    const move = this.beginMove(site);
    if (typeof move === 'number') return move;
    move.commit();
    return 0;
  }

  /**
   * The device left its domain; its stream is blocked by now. Reservations end and pages are unmapped; what user space gave is
   * remembered, and reserved and installed again by the next attach.
   */
  detach(): void {
    for (const [desc, page] of this.owned) {
      page.pages?.release(page.iova);
      this.owned.set(desc, { ...page, pages: null });
    }
    for (const setting of this.settings.all) {
      setting.range?.drop();
      setting.range = null;
    }
    this.attached = null;
  }

  /**
   * Last close, after bus mastering went off: the vectors are freed if they still are there, which unmaps their pages; then the
   * reservations end (rule 18).
   */
  close(): void {
    this.msi.freeIrqVectors(this.dev);
    this.detach();
    this.owned.clear();
    this.settings.clear();
    this.stage1.clear();
  }

  /** The context and domain that the device's MSIs pass now, or null. */
  private site(): DoorbellSite | null {
    const domain = this.dev.iommuGroup?.domain ?? null;
    if (this.attached !== null && this.attached.domain === domain) return this.attached;
    const dma = domain === null ? null : dmaContext(domain);
    return domain === null || dma === null ? null : { dma, domain };
  }

  private get possessions(): DoorbellPossessions {
    return { settings: this.settings, owned: this.owned, frames: this.frames, arrive: (site) => this.arrive(site) };
  }

  private arrive(site: DoorbellSite): void {
    this.attached = site;
  }

  private get frames(): readonly DoorbellPage[] {
    return this.msi.msiParent(this.dev)?.doorbells ?? [];
  }

  private vectorsOf(mode: MsiMode): readonly MsiVector[] {
    return this.msi.mode(this.dev) === mode ? this.msi.vectors(this.dev) : [];
  }

  /** Why the platform does not translate the device's MSIs, or null: it does. */
  private bypass(): string | null {
    const group = this.dev.iommuGroup;
    if (group === null) return `${this.dev.name} is behind no IOMMU`;
    if (group.domain.type === 'identity') return `the domain of ${this.dev.name} is identity`;
    const hardware = group.reservedRegions().find((region) => region.type === 'msi');
    if (hardware === undefined) return null;
    return `the platform passes MSIs at ${hex(hardware.start)} to ${hex(hardware.end)} untranslated`;
  }

  /** Rule 19. 0 or -EOPNOTSUPP. */
  private refusePlatform(): number {
    const { refusals } = this.context;
    const bypass = this.bypass();
    if (bypass !== null) return refusals.refuse('EOPNOTSUPP', `${bypass}: no IOVA can stand for the doorbell`, 'index');
    if (this.dev.iommuGroup?.domain.type !== 'nested') return 0;
    const why = `${this.dev.name} is nested: its owner maps the doorbell in stage 1`;
    return refusals.refuse('EOPNOTSUPP', why, 'index', 'VFIO_IRQ_SET_ACTION_PREPARE names the stage-1 address');
  }

  /** Reserves the new, moves armed vectors to it, and lets go of the old; or leaves everything as it was. */
  private apply(
    target: DoorbellTarget,
    given: { iova: number; size: number } | null,
    site: DoorbellSite | null,
  ): number {
    const armed = this.vectorsOf(target.mode);
    if (armed.length > 0 && !canMaskEach(this.dev, target.mode)) {
      const why = `${this.dev.name} cannot mask its MSI messages one by one, and they are enabled`;
      return this.context.refusals.refuse('EBUSY', why, 'index', 'disable the interrupts first');
    }
    if (armed.length > 0 && site === null) {
      const why = `vectors of ${this.dev.name} are allocated, and it is attached to nothing that they could move in`;
      return this.context.refusals.refuse('EBUSY', why, 'index', 'attach the device, or disable its interrupts');
    }
    const old = this.settings.take(target);
    const before = armed.map(({ desc }) => this.settings.of(target.mode, desc.index));
    const keep = (setting: DoorbellSetting | null): boolean =>
      setting !== null && given !== null && setting.iova === given.iova && setting.size === given.size;
    const fresh = old.map((setting) => (keep(setting) ? setting : given === null ? null : { ...given, range: null }));
    this.settings.put(target, fresh);
    const moving = armed.filter(({ desc }, i) => !sameRange(before[i]!, this.settings.of(target.mode, desc.index)));
    const leaving = old.filter((setting, i) => setting !== fresh[i]);
    const coming = fresh.filter((setting, i) => setting !== old[i]);
    const error = moving.length === 0 ? this.exchange(leaving, coming, site) : this.move(leaving, coming, site, moving);
    if (error < 0) this.settings.put(target, old);
    return error;
  }

  /** No vector moves: what leaves makes room first, so that a range may grow over its predecessor. 0, or -errno with nothing changed. */
  private exchange(leaving: readonly Place[], coming: readonly Place[], site: DoorbellSite | null): number {
    for (const setting of leaving) setting?.range?.drop();
    const error = site === null ? 0 : this.hold(coming, site);
    if (error === 0) return 0;
    for (const setting of coming) setting?.range?.drop();
    for (const setting of leaving) setting?.range?.regain();
    return error;
  }

  /** Vectors move: old and new stand side by side until the old pages are gone, and only then the old is given up. */
  private move(
    leaving: readonly Place[],
    coming: readonly Place[],
    site: DoorbellSite | null,
    vectors: readonly MsiVector[],
  ): number {
    const held = site === null ? 0 : this.hold(coming, site);
    const error = held < 0 ? held : moveVectors(this.context, this.msi, this.owned, vectors);
    for (const setting of error < 0 ? coming : leaving) setting?.range?.drop();
    return error;
  }

  /** Reserves for every setting that is not yet. 0, or -errno with those that were done left for the caller to drop. */
  private hold(settings: readonly Place[], site: DoorbellSite): number {
    const ranges = doorbellRanges(this.context, site.dma);
    for (const setting of settings) {
      if (setting === null || setting.range !== null) continue;
      const range = ranges.hold(this.dev, setting.iova, setting.size);
      if (typeof range === 'number') return range;
      setting.range = range;
    }
    return 0;
  }
}

/** What a vector or an index has, or null. */
type Place = DoorbellSetting | null;

const sameRange = (a: DoorbellSetting | null, b: DoorbellSetting | null): boolean =>
  a === b || (a !== null && b !== null && a.iova === b.iova && a.size === b.size);

function messageAddress(vector: MsiVector): bigint {
  const { addressHi, addressLo } = vector.desc.message;
  return BigInt(fromHalves(addressHi, addressLo));
}
