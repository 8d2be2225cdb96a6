/** A device goes to another domain, and its doorbells go before it (docs/doorbell.md, rules 11 and 17). */
import type { DoorbellPage } from '../../ports/bus.ts';
import type { KernelContext } from '../context.ts';
import type { MsiDesc } from '../irq/msi-desc.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import { type DoorbellPages, doorbellPages } from '../vfio/doorbell-pages.ts';
import { type DoorbellRange, doorbellRanges } from '../vfio/doorbell-ranges.ts';
import { checkFrames, type DoorbellSite, recheckRange } from './doorbell-request.ts';
import type { OwnedPage } from './doorbell-rewrite.ts';
import type { DoorbellSetting, DoorbellSettings } from './doorbell-settings.ts';

/** What a device takes along. */
export interface DoorbellPossessions {
  readonly settings: DoorbellSettings;
  readonly owned: Map<MsiDesc, OwnedPage>;
  /** Of the device's interrupt controller. */
  readonly frames: readonly DoorbellPage[];
  /** Told on commit. */
  arrive(site: DoorbellSite): void;
}

export class DoorbellMove {
  private readonly things: DoorbellPossessions;
  private readonly site: DoorbellSite;
  private readonly pages: DoorbellPages;
  private readonly reserved = new Map<DoorbellSetting, DoorbellRange>();
  private readonly installed: [MsiDesc, OwnedPage][] = [];

  private constructor(context: KernelContext, things: DoorbellPossessions, site: DoorbellSite) {
    this.things = things;
    this.site = site;
    this.pages = doorbellPages(context, site.dma.kind, site.domain);
  }

  /** Everything reserved and installed at the new site, besides the old; or -errno and nothing done. */
  static begin(
    context: KernelContext,
    dev: PciDev,
    things: DoorbellPossessions,
    site: DoorbellSite,
  ): DoorbellMove | number {
    const settings = things.settings.all;
    if (settings.length > 0 && site.domain.type !== 'unmanaged') {
      const why = `${dev.name} has a user-given doorbell, and a ${site.domain.type} domain has no place for one`;
      return context.refusals.refuse('EOPNOTSUPP', why, 'pt_id', 'clear the doorbell first');
    }
    const move = new DoorbellMove(context, things, site);
    const error = move.reserve(context, dev, settings) || move.install();
    if (error === 0) return move;
    move.cancel();
    return error;
  }

  /** The device translates through the new domain: what it had in the old one goes. */
  commit(): void {
    const { owned } = this.things;
    for (const [desc, page] of this.installed) {
      const old = owned.get(desc);
      old?.pages?.release(old.iova);
      owned.set(desc, page);
    }
    for (const [setting, range] of this.reserved) {
      setting.range?.drop();
      setting.range = range;
    }
    this.things.arrive(this.site);
  }

  /** The switch failed: the old stands as it was. */
  cancel(): void {
    for (const [, page] of this.installed) this.pages.release(page.iova);
    for (const range of this.reserved.values()) range.drop();
  }

  private reserve(context: KernelContext, dev: PciDev, settings: readonly DoorbellSetting[]): number {
    const ranges = doorbellRanges(context, this.site.dma);
    const exposed = settings.length === 0 ? 0 : checkFrames(context, dev, this.site, this.things.frames);
    if (exposed < 0) return exposed;
    for (const setting of settings) {
      const error = recheckRange(context, dev, this.site, setting);
      if (error < 0) return error;
      const range = ranges.hold(dev, setting.iova, setting.size);
      if (typeof range === 'number') return range;
      this.reserved.set(setting, range);
    }
    return 0;
  }

  /** Messages are not rewritten, so each page must come to stand where it stood. */
  private install(): number {
    for (const [desc, page] of this.things.owned) {
      const error = this.pages.acquireAt(page.iova, page.doorbell);
      if (error < 0) return error;
      this.installed.push([desc, { ...page, pages: this.pages }]);
    }
    return 0;
  }
}
