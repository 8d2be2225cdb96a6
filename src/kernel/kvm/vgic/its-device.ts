/** KVM_DEV_TYPE_ARM_VGIC_ITS: the attributes of a guest's ITS (arch/arm64/kvm/vgic/vgic-its.c vgic_its_set_attr). */
import {
  KVM_DEV_ARM_ITS_CTRL_RESET,
  KVM_DEV_ARM_ITS_RESTORE_TABLES,
  KVM_DEV_ARM_ITS_SAVE_TABLES,
  KVM_DEV_ARM_VGIC_CTRL_INIT,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_CTRL,
  KVM_DEV_ARM_VGIC_GRP_ITS_REGS,
  KVM_VGIC_ITS_ADDR_TYPE,
} from '../../../uapi/kvm-arm64.ts';
import type { Process } from '../../process.ts';
import type { DeviceAttr, VmDevice } from '../device-file.ts';
import { copyInteger, storeInteger } from '../user-copy.ts';
import { checkRange } from './address.ts';
import type { Its } from './its.ts';

const ITS_SIZE = 0x2_0000;
/** The registers that ITS_REGS saves and restores, 64 bits each but CTLR and IIDR. */
const REGISTERS = [0x0, 0x4, 0x8, 0x80, 0x88, 0x90, 0x100, 0x108];

export class ItsDevice implements VmDevice {
  readonly name = 'kvm-arm-vgic-its';
  private readonly its: Its;

  constructor(its: Its) {
    this.its = its;
  }

  set(process: Process, attr: DeviceAttr): number {
    if (attr.group === KVM_DEV_ARM_VGIC_GRP_ADDR) return this.setAddress(process, attr);
    if (attr.group === KVM_DEV_ARM_VGIC_GRP_CTRL) return this.control(attr);
    if (attr.group === KVM_DEV_ARM_VGIC_GRP_ITS_REGS) return this.register(process, attr, true);
    return this.unknown(attr);
  }

  get(process: Process, attr: DeviceAttr): number {
    const { refusals } = this.its.vgic.vm.context;
    if (attr.group === KVM_DEV_ARM_VGIC_GRP_ITS_REGS) return this.register(process, attr, false);
    if (attr.group !== KVM_DEV_ARM_VGIC_GRP_ADDR) return this.unknown(attr);
    if (attr.attr !== BigInt(KVM_VGIC_ITS_ADDR_TYPE)) {
      return refusals.refuse('ENODEV', `an ITS has no address of type ${attr.attr}`, 'attr');
    }
    const base = BigInt(this.its.base ?? -1) & 0xffff_ffff_ffff_ffffn;
    return storeInteger(process, attr.addr, base, 64)
      ? 0
      : refusals.refuse('EFAULT', 'the buffer is not writable', 'addr');
  }

  has({ group, attr }: DeviceAttr): number {
    const of = (...values: number[]): boolean => values.some((value) => BigInt(value) === attr);
    if (group === KVM_DEV_ARM_VGIC_GRP_ADDR && of(KVM_VGIC_ITS_ADDR_TYPE)) return 0;
    const controls = [KVM_DEV_ARM_VGIC_CTRL_INIT, KVM_DEV_ARM_ITS_CTRL_RESET, KVM_DEV_ARM_ITS_SAVE_TABLES];
    if (group === KVM_DEV_ARM_VGIC_GRP_CTRL && of(...controls, KVM_DEV_ARM_ITS_RESTORE_TABLES)) return 0;
    if (group === KVM_DEV_ARM_VGIC_GRP_ITS_REGS && of(...REGISTERS)) return 0;
    return this.unknown({ group, attr, addr: 0n });
  }

  private setAddress(process: Process, { attr, addr }: DeviceAttr): number {
    const { vm } = this.its.vgic;
    const { refusals } = vm.context;
    if (attr !== BigInt(KVM_VGIC_ITS_ADDR_TYPE)) {
      return refusals.refuse('ENODEV', `an ITS has no address of type ${attr}`, 'attr');
    }
    const value = copyInteger(process, addr, 64);
    if (value === null) return refusals.refuse('EFAULT', 'the address is not readable', 'addr');
    const error = checkRange(vm, this.its.base, value, 0x1_0000, ITS_SIZE);
    if (error < 0) return error;
    const other = vm.bus.add(Number(value), ITS_SIZE, this.its);
    if (other !== null) return refusals.refuse('EEXIST', `the range overlaps ${other.device.name}`, 'addr');
    this.its.base = Number(value);
    return 0;
  }

  private control(attr: DeviceAttr): number {
    const { vm } = this.its.vgic;
    if (attr.attr === BigInt(KVM_DEV_ARM_VGIC_CTRL_INIT)) return 0;
    const known = [KVM_DEV_ARM_ITS_CTRL_RESET, KVM_DEV_ARM_ITS_SAVE_TABLES, KVM_DEV_ARM_ITS_RESTORE_TABLES];
    if (!known.some((value) => BigInt(value) === attr.attr)) return this.unknown(attr);
    if ([...vm.vcpus.values()].some((vcpu) => vcpu.attached)) {
      return vm.context.refusals.refuse('EBUSY', 'a virtual CPU of the VM is running');
    }
    if (attr.attr === BigInt(KVM_DEV_ARM_ITS_CTRL_RESET)) this.its.reset();
    // The tables in guest memory are always current (its-tables.ts), so saving them is nothing; restoring forgets what was cached.
    else if (attr.attr === BigInt(KVM_DEV_ARM_ITS_RESTORE_TABLES)) this.its.vgic.invalidate();
    return 0;
  }

  private register(process: Process, { attr, addr }: DeviceAttr, write: boolean): number {
    const { vm } = this.its.vgic;
    const { refusals } = vm.context;
    const offset = Number(attr);
    if (!REGISTERS.includes(offset))
      return refusals.refuse('ENXIO', `no ITS register at 0x${attr.toString(16)}`, 'attr');
    if (this.its.base === null) return refusals.refuse('ENXIO', 'the ITS has no address', 'attr');
    const wide = offset >= 0x8;
    if (!write) {
      const high = wide ? this.its.read(offset + 4) : 0;
      const value = (BigInt(high >>> 0) << 32n) | BigInt(this.its.read(offset) >>> 0);
      return storeInteger(process, addr, value, 64)
        ? 0
        : refusals.refuse('EFAULT', 'the buffer is not writable', 'addr');
    }
    const value = copyInteger(process, addr, 64);
    if (value === null) return refusals.refuse('EFAULT', 'the value is not readable', 'addr');
    this.its.write(offset, 4, Number(value & 0xffff_ffffn));
    if (wide) this.its.write(offset + 4, 4, Number(value >> 32n));
    return 0;
  }

  private unknown({ group, attr }: DeviceAttr): number {
    return this.its.vgic.vm.context.refusals.refuse(
      'ENXIO',
      `${this.name}: no attribute ${attr} in group ${group}`,
      'attr',
    );
  }
}
