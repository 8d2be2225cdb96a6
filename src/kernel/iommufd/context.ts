/** What one open /dev/iommu holds: struct iommufd_ctx. */
import type { KernelContext } from '../context.ts';
import type { File } from '../files.ts';
import type { IommuGroup } from '../iommu/iommu-group.ts';
import type { AccountMode } from './account.ts';
import { IommufdGroup } from './group.ts';
import { Ioas } from './ioas.ts';
import { MmapTable } from './mmap-table.ts';
import { ObjectTable } from './object.ts';
import { SwMsiTable } from './sw-msi.ts';

export class IommufdContext {
  readonly context: KernelContext;
  /** The open file; devices hold references on it. */
  readonly file: File;
  readonly objects: ObjectTable;
  readonly swMsi: SwMsiTable;
  /** What drivers let user space map through the file. */
  readonly mmaps: MmapTable;
  /** Who is charged for what is mapped from now on, unless CAP_IPC_LOCK frees it. */
  accountMode: Exclude<AccountMode, 'none'> = 'user';
  /** The IOAS that VFIO's container requests work on, or null. */
  vfioIoas: Ioas | null = null;
  private readonly groups = new Map<IommuGroup, IommufdGroup>();

  constructor(context: KernelContext, file: File) {
    this.context = context;
    this.file = file;
    this.objects = new ObjectTable(context);
    this.objects.onRemove = (object) => {
      if (object === this.vfioIoas) this.vfioIoas = null;
    };
    this.swMsi = new SwMsiTable(context);
    this.mmaps = new MmapTable(context);
  }

  /** In the order of their ids. */
  get ioases(): readonly Ioas[] {
    return this.objects.all.filter((object) => object instanceof Ioas);
  }

  get groupCount(): number {
    return this.groups.size;
  }

  /** iommufd_get_group: one for all bound devices of an IOMMU group, counted. */
  getGroup(group: IommuGroup): IommufdGroup {
    const known = this.groups.get(group) ?? new IommufdGroup(this, group);
    this.groups.set(group, known);
    known.references += 1;
    return known;
  }

  putGroup(group: IommufdGroup): void {
    group.references -= 1;
    if (group.references === 0) this.groups.delete(group.group);
  }

  /** What the fd knows of a group that has bound devices, or null. */
  groupOf(group: IommuGroup): IommufdGroup | null {
    return this.groups.get(group) ?? null;
  }
}
