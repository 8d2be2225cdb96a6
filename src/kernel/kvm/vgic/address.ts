/** vgic_check_iorange: where user space may put a controller's registers in the guest. */
import { hexPlain } from '../../../ports/address.ts';
import type { Vm } from '../vm.ts';

/** 0, EEXIST (set before), EINVAL (unaligned, wraps), E2BIG (beyond the guest's addresses) as -errno. */
export function checkRange(vm: Vm, current: number | null, address: bigint, alignment: number, size: number): number {
  const { refusals } = vm.context;
  if (current !== null) return refusals.refuse('EEXIST', `the address was set to ${hexPlain(current)} before`, 'addr');
  if (address % BigInt(alignment) !== 0n || size % alignment !== 0) {
    return refusals.refuse('EINVAL', `${hexPlain(address)} is not a multiple of ${hexPlain(alignment)}`, 'addr');
  }
  if (address + BigInt(size) > 0xffff_ffff_ffff_ffffn) return refusals.refuse('EINVAL', 'the range wraps', 'addr');
  if (address + BigInt(size) > BigInt(vm.addressLimit)) {
    return refusals.refuse(
      'E2BIG',
      `the range ends beyond the ${vm.addressBits} bits of the guest's address space`,
      'addr',
    );
  }
  return 0;
}
