/** /dev/kvm: the file, and what the rest of the kernel gets from it. */
import type { GuestPort } from '../../ports/guest.ts';
import {
  KVM_API_VERSION,
  KVM_CHECK_EXTENSION,
  KVM_CREATE_VM,
  KVM_GET_API_VERSION,
  KVM_GET_VCPU_MMAP_SIZE,
} from '../../uapi/kvm.ts';
import type { KernelContext } from '../context.ts';
import type { File } from '../files.ts';
import type { Process } from '../process.ts';
import { lowWord } from '../user-copy.ts';
import { checkExtension } from './extensions.ts';
import { KvmGuestPort } from './guest-port.ts';
import { DEFAULT_IPA_BITS, MAX_IPA_BITS } from './numbers.ts';
import { type GuestArchitecture, Vm } from './vm.ts';
import { VmFile } from './vm-file.ts';

export interface KvmOptions {
  /** Of the host, and so of its guests. */
  readonly architecture: GuestArchitecture;
}

export interface Kvm {
  /** A new open file of /dev/kvm. */
  openFile(): File;
  /** Attaches guest CPUs to VMs that `process` has a descriptor of. */
  guestPort(process: Process): GuestPort;
}

export function createKvm(context: KernelContext, options: KvmOptions): Kvm {
  return {
    openFile: () => new KvmFile(context, options.architecture),
    guestPort: (process) => new KvmGuestPort(process, context),
  };
}

class KvmFile implements File {
  readonly name = '/dev/kvm';
  readonly kind = 'kvm';
  private readonly context: KernelContext;
  private readonly architecture: GuestArchitecture;

  constructor(context: KernelContext, architecture: GuestArchitecture) {
    this.context = context;
    this.architecture = architecture;
  }

  ioctl(process: Process, request: number, argument: bigint): number {
    const { refusals } = this.context;
    switch (request) {
      case KVM_GET_API_VERSION:
        return argument === 0n ? KVM_API_VERSION : refusals.refuse('EINVAL', 'the argument must be 0', 'argument');
      case KVM_CHECK_EXTENSION:
        return checkExtension(this.architecture, lowWord(argument), null);
      case KVM_GET_VCPU_MMAP_SIZE:
        return argument === 0n
          ? this.context.pageSize
          : refusals.refuse('EINVAL', 'the argument must be 0', 'argument');
      case KVM_CREATE_VM:
        return this.createVm(process, argument);
      default:
        return refusals.refuse('ENOTTY', `0x${request.toString(16)} is no request of /dev/kvm`, 'request');
    }
  }

  release(): void {}

  /** kvm_arch_init_vm: on arm64 the type is the size of the guest's address space, 32 bits or more, or 0 for 40. */
  private createVm(process: Process, type: bigint): number {
    const { refusals } = this.context;
    const arm = this.architecture === 'arm64';
    if (type > (arm ? 0xffn : 0n)) return refusals.refuse('EINVAL', `unknown VM type ${type}`, 'type');
    const bits = arm ? Number(type) || DEFAULT_IPA_BITS : MAX_IPA_BITS;
    if (bits < 32 || bits > MAX_IPA_BITS) {
      return refusals.refuse('EINVAL', `${bits} bits of guest addresses, not 32 to ${MAX_IPA_BITS}`, 'type');
    }
    return process.install(new VmFile(new Vm(this.context, process, this.architecture, bits)));
  }
}
