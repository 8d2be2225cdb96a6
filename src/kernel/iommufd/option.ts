/** IOMMU_OPTION: who is charged for pinned pages, and whether an IOAS uses large pages (iommufd/ioas.c, main.c). */

import { IOMMU_OPTION_SW_MSI_SIZE, IOMMU_OPTION_SW_MSI_START } from '../../uapi/belfry.ts';
import {
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  IOMMU_OPTION_RLIMIT_MODE,
  iommu_option,
} from '../../uapi/iommufd.ts';
import { copyToUser } from '../user-copy.ts';
import type { Request } from './dispatch.ts';
import { Ioas } from './ioas.ts';
import { swMsiOption } from './sw-msi-option.ts';

type OptionRequest = Request<typeof iommu_option>;

/** val64 alone is written back, also after a SET. */
export function option(ucmd: OptionRequest): number {
  const { cmd, refusals } = ucmd;
  if (cmd.__reserved !== 0) return refusals.refuse('EOPNOTSUPP', '__reserved is not 0', '__reserved');
  const value = answer(ucmd);
  if (typeof value === 'number') return value;
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  if (copyToUser(ucmd.process, ucmd.argument, bytes, iommu_option.offsetOf('val64'))) return 0;
  return refusals.refuse('EFAULT', 'val64 is not writable', 'val64');
}

/** val64 as it is now, or -errno. */
function answer(ucmd: OptionRequest): bigint | number {
  const { option_id: id } = ucmd.cmd;
  if (id === IOMMU_OPTION_RLIMIT_MODE) return rlimitMode(ucmd);
  if (id === IOMMU_OPTION_HUGE_PAGES) return hugePages(ucmd);
  if (ucmd.ctx.context.abi === 'belfry' && (id === IOMMU_OPTION_SW_MSI_START || id === IOMMU_OPTION_SW_MSI_SIZE)) {
    return swMsiOption(ucmd);
  }
  return ucmd.refusals.refuse('EOPNOTSUPP', `option ${id} is neither RLIMIT_MODE 0 nor HUGE_PAGES 1`, 'option_id');
}

/** 0: charged to the user; 1: to the process, as VFIO does. */
function rlimitMode({ cmd, ctx, process, refusals }: OptionRequest): bigint | number {
  if (cmd.object_id !== 0) {
    return refusals.refuse('EOPNOTSUPP', `RLIMIT_MODE is of the whole file: object_id ${cmd.object_id}`, 'object_id');
  }
  if (cmd.op === IOMMU_OPTION_OP_GET) return ctx.accountMode === 'mm' ? 1n : 0n;
  if (cmd.op !== IOMMU_OPTION_OP_SET) return refusals.refuse('EOPNOTSUPP', `op ${cmd.op}`, 'op');
  if (!process.credentials.capabilities.has('CAP_SYS_RESOURCE')) {
    return refusals.refuse('EPERM', 'RLIMIT_MODE takes CAP_SYS_RESOURCE', 'op');
  }
  if (ctx.objects.size > 0) {
    return refusals.refuse('EBUSY', `there are ${ctx.objects.size} objects already`, 'op', 'set it after open');
  }
  if (cmd.val64 > 1n) return refusals.refuse('EINVAL', `val64 ${cmd.val64} is neither 0 nor 1`, 'val64');
  ctx.accountMode = cmd.val64 === 1n ? 'mm' : 'user';
  return cmd.val64;
}

function hugePages({ cmd, ctx, refusals }: OptionRequest): bigint | number {
  const ioas = ctx.objects.get(cmd.object_id, Ioas, 'object_id');
  if (typeof ioas === 'number') return ioas;
  if (cmd.op === IOMMU_OPTION_OP_GET) return ioas.iopt.largePages ? 1n : 0n;
  if (cmd.op !== IOMMU_OPTION_OP_SET) return refusals.refuse('EOPNOTSUPP', `op ${cmd.op}`, 'op');
  if (cmd.val64 > 1n) return refusals.refuse('EINVAL', `val64 ${cmd.val64} is neither 0 nor 1`, 'val64');
  if (cmd.val64 === 1n) {
    ioas.iopt.enableLargePages();
    return 1n;
  }
  const error = ioas.iopt.disableLargePages();
  return error < 0 ? error : 0n;
}
