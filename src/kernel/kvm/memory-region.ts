/** KVM_SET_USER_MEMORY_REGION (virt/kvm/kvm_main.c __kvm_set_memory_region), check by check. */
import { hexPlain } from '../../ports/address.ts';
import { KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_userspace_memory_region } from '../../uapi/kvm.ts';
import type { Process } from '../process.ts';
import type { MemorySlot } from './guest-memory.ts';
import { copyStruct } from './user-copy.ts';
import type { Vm } from './vm.ts';

/** KVM_USER_MEM_SLOTS: SHRT_MAX, less three of KVM's own on x86. */
const SLOTS = { arm64: 32767, x86: 32764 };
/** KVM_MEM_MAX_NR_PAGES. */
const MAX_PAGES = 2 ** 31 - 1;
/** TASK_SIZE: user addresses end here (access_ok). */
const USER_LIMIT = 2n ** 48n;

export function setUserMemoryRegion(vm: Vm, process: Process, argument: bigint): number {
  const { refusals, pageSize } = vm.context;
  const region = copyStruct(process, kvm_userspace_memory_region, argument, refusals);
  if (typeof region === 'number') return region;
  const { slot: id, flags, guest_phys_addr, memory_size, userspace_addr } = region;
  const page = BigInt(pageSize);
  const refuse = (field: string, why: string): number => refusals.refuse('EINVAL', why, field);

  if ((flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)) !== 0) return refuse('flags', `unknown flags ${flags}`);
  if (memory_size % page !== 0n)
    return refuse('memory_size', `size ${hexPlain(memory_size)} is not a multiple of ${pageSize}`);
  if (guest_phys_addr % page !== 0n) {
    return refuse('guest_phys_addr', `guest address ${hexPlain(guest_phys_addr)} is not a multiple of ${pageSize}`);
  }
  if (userspace_addr % page !== 0n || userspace_addr + memory_size > USER_LIMIT) {
    return refuse('userspace_addr', `user address ${hexPlain(userspace_addr)} is unaligned or beyond user space`);
  }
  if (id >>> 16 !== 0 || id >= SLOTS[vm.architecture]) return refuse('slot', `slot ${id} does not exist`);
  if (guest_phys_addr + memory_size >= 2n ** 64n) return refuse('guest_phys_addr', 'the guest range wraps');
  if (memory_size / page > BigInt(MAX_PAGES)) return refuse('memory_size', `more than ${MAX_PAGES} pages`);

  const old = vm.memory.slots.get(id) ?? null;
  if (memory_size === 0n) return deleteSlot(vm, id, old);
  if (guest_phys_addr >= 2n ** 53n)
    return refusals.refuse('EFAULT', "beyond the guest's address space", 'guest_phys_addr');
  return place(vm, old, {
    id,
    flags,
    gpa: Number(guest_phys_addr),
    size: Number(memory_size),
    userAddress: Number(userspace_addr),
  });
}

function deleteSlot(vm: Vm, id: number, old: MemorySlot | null): number {
  if (old === null) return vm.context.refusals.refuse('EINVAL', `slot ${id} is empty already`, 'memory_size');
  vm.memory.slots.delete(id);
  vm.invalidate();
  return 0;
}

function place(vm: Vm, old: MemorySlot | null, slot: MemorySlot): number {
  const { refusals } = vm.context;
  if (old !== null) {
    const changed = (old.flags ^ slot.flags) & KVM_MEM_READONLY;
    if (old.userAddress !== slot.userAddress || old.size !== slot.size || changed !== 0) {
      return refusals.refuse(
        'EINVAL',
        `slot ${slot.id} exists with another user address, size or read-only flag`,
        'slot',
      );
    }
    if (old.gpa === slot.gpa && old.flags === slot.flags) return 0;
  }
  const other = vm.memory.overlapping(slot.gpa, slot.size, slot.id);
  if (other !== null && (old === null || old.gpa !== slot.gpa)) {
    const range = `[${hexPlain(slot.gpa)}, ${hexPlain(slot.gpa + slot.size)})`;
    return refusals.refuse('EEXIST', `${range} overlaps slot ${other.id} at ${hexPlain(other.gpa)}`, 'guest_phys_addr');
  }
  if (slot.gpa + slot.size > vm.addressLimit) {
    return refusals.refuse(
      'EFAULT',
      `the range ends beyond the ${vm.addressBits} bits of the guest's address space`,
      'guest_phys_addr',
    );
  }
  vm.memory.slots.set(slot.id, slot);
  vm.invalidate();
  return 0;
}
