/** Pages that devices ask for, on their way to the queue of the page table that lacks them (drivers/iommu/io-pgfault.c). */
import {
  IOMMU_PGFAULT_FLAGS_LAST_PAGE,
  IOMMU_PGFAULT_FLAGS_PASID_VALID,
  IOMMUFD_PAGE_RESP_INVALID,
} from '../../uapi/iommufd-hwpt.ts';
import type { IommufdDevice } from './device.ts';
import type { Hwpt } from './group.ts';

/** struct iommu_fault_page_request: bits are those of struct iommu_hwpt_pgfault. */
export interface PageRequest {
  readonly flags: number;
  readonly pasid: number;
  /** The device's own number for what it wants answered together. */
  readonly grpid: number;
  readonly perm: number;
  readonly addr: bigint;
}

/** Requests that are answered together: those before it of the same grpid, and the one that said that it is the last. */
export class IopfGroup {
  readonly device: IommufdDevice;
  /** The table through which the device went. */
  readonly hwpt: Hwpt;
  readonly requests: readonly PageRequest[];
  private readonly respond: (code: number) => void;

  constructor(device: IommufdDevice, hwpt: Hwpt, requests: readonly PageRequest[], respond: (code: number) => void) {
    this.device = device;
    this.hwpt = hwpt;
    this.requests = requests;
    this.respond = respond;
  }

  /** iopf_group_response: IOMMUFD_PAGE_RESP_*. */
  answer(code: number): void {
    this.respond(code);
  }
}

/**
 * iommu_report_device_fault: queues the request, or keeps it until the last of its group comes. 0, or -EINVAL when no queue takes it: the device
 * then has its answer, INVALID, at once. `respond` is the driver's page_response.
 */
export function reportDeviceFault(
  device: IommufdDevice,
  request: PageRequest,
  respond: (code: number) => void = () => {},
): number {
  const last = (request.flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE) !== 0;
  const hwpt = tableOf(device, request);
  if (hwpt === null || hwpt.fault === null) {
    if (last) respond(IOMMUFD_PAGE_RESP_INVALID);
    const why = `no fault queue takes page requests of ${device.dev.name}`;
    return device.ctx.context.refusals.refuse('EINVAL', why, 'pasid');
  }
  if (!last) {
    device.partialFaults = [...device.partialFaults, request];
    return 0;
  }
  const before = device.partialFaults.filter(({ grpid }) => grpid === request.grpid);
  device.partialFaults = device.partialFaults.filter(({ grpid }) => grpid !== request.grpid);
  hwpt.fault.deliver(new IopfGroup(device, hwpt, [...before, request], respond));
  return 0;
}

/** find_fault_handler: a PASID's own table; a PASID without a table of its own is one of a nested table's, where user space keeps the table of PASIDs. */
function tableOf({ igroup }: IommufdDevice, { flags, pasid }: PageRequest): Hwpt | null {
  const { hwpt, group, pasids } = igroup;
  if ((flags & IOMMU_PGFAULT_FLAGS_PASID_VALID) === 0) return hwpt;
  const own = pasids.get(pasid);
  if (own !== undefined) return own.hwpt;
  const userTable = group.ops?.userPasidTable ?? true;
  return userTable && hwpt?.domain.type === 'nested' ? hwpt : null;
}
