/** Numbers of linux/kvm.h for virtual CPUs, which only the kernel's side needs here. */
import { _IO, _IOR, _IOW } from '../../uapi/ioctl.ts';
import { KVMIO } from '../../uapi/kvm.ts';

const VCPU_INIT_SIZE = 32;

export const KVM_RUN = _IO(KVMIO, 0x80);
export const KVM_ARM_VCPU_INIT = _IOW(KVMIO, 0xae, VCPU_INIT_SIZE);
export const KVM_ARM_PREFERRED_TARGET = _IOR(KVMIO, 0xaf, VCPU_INIT_SIZE);
/** struct kvm_vcpu_init: target, features[7]. */
export const KVM_ARM_TARGET_GENERIC_V8 = 5;

export const KVM_CAP_NR_VCPUS = 9;
export const KVM_CAP_NR_MEMSLOTS = 10;
export const KVM_CAP_MAX_VCPUS = 66;
export const KVM_CAP_READONLY_MEM = 81;
export const KVM_CAP_MAX_VCPU_ID = 128;
export const KVM_CAP_ARM_VM_IPA_SIZE = 165;

/** Virtual CPUs of one VM: KVM_MAX_VCPUS. */
export const MAX_VCPUS = { arm64: 512, x86: 4096 } as const;
/** Bits of a guest-physical address that the simulated hosts offer. */
export const MAX_IPA_BITS = 48;
export const DEFAULT_IPA_BITS = 40;
