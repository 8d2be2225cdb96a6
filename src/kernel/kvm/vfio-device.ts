/** KVM_DEV_TYPE_VFIO: tells KVM which VFIO files the VM uses (virt/kvm/vfio.c). */
import { KVM_DEV_VFIO_FILE, KVM_DEV_VFIO_FILE_ADD, KVM_DEV_VFIO_FILE_DEL } from '../../uapi/kvm.ts';
import { type File, fget, fput } from '../files.ts';
import type { Process } from '../process.ts';
import type { DeviceAttr, VmDevice } from './device-file.ts';
import { copyInteger } from './user-copy.ts';
import type { Vm } from './vm.ts';

export class KvmVfioDevice implements VmDevice {
  readonly name = 'kvm-vfio';
  private readonly vm: Vm;
  private readonly files = new Set<File>();

  constructor(vm: Vm) {
    this.vm = vm;
  }

  set(process: Process, { group, attr, addr }: DeviceAttr): number {
    const { refusals } = this.vm.context;
    const add = attr === BigInt(KVM_DEV_VFIO_FILE_ADD);
    if (group !== KVM_DEV_VFIO_FILE || (!add && attr !== BigInt(KVM_DEV_VFIO_FILE_DEL)))
      return this.unknown(group, attr);
    const value = copyInteger(process, addr, 32);
    if (value === null) return refusals.refuse('EFAULT', 'the file descriptor is not readable', 'addr');
    const fd = Number(BigInt.asIntN(32, value));
    const file = process.file(fd);
    if (file === null) return refusals.refuse('EBADF', `file descriptor ${fd} is not open`, 'addr');
    return add ? this.add(file, fd) : this.remove(file, fd);
  }

  has({ group, attr }: DeviceAttr): number {
    const known = attr === BigInt(KVM_DEV_VFIO_FILE_ADD) || attr === BigInt(KVM_DEV_VFIO_FILE_DEL);
    return group === KVM_DEV_VFIO_FILE && known ? 0 : this.unknown(group, attr);
  }

  release(): void {
    for (const file of this.files) fput(file);
    this.files.clear();
    this.vm.hasVfioDevice = false;
  }

  private add(file: File, fd: number): number {
    const { refusals } = this.vm.context;
    if (file.kind !== 'group' && file.kind !== 'device') {
      return refusals.refuse('EINVAL', `file descriptor ${fd} (${file.name}) is no VFIO group or device`, 'addr');
    }
    if (this.files.has(file)) return refusals.refuse('EEXIST', `${file.name} was added before`, 'addr');
    fget(file);
    this.files.add(file);
    return 0;
  }

  private remove(file: File, fd: number): number {
    if (!this.files.delete(file)) {
      return this.vm.context.refusals.refuse('ENOENT', `file descriptor ${fd} (${file.name}) was not added`, 'addr');
    }
    fput(file);
    return 0;
  }

  private unknown(group: number, attr: bigint): number {
    return this.vm.context.refusals.refuse('ENXIO', `no attribute ${attr} in group ${group}`, 'attr');
  }
}
