/** Guest writes that become signals of an eventfd instead of exits (virt/kvm/eventfd.c kvm_ioeventfd). */

import {
  KVM_IOEVENTFD_FLAG_DATAMATCH,
  KVM_IOEVENTFD_FLAG_DEASSIGN,
  KVM_IOEVENTFD_FLAG_PIO,
  kvm_ioeventfd,
} from '../../uapi/kvm.ts';
import { eventfdCtxFdget } from '../eventfd.ts';
import type { EventFdContext } from '../files.ts';
import type { Process } from '../process.ts';
import { copyStruct } from './user-copy.ts';
import type { Vm } from './vm.ts';

interface IoEventFd {
  readonly address: number;
  /** 0: any length. */
  readonly length: number;
  readonly match: bigint | null;
  readonly eventfd: EventFdContext;
}

const FLAGS = KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DEASSIGN;

export class IoEventFds {
  private readonly vm: Vm;
  private entries: IoEventFd[] = [];

  constructor(vm: Vm) {
    this.vm = vm;
  }

  /** True when an eventfd took the write. */
  write(address: number, size: number, value: number): boolean {
    const hit = this.entries.find((entry) => matches(entry, address, size, value));
    hit?.eventfd.add(1);
    return hit !== undefined;
  }

  ioctl(process: Process, argument: bigint): number {
    const { refusals } = this.vm.context;
    const request = copyStruct(process, kvm_ioeventfd, argument, refusals);
    if (typeof request === 'number') return request;
    const { addr, len, flags, fd, datamatch } = request;
    if ((flags & KVM_IOEVENTFD_FLAG_DEASSIGN) === 0) {
      if (![0, 1, 2, 4, 8].includes(len))
        return refusals.refuse('EINVAL', `length ${len} is not 0, 1, 2, 4 or 8`, 'len');
      if (addr + BigInt(len) > 0xffff_ffff_ffff_ffffn) return refusals.refuse('EINVAL', 'the range wraps', 'addr');
      if ((flags & ~FLAGS) !== 0)
        return refusals.refuse('EINVAL', `unknown flags 0x${(flags & ~FLAGS).toString(16)}`, 'flags');
      if (len === 0 && (flags & KVM_IOEVENTFD_FLAG_DATAMATCH) !== 0) {
        return refusals.refuse('EINVAL', 'length 0 (any) cannot match data', 'flags');
      }
    }
    if ((flags & KVM_IOEVENTFD_FLAG_PIO) !== 0) {
      return refusals.refuse(
        'ENOSYS',
        'port I/O is not modelled: guest CPUs here have memory-mapped registers only',
        'flags',
      );
    }
    const eventfd = eventfdCtxFdget(process, fd, refusals);
    if (typeof eventfd === 'number') return eventfd;
    const match = (flags & KVM_IOEVENTFD_FLAG_DATAMATCH) !== 0 ? datamatch & lengthMask(len) : null;
    const entry = { address: Number(addr), length: len, match, eventfd };
    return (flags & KVM_IOEVENTFD_FLAG_DEASSIGN) !== 0 ? this.remove(entry) : this.add(entry);
  }

  destroy(): void {
    for (const entry of this.entries) entry.eventfd.put();
    this.entries = [];
  }

  private add(entry: IoEventFd): number {
    const collision = this.entries.some(
      (other) =>
        other.address === entry.address &&
        (other.length === 0 ||
          entry.length === 0 ||
          (other.length === entry.length &&
            (other.match === null || entry.match === null || other.match === entry.match))),
    );
    if (collision) {
      entry.eventfd.put();
      return this.vm.context.refusals.refuse('EEXIST', 'an eventfd is bound to this address and data', 'addr');
    }
    this.entries.push(entry);
    return 0;
  }

  private remove(entry: IoEventFd): number {
    entry.eventfd.put();
    const same = this.entries.find(
      (other) =>
        other.eventfd === entry.eventfd &&
        other.address === entry.address &&
        other.length === entry.length &&
        other.match === entry.match,
    );
    if (same === undefined) return this.vm.context.refusals.refuse('ENOENT', 'no such ioeventfd is bound', 'addr');
    this.entries = this.entries.filter((other) => other !== same);
    same.eventfd.put();
    return 0;
  }
}

const lengthMask = (length: number): bigint => (1n << BigInt(length * 8)) - 1n;

function matches(entry: IoEventFd, address: number, size: number, value: number): boolean {
  if (entry.address !== address || (entry.length !== 0 && entry.length !== size)) return false;
  return entry.match === null || entry.match === (BigInt(value) & lengthMask(size));
}
