/** KVM_CREATE_DEVICE (virt/kvm/kvm_main.c kvm_ioctl_create_device). */
import {
  KVM_CREATE_DEVICE_TEST,
  KVM_DEV_TYPE_ARM_VGIC_ITS,
  KVM_DEV_TYPE_ARM_VGIC_V2,
  KVM_DEV_TYPE_ARM_VGIC_V3,
  KVM_DEV_TYPE_VFIO,
  kvm_create_device,
} from '../../uapi/kvm.ts';
import type { Process } from '../process.ts';
import { copyToUser } from '../user-copy.ts';
import { DeviceFile, type VmDevice } from './device-file.ts';
import { copyStruct } from './user-copy.ts';
import { KvmVfioDevice } from './vfio-device.ts';
import { Its } from './vgic/its.ts';
import { ItsDevice } from './vgic/its-device.ts';
import { Vgic } from './vgic/vgic.ts';
import { VgicDevice } from './vgic/vgic-device.ts';
import type { Vm } from './vm.ts';

type Create = (vm: Vm) => VmDevice | number;

/** Emulated GICv2 has at most eight CPUs. */
const V2_CPUS = 8;

const ARM64: Record<number, Create> = {
  [KVM_DEV_TYPE_VFIO]: createVfio,
  [KVM_DEV_TYPE_ARM_VGIC_V2]: (vm) => createVgic(vm, 2),
  [KVM_DEV_TYPE_ARM_VGIC_V3]: (vm) => createVgic(vm, 3),
  [KVM_DEV_TYPE_ARM_VGIC_ITS]: createIts,
};
const X86: Record<number, Create> = { [KVM_DEV_TYPE_VFIO]: createVfio };

export function createDevice(vm: Vm, process: Process, argument: bigint): number {
  const { refusals } = vm.context;
  const request = copyStruct(process, kvm_create_device, argument, refusals);
  if (typeof request === 'number') return request;
  const { type, flags } = request;
  const create = (vm.architecture === 'arm64' ? ARM64 : X86)[type];
  if (create === undefined) return refusals.refuse('ENODEV', `no device of type ${type} on ${vm.architecture}`, 'type');
  if ((flags & KVM_CREATE_DEVICE_TEST) !== 0) return 0;
  const device = create(vm);
  if (typeof device === 'number') return device;
  const fd = process.install(new DeviceFile(vm, device));
  if (fd < 0) return fd;
  const bytes = kvm_create_device.bytes({ type, fd, flags });
  if (copyToUser(process, argument, bytes)) return 0;
  return refusals.refuse('EFAULT', 'the struct is not writable', 'argument');
}

function createVfio(vm: Vm): VmDevice | number {
  if (vm.hasVfioDevice) return vm.context.refusals.refuse('EBUSY', 'the VM has a VFIO device already', 'type');
  vm.hasVfioDevice = true;
  return new KvmVfioDevice(vm);
}

/** kvm_vgic_create. */
function createVgic(vm: Vm, version: 2 | 3): VmDevice | number {
  const { refusals } = vm.context;
  if (vm.irqchip !== null) return refusals.refuse('EEXIST', `the VM has a ${vm.irqchip.name} already`, 'type');
  if ([...vm.vcpus.values()].some((vcpu) => vcpu.hasRun))
    return refusals.refuse('EBUSY', 'a virtual CPU has run', 'type');
  if (version === 2 && vm.vcpus.size > V2_CPUS) {
    return refusals.refuse('E2BIG', `${vm.vcpus.size} virtual CPUs are more than the ${V2_CPUS} of a GICv2`, 'type');
  }
  const vgic = new Vgic(vm, version);
  vm.irqchip = vgic;
  vm.vgic = vgic;
  return new VgicDevice(vgic);
}

function createIts(vm: Vm): VmDevice | number {
  if (vm.vgic === null) {
    return vm.context.refusals.refuse(
      'ENODEV',
      'an ITS needs a GICv3 of the same VM',
      'type',
      'create KVM_DEV_TYPE_ARM_VGIC_V3 first',
    );
  }
  const its = new Its(vm.vgic);
  vm.vgic.itses.push(its);
  return new ItsDevice(its);
}
