/** The file of an in-kernel device of a VM: SET, GET and HAS of its attributes (virt/kvm/kvm_main.c kvm_device_ioctl). */
import { KVM_GET_DEVICE_ATTR, KVM_HAS_DEVICE_ATTR, KVM_SET_DEVICE_ATTR, kvm_device_attr } from '../../uapi/kvm.ts';
import type { File } from '../files.ts';
import type { Process } from '../process.ts';
import { copyStruct } from './user-copy.ts';
import type { Vm } from './vm.ts';

/** An attribute as it was asked for; `addr` points to its value in the caller's memory. */
export interface DeviceAttr {
  readonly group: number;
  readonly attr: bigint;
  readonly addr: bigint;
}

/** struct kvm_device_ops. Results are 0 or -errno. */
export interface VmDevice {
  /** `kvm-arm-vgic-v3` */
  readonly name: string;
  set(process: Process, attr: DeviceAttr): number;
  /** Absent: EPERM, as Linux answers without the operation. */
  get?(process: Process, attr: DeviceAttr): number;
  has(attr: DeviceAttr): number;
  release?(): void;
}

export class DeviceFile implements File {
  readonly name: string;
  readonly kind = 'kvm';
  private readonly vm: Vm;
  private readonly device: VmDevice;

  constructor(vm: Vm, device: VmDevice) {
    this.vm = vm;
    this.device = device;
    this.name = `anon_inode:${device.name}`;
    vm.get();
  }

  ioctl(process: Process, request: number, argument: bigint): number {
    const { refusals } = this.vm.context;
    if (process.memory !== this.vm.owner.memory) {
      return refusals.refuse('EIO', 'the device belongs to a VM of another address space');
    }
    if (request !== KVM_SET_DEVICE_ATTR && request !== KVM_GET_DEVICE_ATTR && request !== KVM_HAS_DEVICE_ATTR) {
      return refusals.refuse('ENOTTY', `0x${request.toString(16)} is no request of ${this.device.name}`);
    }
    if (request === KVM_GET_DEVICE_ATTR && this.device.get === undefined) {
      return refusals.refuse('EPERM', `${this.device.name} has no attributes to get`);
    }
    const attr = copyStruct(process, kvm_device_attr, argument, refusals);
    if (typeof attr === 'number') return attr;
    if (request === KVM_SET_DEVICE_ATTR) return this.device.set(process, attr);
    if (request === KVM_GET_DEVICE_ATTR) return this.device.get?.(process, attr) ?? 0;
    return this.device.has(attr);
  }

  release(): void {
    this.device.release?.();
    this.vm.put();
  }
}
