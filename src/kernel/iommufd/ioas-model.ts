/** An iommufd as plain lists of pages, after drivers/iommu/iommufd: what random programs are compared with. All IOVAs and lengths in pages of 4 KiB. */

/** Pages of the process's buffer; a mapping that reaches behind it cannot be pinned. */
export const BUFFER = 24;
export const WINDOW = { start: 0x8000, last: 0x80ff };
/** End of the aperture of a stage 1: 2^48 bytes. */
export const APERTURE = 2 ** 36;

export interface ModelArea {
  readonly iova: number;
  readonly pages: number;
  /** First page of the buffer. */
  readonly from: number;
  /** Identity of the memory that was mapped, which copies share. */
  readonly origin: { readonly writable: boolean };
}

export interface Span {
  readonly start: number;
  readonly last: number;
}

export class ModelIoas {
  areas: ModelArea[] = [];
  allowed: Span[] = [];
  hwpts: ModelHwpt[] = [];
}

export class ModelHwpt {
  attached = 0;
  readonly ioas: ModelIoas;
  /** First page that it does not translate. */
  readonly aperture: number;
  readonly nestParent: boolean;
  auto = false;
  /** What else uses it: virtual IOMMUs. */
  uses = 0;
  /** First pages of the windows whose doorbell is mapped here. */
  readonly doorbells = new Set<number>();
  constructor(ioas: ModelIoas, aperture = APERTURE, nestParent = false) {
    this.ioas = ioas;
    this.aperture = aperture;
    this.nestParent = nestParent;
  }
  get paging(): ModelHwpt {
    return this;
  }
}

/** A stage 1 of user space's over `paging`. */
export class ModelNested {
  attached = 0;
  readonly auto = false;
  readonly uses = 0;
  readonly paging: ModelHwpt;
  readonly owner: object;
  readonly translates: boolean;
  constructor(owner: object, paging: ModelHwpt, translates: boolean) {
    this.owner = owner;
    this.paging = paging;
    this.translates = translates;
  }
}

/** What a group translates through. */
export type ModelTable = ModelHwpt | ModelNested;

export class ModelGroup {
  hwpt: ModelTable | null = null;
  attached: ModelDevice[] = [];
  readonly members: ModelDevice[] = [];
  /** Windows in which vectors of the group were programmed, by first page. */
  readonly required = new Set<number>();
}

export class ModelDevice {
  readonly group: ModelGroup;
  window: Span = WINDOW;
  /** Its window was given back to the IOAS by a replace that failed, while it stays attached. */
  unreserved = false;
  /** The virtual IOMMU that has a name for it, or null. */
  namedBy: object | null = null;
  constructor(group: ModelGroup) {
    this.group = group;
    group.members.push(this);
  }
}

export type Answer = number | string;
/** What has an id; of the last kind only what it is called. */
export type Thing = ModelIoas | ModelTable | ModelDevice | { readonly type: string };

export const touches = (a: Span, b: Span): boolean => a.start <= b.last && b.start <= a.last;
const spanOf = (area: ModelArea): Span => ({ start: area.iova, last: area.iova + area.pages - 1 });

const isTable = (thing: Thing): thing is ModelTable => thing instanceof ModelHwpt || thing instanceof ModelNested;

export class IommufdModel {
  readonly things = new Map<number, Thing>();
  readonly groups: readonly ModelGroup[];

  /** `devices` by their groups; they are bound already, in this order. */
  constructor(devices: readonly ModelDevice[]) {
    this.groups = [...new Set(devices.map((device) => device.group))];
    for (const device of devices) this.add(device);
  }

  alloc(): number {
    return this.add(new ModelIoas());
  }

  destroy(id: number): Answer {
    const thing = this.things.get(id);
    if (thing === undefined) return 'ENOENT';
    if (this.isUsed(thing)) return 'EBUSY';
    this.remove(thing);
    return 0;
  }

  protected isUsed(thing: Thing): boolean {
    if (thing instanceof ModelIoas) return thing.hwpts.length > 0;
    return isTable(thing) ? thing.attached + thing.uses > 0 : true;
  }

  /** `iova` null: the lowest place that fits. `vaPage` is the address in pages. */
  map(id: number, iova: number | null, vaPage: number, from: number, pages: number, writable: boolean): Answer {
    const ioas = this.things.get(id);
    if (!(ioas instanceof ModelIoas)) return 'ENOENT';
    if (pages === 0) return 'EINVAL';
    return this.insert(ioas, iova, vaPage, [{ iova: 0, pages, from, origin: { writable } }], writable);
  }

  copy(src: number, iova: number, pages: number, dst: number, at: number | null, write: boolean, va: number): Answer {
    const source = this.things.get(src);
    if (!(source instanceof ModelIoas)) return 'ENOENT';
    if (pages === 0) return 'EINVAL';
    const parts: ModelArea[] = [];
    for (let page = iova; page < iova + pages; ) {
      const area = source.areas.find((each) => each.iova <= page && page < each.iova + each.pages);
      if (area === undefined) return 'ENOENT';
      const end = Math.min(area.iova + area.pages, iova + pages);
      parts.push({ iova: 0, pages: end - page, from: area.from + (page - area.iova), origin: area.origin });
      page = end;
    }
    const target = this.things.get(dst);
    if (!(target instanceof ModelIoas)) return 'ENOENT';
    return this.insert(target, at, va + parts[0].from, parts, write);
  }

  unmap(id: number, start: number, pages: number): Answer {
    const ioas = this.things.get(id);
    if (!(ioas instanceof ModelIoas)) return 'ENOENT';
    if (pages === 0) return 'EINVAL';
    const last = start + pages - 1;
    let done = 0;
    for (const area of [...ioas.areas].sort((a, b) => a.iova - b.iova)) {
      const span = spanOf(area);
      if (!touches(span, { start, last })) continue;
      if (span.start < start || span.last > last) return 'ENOENT';
      ioas.areas = ioas.areas.filter((each) => each !== area);
      done += area.pages;
    }
    return done === 0 ? 'ENOENT' : done;
  }

  allow(id: number, spans: readonly Span[]): Answer {
    const ioas = this.things.get(id);
    if (!(ioas instanceof ModelIoas)) return 'ENOENT';
    if (spans.some((a, i) => spans.slice(0, i).some((b) => touches(a, b)))) return 'EINVAL';
    if (spans.some((span) => this.reserved(ioas).some((taken) => touches(taken, span)))) return 'EADDRINUSE';
    ioas.allowed = [...spans].sort((a, b) => a.start - b.start);
    return 0;
  }

  hwpt(id: number): Answer {
    const parent = this.things.get(id);
    if (parent instanceof ModelHwpt) return 'EOPNOTSUPP';
    return parent instanceof ModelIoas ? this.addDomain(parent) : 'EINVAL';
  }

  attach(device: ModelDevice, id: number): Answer {
    const target = this.things.get(id);
    if (target === undefined) return 'ENOENT';
    const attached = device.group.attached.includes(device);
    const change = (hwpt: ModelTable): Answer => (attached ? this.replace(device, hwpt) : this.enter(device, hwpt));
    if (isTable(target)) return change(target);
    if (!(target instanceof ModelIoas)) return 'EINVAL';
    for (const hwpt of target.hwpts) {
      if (!hwpt.auto) continue;
      const answer = change(hwpt);
      if (answer !== 'EINVAL') return answer;
    }
    return attached ? this.replaceByNew(device, target) : this.enterNew(device, target);
  }

  detach(device: ModelDevice): Answer {
    const { group } = device;
    if (!group.attached.includes(device)) return 0;
    const hwpt = group.hwpt!;
    group.attached = group.attached.filter((each) => each !== device);
    if (group.attached.length === 0) group.hwpt = null;
    this.put(hwpt);
    return 0;
  }

  /** What no mapping of the IOAS may touch, in order and apart. */
  reserved(ioas: ModelIoas): Span[] {
    const spans = this.groups
      .filter((group) => group.hwpt?.paging.ioas === ioas)
      .flatMap((group) => group.attached.filter(({ unreserved }) => !unreserved).map(({ window }) => window));
    if (ioas.hwpts.length > 0) {
      spans.push({ start: Math.min(...ioas.hwpts.map(({ aperture }) => aperture)), last: Infinity });
    }
    const merged: Span[] = [];
    for (const span of spans.sort((a, b) => a.start - b.start)) {
      const before = merged.at(-1);
      if (before === undefined || before.last + 1 < span.start) merged.push(span);
      else merged[merged.length - 1] = { start: before.start, last: Math.max(before.last, span.last) };
    }
    return merged;
  }

  /** Pages that are charged: of each memory what the areas in page tables cover together. */
  get charged(): number {
    const pinned = new Map<object, Set<number>>();
    for (const ioas of this.things.values()) {
      if (!(ioas instanceof ModelIoas) || ioas.hwpts.length === 0) continue;
      for (const { origin, from, pages } of ioas.areas) {
        const pagesOf = pinned.get(origin) ?? new Set<number>();
        pinned.set(origin, pagesOf);
        for (let i = 0; i < pages; i += 1) pagesOf.add(from + i);
      }
    }
    return [...pinned.values()].reduce((sum, pages) => sum + pages.size, 0);
  }

  private insert(
    ioas: ModelIoas,
    iova: number | null,
    va: number,
    parts: readonly ModelArea[],
    write: boolean,
  ): Answer {
    const pages = parts.reduce((sum, part) => sum + part.pages, 0);
    const at = iova ?? this.choose(ioas, va, pages);
    if (typeof at === 'string') return at;
    const span = { start: at, last: at + pages - 1 };
    if (this.reserved(ioas).some((taken) => touches(taken, span))) return 'EINVAL';
    if (ioas.areas.some((area) => touches(spanOf(area), span))) return 'EEXIST';
    if (write && parts.some((part) => !part.origin.writable)) return 'EPERM';
    if (ioas.hwpts.length > 0 && parts.some((part) => part.from + part.pages > BUFFER)) return 'EFAULT';
    // A doorbell's page that nobody reserves any more stays as long as its table.
    const inTheWay = ioas.hwpts.some(({ doorbells }) =>
      [...doorbells].some((page) => touches(span, { start: page, last: page })),
    );
    if (inTheWay) return 'EEXIST';
    let next = at;
    for (const part of parts) {
      ioas.areas.push({ ...part, iova: next });
      next += part.pages;
    }
    return at;
  }

  /** Tries every multiple of the step, lowest first. */
  private choose(ioas: ModelIoas, va: number, pages: number): number | string {
    let step = 1;
    while (step < pages) step *= 2;
    while (va % step !== 0) step /= 2;
    const used = [...this.reserved(ioas), ...ioas.areas.map(spanOf)];
    const spans = ioas.allowed.length > 0 ? ioas.allowed : [{ start: 1, last: 2 ** 52 - 2 }];
    for (const { start, last } of spans) {
      for (let at = Math.ceil(Math.max(start, 1) / step) * step; at + pages - 1 <= last; at += step) {
        const span = { start: at, last: at + pages - 1 };
        if (!used.some((taken) => touches(taken, span))) return at;
      }
    }
    return 'ENOSPC';
  }

  /** A first attach to a page table. */
  private enter(device: ModelDevice, hwpt: ModelTable): Answer {
    const { group } = device;
    if (group.hwpt !== null && group.hwpt !== hwpt) return 'EINVAL';
    if (!this.windowIsFree(device, hwpt.paging.ioas)) return 'EADDRINUSE';
    // What was installed stays when the switch is refused.
    this.install(group, [device], hwpt.paging);
    if (group.hwpt === null && this.isNameless(group, hwpt)) return 'ENOENT';
    group.hwpt = hwpt;
    group.attached = [...group.attached, device];
    device.unreserved = false;
    hwpt.attached += 1;
    return this.idOf(hwpt);
  }

  /** The device comes first, then the mappings: the first obstacle is the answer. */
  private enterNew(device: ModelDevice, ioas: ModelIoas): Answer {
    if (device.group.hwpt !== null) return 'EINVAL';
    if (!this.windowIsFree(device, ioas)) return 'EADDRINUSE';
    const made = this.addDomain(ioas);
    if (typeof made === 'string') return made;
    const hwpt = this.things.get(made) as ModelHwpt;
    hwpt.auto = true;
    return this.enter(device, hwpt);
  }

  private replace({ group }: ModelDevice, hwpt: ModelTable): Answer {
    const old = group.hwpt!;
    if (hwpt === old) return this.idOf(hwpt);
    const { ioas } = hwpt.paging;
    const moves = ioas !== old.paging.ioas;
    if (moves && !group.attached.every((each) => this.windowIsFree(each, ioas))) return 'EADDRINUSE';
    this.install(group, group.attached, hwpt.paging);
    if (this.isNameless(group, hwpt)) {
      if (!moves) for (const each of group.attached) each.unreserved = true;
      return 'ENOENT';
    }
    if (moves) for (const each of group.attached) each.unreserved = false;
    group.hwpt = hwpt;
    for (const _ of group.attached) {
      hwpt.attached += 1;
      this.put(old);
    }
    return this.idOf(hwpt);
  }

  /** The mappings come first, then the group. */
  private replaceByNew(device: ModelDevice, ioas: ModelIoas): Answer {
    const made = this.addDomain(ioas);
    if (typeof made === 'string') return made;
    const hwpt = this.things.get(made) as ModelHwpt;
    const answer = this.replace(device, hwpt);
    if (typeof answer === 'string') this.remove(hwpt);
    else hwpt.auto = true;
    return answer;
  }

  /** The id of a new page table with everything that the IOAS maps. */
  protected addDomain(ioas: ModelIoas, aperture = APERTURE, nestParent = false): Answer {
    const spans = [...ioas.areas.map(spanOf), ...ioas.allowed];
    if (spans.some(({ last }) => last >= aperture)) return 'EADDRINUSE';
    if (ioas.hwpts.length === 0 && ioas.areas.some((area) => area.from + area.pages > BUFFER)) return 'EFAULT';
    const hwpt = new ModelHwpt(ioas, aperture, nestParent);
    ioas.hwpts.push(hwpt);
    return this.add(hwpt);
  }

  private windowIsFree({ window }: ModelDevice, ioas: ModelIoas): boolean {
    return ![...ioas.areas.map(spanOf), ...ioas.allowed].some((span) => touches(span, window));
  }

  /** A stage 1 takes devices that its virtual IOMMU has names for, all of the group. */
  private isNameless({ members }: ModelGroup, table: ModelTable): boolean {
    return table instanceof ModelNested && table.translates && members.some(({ namedBy }) => namedBy !== table.owner);
  }

  /** The doorbells that the group's vectors have, in the windows of these devices. */
  private install({ required }: ModelGroup, devices: readonly ModelDevice[], { doorbells }: ModelHwpt): void {
    for (const { window } of devices) if (required.has(window.start)) doorbells.add(window.start);
  }

  private put(table: ModelTable): void {
    table.attached -= 1;
    if (table.auto && table.attached === 0) this.remove(table);
  }

  protected add(thing: Thing): number {
    let id = 1;
    while (this.things.has(id)) id += 1;
    this.things.set(id, thing);
    return id;
  }

  protected remove(thing: Thing): void {
    this.things.delete(this.idOf(thing));
    if (thing instanceof ModelHwpt) thing.ioas.hwpts = thing.ioas.hwpts.filter((each) => each !== thing);
  }

  protected idOf(thing: Thing): number {
    for (const [id, each] of this.things) if (each === thing) return id;
    throw new Error('the model lost an object');
  }
}
