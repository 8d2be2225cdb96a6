/** What user space injects itself: KVM_SIGNAL_MSI and KVM_IRQ_LINE. Not accounted: the ledger counts what devices send. */
import { errnoName } from '../../uapi/errno.ts';
import { KVM_IRQ_ROUTING_MSI, KVM_MSI_VALID_DEVID, kvm_irq_level, kvm_msi } from '../../uapi/kvm.ts';
import { KVM_ARM_IRQ_TYPE_CPU, KVM_ARM_IRQ_TYPE_PPI, KVM_ARM_IRQ_TYPE_SPI } from '../../uapi/kvm-arm64.ts';
import type { Process } from '../process.ts';
import { pinEntry } from './routing.ts';
import { copyStruct } from './user-copy.ts';
import { VGIC_NR_PRIVATE_IRQS, VGIC_NR_SGIS } from './vgic/vgic.ts';
import type { Vm } from './vm.ts';

/** kvm_send_userspace_msi: 1 delivered, 0 the guest has not mapped it, or -errno. */
export function signalMsi(vm: Vm, process: Process, argument: bigint): number {
  const { refusals } = vm.context;
  const msi = copyStruct(process, kvm_msi, argument, refusals);
  if (typeof msi === 'number') return msi;
  if (vm.irqchip === null) return refusals.refuse('EINVAL', 'the VM has no in-kernel interrupt controller');
  if ((msi.flags & ~KVM_MSI_VALID_DEVID) !== 0) return refusals.refuse('EINVAL', `unknown flags ${msi.flags}`, 'flags');
  const target = vm.irqchip.resolve({
    ...pinEntry(0, 0, 0),
    type: KVM_IRQ_ROUTING_MSI,
    flags: msi.flags,
    addressLo: msi.address_lo | 0,
    addressHi: msi.address_hi | 0,
    data: msi.data | 0,
    devid: msi.devid | 0,
  });
  if (typeof target !== 'number') {
    target.raise();
    return 1;
  }
  if (target >= 0) return 0;
  const address = `0x${(BigInt(msi.address_hi) * 4294967296n + BigInt(msi.address_lo)).toString(16)}`;
  return refused(vm, target, `${vm.irqchip.name} answers ${errnoName(target)} to an MSI at ${address}`);
}

/** kvm_vm_ioctl_irq_line, of arm64 and of x86. */
export function irqLine(vm: Vm, process: Process, argument: bigint): number {
  const { refusals } = vm.context;
  const request = copyStruct(process, kvm_irq_level, argument, refusals);
  if (typeof request === 'number') return request;
  const { irq } = request;
  const level = request.level !== 0;
  if (vm.architecture === 'x86') {
    if (vm.irqchip === null) return refusals.refuse('ENXIO', 'the VM has no in-kernel interrupt controller');
    return driveGsi(vm, irq, level);
  }
  return armLine(vm, irq, level);
}

function armLine(vm: Vm, irq: number, level: boolean): number {
  const { refusals } = vm.context;
  const type = (irq >>> 24) & 0xf;
  const cpu = ((irq >>> 16) & 0xff) + (irq >>> 28) * 256;
  const number = irq & 0xffff;
  if (type === KVM_ARM_IRQ_TYPE_CPU) {
    if (vm.vgic !== null) return refusals.refuse('ENXIO', 'CPU lines exist only without an in-kernel GIC', 'irq');
    return refusals.refuse('EINVAL', 'CPU lines are not modelled: give the VM a GIC', 'irq');
  }
  if (type !== KVM_ARM_IRQ_TYPE_SPI && type !== KVM_ARM_IRQ_TYPE_PPI) {
    return refusals.refuse('EINVAL', `unknown type ${type}`, 'irq');
  }
  if (vm.vgic === null) return refusals.refuse('ENXIO', 'the VM has no in-kernel GIC', 'irq');
  if (type === KVM_ARM_IRQ_TYPE_PPI) {
    if (!vm.vcpus.has(cpu)) return refusals.refuse('EINVAL', `there is no virtual CPU ${cpu}`, 'irq');
    if (number < VGIC_NR_SGIS || number >= VGIC_NR_PRIVATE_IRQS) {
      return refusals.refuse('EINVAL', `${number} is no private peripheral interrupt`, 'irq');
    }
    return refused(vm, vm.vgic.setPrivateLine(cpu, number, level), 'the GIC is not initialised');
  }
  if (number < VGIC_NR_PRIVATE_IRQS) return refusals.refuse('EINVAL', `${number} is no shared interrupt`, 'irq');
  return refused(vm, vm.vgic.setLine(number - VGIC_NR_PRIVATE_IRQS, level), `the GIC has no interrupt ${number}`);
}

/** kvm_set_irq: all entries of the gsi; an MSI has no low level. */
function driveGsi(vm: Vm, gsi: number, level: boolean): number {
  for (const entry of vm.routing.get(gsi) ?? []) {
    if (entry.type !== KVM_IRQ_ROUTING_MSI) vm.irqchip?.setLine(entry.pin, level);
    else if (level) {
      const target = vm.irqchip?.resolve(entry);
      if (typeof target === 'object') target.raise();
    }
  }
  return 0;
}

function refused(vm: Vm, result: number, why: string): number {
  if (result >= 0) return result;
  const code = errnoName(result);
  return code === 'EINVAL' || code === 'EBUSY' || code === 'ENODEV' ? vm.context.refusals.refuse(code, why) : result;
}
