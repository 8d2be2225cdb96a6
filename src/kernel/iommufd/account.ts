/** Who is charged for pinned pages (iommufd/pages.c incr_user_locked_vm, update_mm_locked_vm). */
import type { KernelContext } from '../context.ts';
import type { Process } from '../process.ts';

/** `user`: a counter for each user id; `mm`: one for each process, as VFIO's; `none`: CAP_IPC_LOCK. */
export type AccountMode = 'user' | 'mm' | 'none';

/** Who pays: the process that mapped, and the user that it belonged to then. */
export interface Payer {
  readonly process: Process;
  readonly uid: number;
}

export const payer = (process: Process): Payer => ({ process, uid: process.credentials.euid });

const users = new WeakMap<KernelContext, Map<number, number>>();

function lockedBy(context: KernelContext): Map<number, number> {
  const known = users.get(context) ?? new Map<number, number>();
  users.set(context, known);
  return known;
}

/** Pages that iommufd holds for a user id: user->locked_vm. */
export const userLockedPages = (context: KernelContext, uid: number): number => lockedBy(context).get(uid) ?? 0;

/** iopt_pages_update_pinned: 0, or -ENOMEM when RLIMIT_MEMLOCK of the process would be exceeded. What is pinned of the process counts in every mode. */
export function chargePages(context: KernelContext, mode: AccountMode, { process, uid }: Payer, pages: number): number {
  if (pages === 0) return 0;
  if (mode !== 'none') {
    const locked = mode === 'mm' ? process.lockedPages : userLockedPages(context, uid);
    if (locked + pages > Math.floor(process.limits.memlock / context.pageSize)) {
      const whose = mode === 'mm' ? `process ${process.pid}` : `user ${uid}`;
      const why = `${locked} locked pages of ${whose} and ${pages} more exceed RLIMIT_MEMLOCK, ${process.limits.memlock} bytes`;
      return context.refusals.refuse('ENOMEM', why, 'length', 'raise the limit, or give the process CAP_IPC_LOCK');
    }
  }
  add(context, mode, { process, uid }, pages);
  return 0;
}

export function unchargePages(context: KernelContext, mode: AccountMode, { process, uid }: Payer, pages: number): void {
  add(context, mode, { process, uid }, -pages);
}

function add(context: KernelContext, mode: AccountMode, { process, uid }: Payer, pages: number): void {
  process.pinnedPages += pages;
  if (mode === 'mm') process.lockedPages += pages;
  else if (mode === 'user') lockedBy(context).set(uid, userLockedPages(context, uid) + pages);
}
