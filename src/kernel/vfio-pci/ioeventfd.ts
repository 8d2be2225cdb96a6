/** VFIO_DEVICE_IOEVENTFD: an eventfd whose signal writes a fixed value to a register (vfio_pci_rdwr.c vfio_pci_ioeventfd). */
import { VFIO_DEVICE_IOEVENTFD_SIZE_MASK, VFIO_PCI_BAR5_REGION_INDEX, vfio_device_ioeventfd } from '../../uapi/vfio.ts';
import type { Process } from '../process.ts';
import { REGION_STRIDE } from './regions.ts';
import type { VfioPciState } from './state.ts';
import { VirqfdSlot, type VirqfdTarget } from './virqfd.ts';

/** VFIO_PCI_IOEVENTFD_MAX. */
const MAXIMUM = 1000;

class IoEventFd implements VirqfdTarget {
  readonly slot = new VirqfdSlot();
  readonly key: string;
  private readonly state: VfioPciState;
  private readonly pa: number;
  private readonly memory: boolean;
  private readonly count: number;
  private readonly value: number;

  constructor(state: VfioPciState, key: string, pa: number, memory: boolean, count: number, value: number) {
    this.state = state;
    this.key = key;
    this.pa = pa;
    this.memory = memory;
    this.count = count;
    this.value = value;
  }

  /** The write, unless memory decoding is off: it is then dropped. */
  handler(): boolean {
    if (!this.memory || this.state.memoryEnabled) this.state.context.bus.write(this.pa, this.count, this.value);
    return false;
  }

  thread(): void {}
}

export class IoEventFds {
  private readonly state: VfioPciState;
  private readonly entries = new Map<string, IoEventFd>();

  constructor(state: VfioPciState) {
    this.state = state;
  }

  ioctl(process: Process, argument: number): number {
    const { refusals } = this.state.context;
    const refuse = (why: string, field: string): number => refusals.refuse('EINVAL', why, field);
    const min = vfio_device_ioeventfd.endOf('fd');
    const bytes = new Uint8Array(vfio_device_ioeventfd.size);
    if (!process.memory.copyIn(argument, bytes.subarray(0, min))) {
      return refusals.refuse('EFAULT', 'struct vfio_device_ioeventfd is not readable', 'argument');
    }
    const request = vfio_device_ioeventfd.read(bytes);
    if (request.argsz < min) return refuse(`argsz ${request.argsz} is less than ${min}`, 'argsz');
    const count = request.flags;
    if ((count & ~VFIO_DEVICE_IOEVENTFD_SIZE_MASK) !== 0 || ![1, 2, 4, 8].includes(count)) {
      return refuse(`flags 0x${count.toString(16)}: exactly one size of 1, 2, 4 and 8 is needed`, 'flags');
    }
    if (request.fd < -1) return refuse(`fd ${request.fd} is neither a descriptor nor -1`, 'fd');
    const bar = Number(request.offset >> 40n);
    const pos = Number(request.offset & (BigInt(REGION_STRIDE) - 1n));
    const error = this.checkPlace(bar, pos, count);
    return error !== 0 ? error : this.change(process, bar, pos, count, request.data, request.fd);
  }

  clear(): void {
    for (const entry of this.entries.values()) entry.slot.disable();
    this.entries.clear();
  }

  private checkPlace(bar: number, pos: number, count: number): number {
    const { state } = this;
    const refuse = (why: string): number => state.context.refusals.refuse('EINVAL', why, 'offset');
    if (bar > VFIO_PCI_BAR5_REGION_INDEX) return refuse(`region ${bar} is no BAR`);
    const size = state.resource(bar)?.size ?? 0;
    if (pos + count > size) return refuse(`bytes [${pos}, ${pos + count}) end beyond the ${size} bytes of BAR ${bar}`);
    const { msixOffset, msixSize } = state;
    if (bar === state.msixBar && pos + count > msixOffset && pos < msixOffset + msixSize) {
      return refuse(
        `bytes [${pos}, ${pos + count}) are in the MSI-X table at [${msixOffset}, ${msixOffset + msixSize})`,
      );
    }
    if (count === 8) return state.context.refusals.refuse('EINVAL', 'writes of 8 bytes are not in Linux 7.2', 'flags');
    return 0;
  }

  private change(process: Process, bar: number, pos: number, count: number, data: bigint, fd: number): number {
    const { state } = this;
    const { refusals } = state.context;
    const key = `${bar}:${pos}:${count}:${data}`;
    const present = this.entries.get(key);
    if (present !== undefined) {
      if (fd !== -1) return refusals.refuse('EEXIST', 'this place, size and value have an ioeventfd already', 'offset');
      present.slot.disable();
      this.entries.delete(key);
      return 0;
    }
    if (fd < 0) return refusals.refuse('ENODEV', 'there is no such ioeventfd to remove', 'fd');
    if (this.entries.size >= MAXIMUM)
      return refusals.refuse('ENOSPC', `the device has its ${MAXIMUM} ioeventfds`, 'fd');
    const resource = state.resource(bar)!;
    const value = Number(BigInt.asUintN(8 * count, data));
    const entry = new IoEventFd(state, key, resource.base + pos, resource.kind === 'memory', count, value);
    const error = entry.slot.enable(state.context, process, fd, entry);
    if (error === 0) this.entries.set(key, entry);
    return error;
  }
}
