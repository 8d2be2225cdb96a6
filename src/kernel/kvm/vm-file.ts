/** The file of a VM: requests on struct kvm (virt/kvm/kvm_main.c kvm_vm_ioctl, and what each architecture adds). */
import {
  KVM_CHECK_EXTENSION,
  KVM_CREATE_DEVICE,
  KVM_CREATE_IRQCHIP,
  KVM_CREATE_VCPU,
  KVM_IOEVENTFD,
  KVM_IRQ_LINE,
  KVM_IRQFD,
  KVM_SET_GSI_ROUTING,
  KVM_SET_USER_MEMORY_REGION,
  KVM_SIGNAL_MSI,
} from '../../uapi/kvm.ts';
import type { File } from '../files.ts';
import type { Process } from '../process.ts';
import { lowWord, userPointer } from '../user-copy.ts';
import { createDevice } from './create-device.ts';
import { checkExtension } from './extensions.ts';
import { irqLine, signalMsi } from './inject-requests.ts';
import { IoEventFds } from './ioeventfd.ts';
import { detach, irqfdRequest } from './irqfd-requests.ts';
import { setUserMemoryRegion } from './memory-region.ts';
import { KVM_ARM_PREFERRED_TARGET, KVM_ARM_TARGET_GENERIC_V8 } from './numbers.ts';
import { readRouting } from './routing.ts';
import { createVcpu } from './vcpu-file.ts';
import type { Vm } from './vm.ts';
import { createIrqchip } from './x86/apic-chip.ts';

export class VmFile implements File {
  readonly name = 'anon_inode:kvm-vm';
  readonly kind = 'kvm';
  readonly vm: Vm;

  constructor(vm: Vm) {
    this.vm = vm;
    vm.ioeventfds = new IoEventFds(vm);
    vm.get();
  }

  ioctl(process: Process, request: number, argument: bigint): number {
    const { vm } = this;
    const { refusals } = vm.context;
    if (process.memory !== vm.owner.memory) return refusals.refuse('EIO', 'the VM belongs to another address space');
    switch (request) {
      case KVM_CHECK_EXTENSION:
        return checkExtension(vm.architecture, lowWord(argument), vm);
      case KVM_SET_USER_MEMORY_REGION:
        return setUserMemoryRegion(vm, process, argument);
      case KVM_CREATE_VCPU:
        return createVcpu(vm, process, lowWord(argument));
      case KVM_CREATE_DEVICE:
        return createDevice(vm, process, argument);
      case KVM_SET_GSI_ROUTING:
        return this.setRouting(process, argument);
      case KVM_IRQFD:
        return irqfdRequest(vm, process, argument);
      case KVM_IOEVENTFD:
        return vm.ioeventfds?.ioctl(process, argument) ?? 0;
      case KVM_SIGNAL_MSI:
        return signalMsi(vm, process, argument);
      case KVM_IRQ_LINE:
        return irqLine(vm, process, argument);
      default:
        return this.architectureRequest(process, request, argument);
    }
  }

  /** The irqfds go with the file; what they injected stays until the VM does. */
  release(): void {
    for (const irqfd of [...this.vm.irqfds]) detach(this.vm, irqfd);
    this.vm.ioeventfds?.destroy();
    this.vm.put();
  }

  private setRouting(process: Process, argument: bigint): number {
    const table = readRouting(process.memory, userPointer(argument), this.vm.irqchip, this.vm.context.refusals);
    if (typeof table === 'number') return table;
    this.vm.setRouting(table);
    return 0;
  }

  private architectureRequest(process: Process, request: number, argument: bigint): number {
    const { vm } = this;
    const { refusals } = vm.context;
    if (request === KVM_CREATE_IRQCHIP && vm.architecture === 'x86') return createIrqchip(vm);
    if (request === KVM_ARM_PREFERRED_TARGET && vm.architecture === 'arm64') {
      const bytes = new Uint8Array(32);
      bytes[0] = KVM_ARM_TARGET_GENERIC_V8;
      if (process.memory.copyOut(userPointer(argument), bytes)) return 0;
      return refusals.refuse('EFAULT', 'struct kvm_vcpu_init is not writable', 'argument');
    }
    return refusals.refuse('ENOTTY', `0x${request.toString(16)} is no request of a VM that is built`, 'request');
  }
}
