/** A driver that is not built in, for the tests of this room: its page tables are those of the test host, its vIOMMU has two queues and a page to map. */
import { u32, u64 } from '../../uapi/field.ts';
import * as uapi from '../../uapi/iommufd.ts';
import { struct } from '../../uapi/struct.ts';
import type { KernelContext } from '../context.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import { MapDomain, type TestGroup, type TestHostOptions, type TestUnit, testUnit } from '../vfio/test-host.ts';
import type { IommufdContext } from './context.ts';
import { IommufdDevice } from './device.ts';
import type { HwQueue } from './hw-queue.ts';
import type { HwptPaging } from './hwpt.ts';
import type { HwInfo, IommuOps, NestedTable } from './iommu-ops.ts';
import { iommufdHost } from './testing.ts';
import type { Invalidated, UserArray, UserData } from './user-data.ts';
import { Viommu } from './viommu.ts';

export const DATA_TYPE = 0x77;
export const VIOMMU_TYPE = 0x78;
export const QUEUE_TYPE = 0x79;
export const driver_data = struct('driver_data', { first: u32, second: u32 });
export const driver_viommu = struct('driver_viommu', { in_data: u32, out_length: u32, out_offset: u64 });
export const driver_invalidate = struct('driver_invalidate', { id: u32, rest: u32 });

export class DriverTable extends MapDomain implements NestedTable {
  override readonly type = 'nested';
  readonly first: number;
  readonly seen: number[] = [];

  constructor(unit: TestUnit, first: number) {
    super(unit, 'nested');
    this.first = first;
  }

  /** Ids up to 9. */
  invalidate(array: UserArray): Invalidated {
    for (let i = 0; i < array.count; i += 1) {
      const entry = array.entry(driver_invalidate, DATA_TYPE, i, 'id');
      if (typeof entry === 'number') return { done: i, error: entry };
      if (entry.id > 9) return { done: i, error: array.refusals.refuse('EINVAL', `id ${entry.id}`, 'id') };
      this.seen.push(entry.id);
    }
    return { done: array.count, error: 0 };
  }
}

class DriverViommu extends Viommu {
  readonly running: { readonly index: number; readonly pa: number }[] = [];
  private before: HwQueue | null = null;
  offset = -1;
  private readonly unit: TestUnit;

  constructor(ctx: IommufdContext, iommu: object, parent: HwptPaging, unit: TestUnit) {
    super(ctx, iommu, parent);
    this.unit = unit;
  }

  allocNested(_flags: number, data: UserData): DriverTable | number {
    const given = data.read(driver_data, DATA_TYPE, 'first');
    return typeof given === 'number' ? given : new DriverTable(this.unit, given.first);
  }

  invalidate(array: UserArray): Invalidated {
    const entries = array.all(driver_invalidate, DATA_TYPE);
    return typeof entries === 'number' ? { done: 0, error: entries } : { done: entries.length, error: 0 };
  }

  override hasHwQueue(type: number): boolean {
    return type === QUEUE_TYPE;
  }

  /** Each queue depends on the one before. */
  override startHwQueue(queue: HwQueue, index: number, pa: number): number {
    const { before } = this;
    if (before !== null) queue.depend(before);
    this.before = queue;
    this.running.push({ index, pa });
    queue.onStop = () => {
      this.running.pop();
      this.before = before;
      if (before !== null) queue.undepend(before);
    };
    return 0;
  }

  protected override release(): void {
    if (this.offset >= 0) this.ctx.mmaps.free(this.offset);
  }
}

export class TestDriver implements IommuOps {
  readonly iommu = {};
  userPasidTable = true;
  readonly viommus: DriverViommu[] = [];
  /** Of the page that a vIOMMU with data lets user space map. */
  pageAt = 0x4000_0000;
  private readonly context: KernelContext;
  private readonly unit: TestUnit;

  constructor(context: KernelContext, unit: TestUnit) {
    this.context = context;
    this.unit = unit;
  }

  hwInfo(_dev: PciDev, wanted: number): HwInfo | number {
    if (wanted !== 0 && wanted !== 0x1234)
      return this.context.refusals.refuse('EOPNOTSUPP', 'another type', 'in_data_type');
    return { type: 0x1234, data: driver_data.bytes({ first: 1, second: 2 }) };
  }

  dirtyTracking(): boolean {
    return false;
  }

  maxPasidLog2(): number {
    return 7;
  }

  allocPaging(_dev: PciDev, flags: number, data: UserData | null): MapDomain | number {
    if ((flags & ~uapi.IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0)
      return this.context.refusals.refuse('EOPNOTSUPP', 'flags', 'flags');
    const given = data?.read(driver_data, DATA_TYPE, 'first');
    return typeof given === 'number' ? given : new MapDomain(this.unit);
  }

  allocNested(_dev: PciDev, _parent: object, _flags: number, data: UserData): DriverTable | number {
    const given = data.read(driver_data, DATA_TYPE, 'first');
    return typeof given === 'number' ? given : new DriverTable(this.unit, given.first);
  }

  hasViommu(_dev: PciDev, type: number): boolean {
    return type === VIOMMU_TYPE;
  }

  initViommu(ctx: IommufdContext, parent: HwptPaging, data: UserData | null): Viommu | number {
    const viommu = new DriverViommu(ctx, this.iommu, parent, this.unit);
    this.viommus.push(viommu);
    const given = data?.read(driver_viommu, VIOMMU_TYPE, 'out_offset');
    if (data === null || given === undefined) return viommu;
    let error = typeof given === 'number' ? given : 0;
    if (typeof given !== 'number') {
      viommu.offset = ctx.mmaps.alloc(viommu, this.pageAt, 4096);
      const answer = { ...given, out_length: 4096, out_offset: BigInt(viommu.offset) };
      error = data.write(driver_viommu, VIOMMU_TYPE, 'out_offset', answer);
    }
    if (error === 0) return viommu;
    ctx.objects.abort(viommu);
    viommu.destroy();
    return error;
  }
}

/** Device vfio0 of the driver, bound as id 1; IOAS 2; a nest parent, 3; MiB of memory at `va`. */
export function driverHost(options: TestHostOptions = {}) {
  const unit = testUnit();
  const host = iommufdHost({ ...options, units: [unit] });
  const group: TestGroup = host.groups[0]!;
  const driver = new TestDriver(host.context, unit);
  group.ops = driver;
  const { iommufd } = host;
  iommufd.bind(host.devices[0]!);
  const ioas = iommufd.ioas();
  const parent = iommufd.hwpt(1, ioas, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT);
  if (parent !== 3) throw new Error(`HWPT_ALLOC answered ${parent}`);
  const device = iommufd.ctx.objects.get(1, IommufdDevice, 'dev_id');
  if (typeof device === 'number') throw new Error('no device 1');
  return { ...host, driver, device, ioas, parent, va: host.memory.address };
}
