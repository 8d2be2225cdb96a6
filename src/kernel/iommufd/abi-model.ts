/** The rest of iommufd for random programs: nest parents, virtual IOMMUs, their names for devices, their event queues, stage 1s, moved windows, doorbells. */
import {
  type Answer,
  IommufdModel,
  ModelDevice,
  ModelHwpt,
  ModelIoas,
  ModelNested,
  type Span,
  type Thing,
  WINDOW,
} from './ioas-model.ts';

/** End of the aperture of a stage 2: 2^44 bytes, what the SMMU's addresses have. */
export const STAGE2_APERTURE = 2 ** 32;
const MIB_PAGES = 256;

export class ModelViommu {
  readonly type = 'viommu';
  readonly parent: ModelHwpt;
  uses = 0;
  readonly names = new Set<number>();
  queue: ModelQueue | null = null;
  constructor(parent: ModelHwpt) {
    this.parent = parent;
  }
}

export class ModelVdevice {
  readonly type = 'vdevice';
  readonly viommu: ModelViommu;
  readonly device: ModelDevice;
  readonly name: number;
  constructor(viommu: ModelViommu, device: ModelDevice, name: number) {
    this.viommu = viommu;
    this.device = device;
    this.name = name;
  }
}

export class ModelQueue {
  readonly type = 'veventq';
  readonly viommu: ModelViommu;
  open = true;
  constructor(viommu: ModelViommu) {
    this.viommu = viommu;
  }
}

/** What the two words of an entry say. */
export type EntryKind = 'stage 1' | 'bypass' | 'abort' | 'foreign';

export class AbiModel extends IommufdModel {
  /** Where the vectors of a device were programmed, by first page of the window. */
  readonly armed = new Map<ModelDevice, number>();

  hwptAlloc(dev: number, id: number, nestParent: boolean): Answer {
    if (!(this.things.get(dev) instanceof ModelDevice)) return 'ENOENT';
    const parent = this.things.get(id);
    if (parent instanceof ModelIoas) {
      return nestParent ? this.addDomain(parent, STAGE2_APERTURE, true) : this.addDomain(parent);
    }
    return parent instanceof ModelViommu || parent instanceof ModelHwpt ? 'EOPNOTSUPP' : 'EINVAL';
  }

  nestedAlloc(dev: number, id: number, kind: EntryKind): Answer {
    if (!(this.things.get(dev) instanceof ModelDevice)) return 'ENOENT';
    const viommu = this.things.get(id);
    // Data belongs to no table over an IOAS, and this IOMMU nests under a virtual one only.
    if (viommu instanceof ModelIoas || viommu instanceof ModelHwpt) return 'EOPNOTSUPP';
    if (!(viommu instanceof ModelViommu)) return 'EINVAL';
    if (kind === 'foreign') return 'EIO';
    viommu.uses += 1;
    return this.add(new ModelNested(viommu, viommu.parent, kind === 'stage 1'));
  }

  viommuAlloc(dev: number, id: number): Answer {
    if (!(this.things.get(dev) instanceof ModelDevice)) return 'ENOENT';
    const parent = this.things.get(id);
    if (!(parent instanceof ModelHwpt)) return 'ENOENT';
    if (!parent.nestParent) return 'EINVAL';
    parent.uses += 1;
    return this.add(new ModelViommu(parent));
  }

  vdeviceAlloc(id: number, dev: number, name: number): Answer {
    const [viommu, device] = [this.things.get(id), this.things.get(dev)];
    if (!(viommu instanceof ModelViommu) || !(device instanceof ModelDevice)) return 'ENOENT';
    if (device.namedBy !== null || viommu.names.has(name)) return 'EEXIST';
    viommu.names.add(name);
    viommu.uses += 1;
    device.namedBy = viommu;
    return this.add(new ModelVdevice(viommu, device, name));
  }

  queueAlloc(id: number): Answer {
    const viommu = this.things.get(id);
    if (!(viommu instanceof ModelViommu)) return 'ENOENT';
    if (viommu.queue !== null) return 'EEXIST';
    viommu.queue = new ModelQueue(viommu);
    viommu.uses += 1;
    return this.add(viommu.queue);
  }

  /** START, then SIZE, in MiB; 0 MiB is the driver's window again. */
  moveWindow(dev: number, start: number, mib: number): Answer[] {
    const device = this.things.get(dev);
    if (!(device instanceof ModelDevice)) return ['ENOENT', 'ENOENT'];
    if (device.group.attached.includes(device)) return ['EBUSY', 'EBUSY'];
    const moved: Span = { start: start * MIB_PAGES, last: (start + mib) * MIB_PAGES - 1 };
    device.window = mib === 0 ? WINDOW : moved;
    return [0, 0];
  }

  /** Vectors, which are not enabled yet; a device that is in no page table while its group is has the window of the first. */
  arm(device: ModelDevice): Answer {
    const { group } = device;
    const own = group.attached.includes(device) ? device : group.attached[0];
    if (group.hwpt === null || own === undefined) return 'ENOSPC';
    group.required.add(own.window.start);
    group.hwpt.paging.doorbells.add(own.window.start);
    this.armed.set(device, own.window.start);
    return 0;
  }

  disarm(device: ModelDevice): void {
    this.armed.delete(device);
  }

  protected override isUsed(thing: Thing): boolean {
    if (thing instanceof ModelVdevice) return false;
    if (thing instanceof ModelQueue) return thing.open;
    return thing instanceof ModelViommu ? thing.uses > 0 : super.isUsed(thing);
  }

  protected override remove(thing: Thing): void {
    super.remove(thing);
    if (thing instanceof ModelViommu) thing.parent.uses -= 1;
    if (thing instanceof ModelNested && thing.owner instanceof ModelViommu) thing.owner.uses -= 1;
    if (thing instanceof ModelQueue) {
      thing.viommu.queue = null;
      thing.viommu.uses -= 1;
    }
    if (thing instanceof ModelVdevice) {
      thing.device.namedBy = null;
      thing.viommu.names.delete(thing.name);
      thing.viommu.uses -= 1;
    }
  }
}
