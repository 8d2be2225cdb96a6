/** A virtual CPU's file. Guest code is not executed here: a program attaches as the guest through the GuestPort instead. */
import type { File } from '../files.ts';
import type { Process } from '../process.ts';
import { KVM_ARM_VCPU_INIT, KVM_RUN, MAX_VCPUS } from './numbers.ts';
import type { Vcpu, Vm } from './vm.ts';

export class VcpuFile implements File {
  readonly name: string;
  readonly kind = 'kvm';
  readonly vcpu: Vcpu;
  private readonly vm: Vm;

  constructor(vm: Vm, vcpu: Vcpu) {
    this.vm = vm;
    this.vcpu = vcpu;
    this.name = `anon_inode:kvm-vcpu:${vcpu.index}`;
    vm.get();
  }

  ioctl(process: Process, request: number): number {
    const { refusals } = this.vm.context;
    if (process.memory !== this.vm.owner.memory)
      return refusals.refuse('EIO', 'the VM belongs to another address space');
    if (request === KVM_ARM_VCPU_INIT && this.vm.architecture === 'arm64') return 0;
    if (request === KVM_RUN) {
      return refusals.refuse(
        'ENOSYS',
        'this kernel does not execute guest code',
        'request',
        'attach the guest as a program: GuestPort.attach(vm, cpu, signal)',
      );
    }
    return refusals.refuse(
      'ENOTTY',
      `0x${request.toString(16)} is no request of a virtual CPU that is built`,
      'request',
    );
  }

  release(): void {
    this.vm.put();
  }
}

/** KVM_CREATE_VCPU (kvm_vm_ioctl_create_vcpu, kvm_arch_vcpu_precreate). */
export function createVcpu(vm: Vm, process: Process, index: number): number {
  const { refusals } = vm.context;
  const limit = MAX_VCPUS[vm.architecture];
  if (index >= limit) return refusals.refuse('EINVAL', `virtual CPU ${index} is not below ${limit}`, 'id');
  if (vm.vgic?.initialized)
    return refusals.refuse('EBUSY', 'the interrupt controller is initialised for its CPUs already');
  if (vm.vcpus.has(index)) return refusals.refuse('EEXIST', `virtual CPU ${index} exists`, 'id');
  const vcpu: Vcpu = { index, hasRun: false, attached: false };
  const fd = process.install(new VcpuFile(vm, vcpu));
  if (fd >= 0) {
    vm.vcpus.set(index, vcpu);
    vm.irqchip?.addCpu?.(index);
  }
  return fd;
}
