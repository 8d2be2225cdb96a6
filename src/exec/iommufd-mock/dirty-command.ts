/** IOMMU_TEST_OP_DIRTY: makes pages of a mock's page table dirty, as a device's writes would. */
import { HwptPaging } from '../../kernel/iommufd/index.ts';
import { copyFromUser } from '../../kernel/user-copy.ts';
import type { Command } from './command.ts';
import { MockDomain } from './mock-domain.ts';

/** Bits of the largest bitmap. */
const MOST_PAGES = 8n * 16n * 1024n * 1024n;

/** struct dirty: iova@24, length@32, page_size@40, uptr@48, out_nr_dirty@56. */
export function setDirty(cmd: Command): number {
  const [iova, length, page, bitmap] = [cmd.u64(24), cmd.u64(32), cmd.u64(40), cmd.u64(48)];
  if (page === 0n || length === 0n || iova % page !== 0n || length % page !== 0n || bitmap === 0n) {
    return cmd.refuse('EINVAL', 'not whole pages of page_size, or no bitmap', 'page_size');
  }
  const pages = length / page;
  if (pages > MOST_PAGES) return cmd.refuse('EOVERFLOW', `${pages} pages at once`, 'length');
  const hwpt = cmd.file.ctx.objects.get(cmd.id, HwptPaging, 'id');
  if (typeof hwpt === 'number') return hwpt;
  const { domain } = hwpt;
  if (!(domain instanceof MockDomain)) return cmd.refuse('EINVAL', `HWPT ${cmd.id} is no mock's`, 'id');
  const leaves = domain.dirtyOps;
  if (leaves === undefined || !leaves.tracking) return cmd.refuse('EINVAL', `HWPT ${cmd.id} tracks nothing`, 'id');
  const bits = copyFromUser(cmd.process, bitmap, Math.ceil(Number(pages) / 8));
  if (bits === null) return cmd.refuse('EFAULT', 'uptr is not readable', 'uptr');
  let count = 0;
  for (let i = 0; i < Number(pages); i += 1) {
    if ((bits[i >> 3]! & (1 << (i & 7))) === 0) continue;
    leaves.set(Number(iova) + i * Number(page));
    count += 1;
  }
  return cmd.respond({ 56: count, 60: 0 });
}
