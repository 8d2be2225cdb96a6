/** A hardware page table of iommufd that user space made itself; most programs attach to the IOAS, and the kernel makes one. */
import * as uapi from '../uapi/iommufd.ts';
import { refuseArgument } from './argument.ts';
import type { CdevDevice } from './cdev-device.ts';
import { type DirtyRange, explainDirty, type ReadDirtyOptions, readDirtyPages } from './dirty-pages.ts';
import { userMemory } from './dma-memory.ts';
import { explainHwptAlloc } from './explain-iommufd.ts';
import { Ioas } from './ioas.ts';
import { Resource } from './resource.ts';

export interface HwptOptions {
  /** Stage 2, for a guest that has its own stage 1. */
  readonly nestParent?: boolean;
  /** For a device that uses PASIDs: all its tables have to be such. */
  readonly pasid?: boolean;
  /** The IOMMU keeps in it what devices write: see {@link Hwpt.readDirty}. EOPNOTSUPP where it cannot (an SMMU without HTTU, VT-d in legacy mode). */
  readonly dirtyTracking?: boolean;
}

/**
 * @example
 * using hwpt = Hwpt.create(device, ioas, { nestParent: true });
 * device.replace(hwpt);
 */
export class Hwpt extends Resource {
  readonly ioas: Ioas;
  readonly id: number;
  readonly #devices = new Set<CdevDevice>();

  private constructor(ioas: Ioas, id: number) {
    super();
    this.ioas = ioas;
    this.id = id;
  }

  /** A page table for what `ioas` maps, in the format of the IOMMU behind `device`, which must be bound. @throws VfioError */
  static create(device: CdevDevice, ioas: Ioas, options: HwptOptions = {}): Hwpt {
    const name = 'IOMMU_HWPT_ALLOC';
    if (!(ioas instanceof Ioas)) refuseArgument(name, 'pt_id', 'an Ioas', ioas);
    const { iommufd } = ioas;
    iommufd.assertBound(device, name);
    const parent = options.nestParent ? uapi.IOMMU_HWPT_ALLOC_NEST_PARENT : 0;
    const dirty = options.dirtyTracking ? uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING : 0;
    const flags = parent | dirty | (options.pasid ? uapi.IOMMU_HWPT_ALLOC_PASID : 0);
    const fields = { flags, dev_id: device.id, pt_id: ioas.id };
    const answer = iommufd.request(name, uapi.IOMMU_HWPT_ALLOC, uapi.iommu_hwpt_alloc, fields, explainHwptAlloc);
    return ioas.own(new Hwpt(ioas, answer.out_hwpt_id));
  }

  /**
   * A page table whose stage 1 is in this process's memory: words 0 and 1 of a stream table entry, over the stage 2 of a virtual
   * SMMU (arm-smmu-v3-iommufd.c `arm_vsmmu_alloc_domain_nested`). @throws VfioError
   */
  static nested(device: CdevDevice, ioas: Ioas, viommu: number, entry: readonly [bigint, bigint]): Hwpt {
    const { iommufd } = ioas;
    const data = userMemory(ioas.kernel, uapi.iommu_hwpt_arm_smmuv3.size);
    uapi.iommu_hwpt_arm_smmuv3.write(data.bytes, { ste: [...entry] });
    const fields = {
      dev_id: device.id,
      pt_id: viommu,
      data_type: uapi.IOMMU_HWPT_DATA_ARM_SMMUV3,
      data_len: uapi.iommu_hwpt_arm_smmuv3.size,
      data_uptr: data.address,
    };
    try {
      const answer = iommufd.request('IOMMU_HWPT_ALLOC', uapi.IOMMU_HWPT_ALLOC, uapi.iommu_hwpt_alloc, fields);
      return ioas.own(new Hwpt(ioas, answer.out_hwpt_id));
    } finally {
      data.free();
    }
  }

  get label(): string {
    return `page table ${this.id}`;
  }

  /**
   * On makes every page clean, so that what is read later was written since. Off costs the SMMU nothing to leave on, and it does: what it writes is still told.
   * A mapping made while tracking is on begins dirty.
   * @throws VfioError EOPNOTSUPP without `dirtyTracking` at its making
   */
  setDirtyTracking(on: boolean): void {
    const name = 'IOMMU_HWPT_SET_DIRTY_TRACKING';
    this.assertOpen(name);
    const fields = { hwpt_id: this.id, flags: on ? uapi.IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0 };
    const { iommufd } = this.ioas;
    const explain = (code: string) => explainDirty(code, this);
    iommufd.request(name, uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, uapi.iommu_hwpt_set_dirty_tracking, fields, explain);
  }

  /**
   * What devices wrote since it was last read, lowest first, and makes it clean unless `keep`.
   *
   * @example
   * hwpt.setDirtyTracking(true);
   * // … the device writes …
   * for (const { iova, length } of hwpt.readDirty()) send(iova, length);
   * @throws VfioError: EOPNOTSUPP as setDirtyTracking, EINVAL for a range that is not made of whole pages
   */
  readDirty(options: ReadDirtyOptions = {}): DirtyRange[] {
    this.assertOpen('IOMMU_HWPT_GET_DIRTY_BITMAP');
    return readDirtyPages(this, options);
  }

  /** Called by a device that was attached, and when it left. */
  deviceAttached(device: CdevDevice): void {
    this.#devices.add(device);
    this.ioas.deviceAttached(device);
  }

  deviceLeft(device: CdevDevice): void {
    this.#devices.delete(device);
    this.ioas.deviceLeft(device);
  }

  protected override closeChildren(): void {
    for (const device of [...this.#devices].reverse()) device.detachFrom(this);
  }

  protected override release(): void {
    this.ioas.iommufd.destroy(this.id);
  }
}
