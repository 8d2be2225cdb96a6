/** The guest as a program: a virtual CPU that acknowledges interrupts and touches the in-kernel controllers' registers. */
import type { GuestCpu, GuestPort } from '../../ports/guest.ts';
import { errnoName } from '../../uapi/errno.ts';
import type { KernelContext } from '../context.ts';
import type { Process } from '../process.ts';
import type { CpuInterface } from './irqchip.ts';
import type { Vcpu, Vm } from './vm.ts';
import { VmFile } from './vm-file.ts';

export class KvmGuestPort implements GuestPort {
  private readonly process: Process;
  private readonly context: KernelContext;

  constructor(process: Process, context: KernelContext) {
    this.process = process;
    this.context = context;
  }

  /**
   * What the first KVM_RUN of the virtual CPU would do: EBADF, EINVAL (no VM, no such CPU), EBUSY (attached, or the GIC is not initialised),
   * ENXIO (no controller, or it has no address), as -errno.
   */
  attach(vmFd: number, index: number, signal: () => void): GuestCpu | number {
    const { refusals } = this.context;
    refusals.last = null;
    refusals.request = 'GuestPort.attach';
    const file = this.process.file(vmFd);
    if (file === null) return refusals.refuse('EBADF', `file descriptor ${vmFd} is not open`, 'vmFd');
    if (!(file instanceof VmFile)) return refusals.refuse('EINVAL', `${file.name} is no VM`, 'vmFd');
    const { vm } = file;
    const vcpu = vm.vcpus.get(index);
    if (vcpu === undefined) return refusals.refuse('EINVAL', `the VM has no virtual CPU ${index}`, 'index');
    if (vcpu.attached) return refusals.refuse('EBUSY', `virtual CPU ${index} is attached already`, 'index');
    if (vm.irqchip === null) return refusals.refuse('ENXIO', 'the VM has no in-kernel interrupt controller', 'vmFd');
    const cpu = vm.irqchip.cpuInterface(index);
    if (typeof cpu === 'number') {
      const why = `${vm.irqchip.name} is not ready: ${errnoName(cpu)} (initialised? all addresses set?)`;
      return refusals.refuse(errnoName(cpu) === 'EBUSY' ? 'EBUSY' : 'ENXIO', why, 'vmFd');
    }
    return new AttachedCpu(vm, vcpu, cpu, signal);
  }
}

/** Holds no reference of the VM: when the last of its files closes, the guest is gone with it and nothing is pending any more. */
class AttachedCpu implements GuestCpu {
  private readonly vm: Vm;
  private readonly vcpu: Vcpu;
  private readonly cpu: CpuInterface;

  constructor(vm: Vm, vcpu: Vcpu, cpu: CpuInterface, signal: () => void) {
    this.vm = vm;
    this.vcpu = vcpu;
    this.cpu = cpu;
    vcpu.attached = true;
    vcpu.hasRun = true;
    cpu.listen(signal);
  }

  get pending(): boolean {
    return this.cpu.pending;
  }

  acknowledge(): number {
    return this.cpu.acknowledge();
  }

  endOfInterrupt(intid: number): void {
    this.cpu.endOfInterrupt(intid);
    this.vm.context.work.drain();
  }

  mmioRead(gpa: number, size: number): number | null {
    const range = this.vm.bus.find(gpa);
    if (range === null) return null;
    const offset = gpa - range.base;
    if (size !== 8) return range.device.read(offset, size, this.vcpu.index) >>> 0;
    const low = range.device.read(offset, 4, this.vcpu.index) >>> 0;
    return (range.device.read(offset + 4, 4, this.vcpu.index) >>> 0) * 4294967296 + low;
  }

  mmioWrite(gpa: number, size: number, value: number): boolean {
    const range = this.vm.bus.find(gpa);
    if (range === null) {
      const taken = this.vm.ioeventfds?.write(gpa, size, value) ?? false;
      if (taken) this.vm.context.work.drain();
      return taken;
    }
    const offset = gpa - range.base;
    range.device.write(offset, Math.min(size, 4), value >>> 0, this.vcpu.index);
    if (size === 8) range.device.write(offset + 4, 4, Math.floor(value / 4294967296) >>> 0, this.vcpu.index);
    this.vm.context.work.drain();
    return true;
  }

  detach(): void {
    if (!this.vcpu.attached) return;
    this.vcpu.attached = false;
    this.cpu.listen(null);
  }
}
