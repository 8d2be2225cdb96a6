/** KVM_CHECK_EXTENSION, of the host and of a VM. What is not here answers 0, as every unknown capability does. */
import {
  KVM_CAP_DEVICE_CTRL,
  KVM_CAP_IOEVENTFD,
  KVM_CAP_IOEVENTFD_ANY_LENGTH,
  KVM_CAP_IRQ_ROUTING,
  KVM_CAP_IRQCHIP,
  KVM_CAP_IRQFD,
  KVM_CAP_IRQFD_RESAMPLE,
  KVM_CAP_MSI_DEVID,
  KVM_CAP_SIGNAL_MSI,
  KVM_CAP_USER_MEMORY,
} from '../../uapi/kvm.ts';
import {
  KVM_CAP_ARM_VM_IPA_SIZE,
  KVM_CAP_MAX_VCPU_ID,
  KVM_CAP_MAX_VCPUS,
  KVM_CAP_NR_MEMSLOTS,
  KVM_CAP_NR_VCPUS,
  KVM_CAP_READONLY_MEM,
  MAX_IPA_BITS,
  MAX_VCPUS,
} from './numbers.ts';
import { KVM_MAX_IRQ_ROUTES } from './routing.ts';
import type { GuestArchitecture, Vm } from './vm.ts';

const PRESENT = new Set<number>([
  KVM_CAP_IRQCHIP,
  KVM_CAP_USER_MEMORY,
  KVM_CAP_IRQFD,
  KVM_CAP_IOEVENTFD,
  KVM_CAP_IOEVENTFD_ANY_LENGTH,
  KVM_CAP_SIGNAL_MSI,
  KVM_CAP_READONLY_MEM,
  KVM_CAP_IRQFD_RESAMPLE,
  KVM_CAP_DEVICE_CTRL,
]);

/** `vm` is null when /dev/kvm itself is asked. -EINVAL (MSI_DEVID without a VM), as arm64 answers. */
export function checkExtension(architecture: GuestArchitecture, capability: number, vm: Vm | null): number {
  if (PRESENT.has(capability)) return 1;
  switch (capability) {
    case KVM_CAP_IRQ_ROUTING:
      return KVM_MAX_IRQ_ROUTES;
    case KVM_CAP_NR_VCPUS:
    case KVM_CAP_MAX_VCPUS:
    case KVM_CAP_MAX_VCPU_ID:
      return MAX_VCPUS[architecture];
    case KVM_CAP_NR_MEMSLOTS:
      return architecture === 'arm64' ? 32767 : 32764;
    case KVM_CAP_ARM_VM_IPA_SIZE:
      return architecture === 'arm64' ? MAX_IPA_BITS : 0;
    case KVM_CAP_MSI_DEVID:
      if (architecture !== 'arm64') return 0;
      return vm === null ? -22 : vm.irqchip?.needsDeviceId ? 1 : 0;
    default:
      return 0;
  }
}
