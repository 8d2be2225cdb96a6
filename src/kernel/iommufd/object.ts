/** What user space names by id in one open /dev/iommu: struct iommufd_object, and the table of them (iommufd/main.c). */
import type { KernelContext } from '../context.ts';

/** With Linux's names, in lower case. */
export type IommufdObjectType =
  | 'ioas'
  | 'hwpt-paging'
  | 'hwpt-nested'
  | 'device'
  | 'fault'
  | 'viommu'
  | 'vdevice'
  | 'veventq'
  | 'hw-queue'
  | 'access'
  | 'selftest'
  | 'tombstone';

export abstract class IommufdObject {
  abstract readonly type: IommufdObjectType;
  /** 1 or more; 0 before the table gave it one. */
  id = 0;
  /** One for the table itself, one for each object or driver that uses it. Only an object with 1 can be destroyed. */
  users = 1;
  /** False until its creation can no longer fail: nobody finds it by its id before. */
  finalized = false;
  /** Gives back what the object holds; its id is free already. */
  abstract destroy(): void;
}

/** An object that the kernel took away: its id stays taken until the file closes, so that no other object answers to it. */
class Tombstone extends IommufdObject {
  readonly type = 'tombstone';

  destroy(): void {}
}

/** Ids are the lowest free ones from 1 up (xa_alloc with XA_FLAGS_ALLOC1), and free again at once. */
export class ObjectTable {
  private readonly context: KernelContext;
  private readonly objects = new Map<number, IommufdObject>();
  /** No id below is free. */
  private lowest = 1;
  /** Told when an object left the table. */
  onRemove: (object: IommufdObject) => void = () => {};

  constructor(context: KernelContext) {
    this.context = context;
  }

  get size(): number {
    return this.objects.size;
  }

  /** By id. */
  get all(): readonly IommufdObject[] {
    return [...this.objects.values()].sort((a, b) => a.id - b.id);
  }

  /** _iommufd_object_alloc: the object has its id, and is not to be found yet. */
  add(object: IommufdObject): void {
    while (this.objects.has(this.lowest)) this.lowest += 1;
    object.id = this.lowest;
    this.objects.set(object.id, object);
  }

  finalize(object: IommufdObject): void {
    object.finalized = true;
  }

  /** iommufd_object_abort: the object never came to be; what it holds is the caller's to give back. */
  abort(object: IommufdObject): void {
    this.drop(object);
  }

  find(id: number): IommufdObject | null {
    const object = this.objects.get(id);
    return object?.finalized ? object : null;
  }

  /** -ENOENT for an id that is unknown or of another type. */
  get<T extends IommufdObject>(id: number, kind: abstract new (...args: never[]) => T, field: string): T | number {
    const object = this.find(id);
    if (object instanceof kind) return object;
    const found = object === null ? 'no object' : `of type ${object.type}`;
    return this.context.refusals.refuse('ENOENT', `${field} ${id} is ${found}`, field);
  }

  /** IOMMU_DESTROY: 0, -ENOENT, or -EBUSY while somebody uses it. */
  remove(id: number): number {
    const object = this.find(id);
    if (object === null) return this.context.refusals.refuse('ENOENT', `id ${id} is no object`, 'id');
    if (object.users > 1) {
      const why = `object ${id} (${object.type}) has ${object.users - 1} users`;
      return this.context.refusals.refuse('EBUSY', why, 'id', 'destroy or detach them first');
    }
    this.drop(object);
    object.destroy();
    return 0;
  }

  /** A driver's or an owner's reference goes, and the object with it when it was the last but the table's own. */
  putAndTryDestroy(object: IommufdObject): void {
    object.users -= 1;
    if (object.users > 1) return;
    this.drop(object);
    object.destroy();
  }

  /** iommufd_object_tombstone_user: destroyed by the kernel, whoever uses it. */
  bury(object: IommufdObject): void {
    const grave = new Tombstone();
    grave.id = object.id;
    this.drop(object);
    this.objects.set(grave.id, grave);
    object.destroy();
  }

  /** iommufd_fops_release: leaves first, in rounds by id, until nothing is left. */
  destroyAll(): void {
    for (let left = this.all; left.length > 0; left = this.all) {
      for (const object of left) {
        if (object.users > 1) continue;
        this.drop(object);
        object.destroy();
      }
      if (this.objects.size === left.length) throw new Error('objects of an iommufd use each other in a circle');
    }
  }

  private drop(object: IommufdObject): void {
    this.objects.delete(object.id);
    this.lowest = Math.min(this.lowest, object.id);
    this.onRemove(object);
  }
}
