/** KVM_DEV_TYPE_ARM_VGIC_V2 and _V3: the attributes of the guest's GIC (arch/arm64/kvm/vgic/vgic-kvm-device.c). */
import {
  KVM_DEV_ARM_VGIC_CTRL_INIT,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_CTRL,
  KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
  KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES,
  KVM_VGIC_V2_ADDR_TYPE_CPU,
  KVM_VGIC_V2_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION,
} from '../../../uapi/kvm-arm64.ts';
import type { Process } from '../../process.ts';
import type { DeviceAttr, VmDevice } from '../device-file.ts';
import { copyInteger, storeInteger } from '../user-copy.ts';
import { checkRange } from './address.ts';
import type { Vgic } from './vgic.ts';

const REDISTRIBUTOR = 0x2_0000;
/** GIC INTIDs end here: VGIC_MAX_RESERVED + 1. */
const MAX_IRQS = 1024;

export class VgicDevice implements VmDevice {
  readonly name: string;
  private readonly vgic: Vgic;

  constructor(vgic: Vgic) {
    this.vgic = vgic;
    this.name = `kvm-arm-${vgic.name}`;
  }

  set(process: Process, attr: DeviceAttr): number {
    if (attr.group === KVM_DEV_ARM_VGIC_GRP_ADDR) return this.setAddress(process, attr);
    if (attr.group === KVM_DEV_ARM_VGIC_GRP_NR_IRQS) return this.setNrIrqs(process, attr);
    if (attr.group === KVM_DEV_ARM_VGIC_GRP_CTRL) return this.control(attr);
    return this.unknown(attr);
  }

  get(process: Process, attr: DeviceAttr): number {
    const { refusals } = this.vgic.vm.context;
    let value: bigint | null = null;
    let bits: 32 | 64 = 64;
    if (attr.group === KVM_DEV_ARM_VGIC_GRP_ADDR) {
      const known = this.hasAddress(attr.attr);
      if (!known) return refusals.refuse('ENODEV', `${this.name} has no address of type ${attr.attr}`, 'attr');
      value = BigInt(this.addressOf(Number(attr.attr)) ?? -1) & 0xffff_ffff_ffff_ffffn;
    } else if (attr.group === KVM_DEV_ARM_VGIC_GRP_NR_IRQS) {
      value = BigInt(this.vgic.nrSpis + 32);
      bits = 32;
    }
    if (value === null) return this.unknown(attr);
    if (storeInteger(process, attr.addr, value, bits)) return 0;
    return refusals.refuse('EFAULT', "the attribute's buffer is not writable", 'addr');
  }

  has({ group, attr }: DeviceAttr): number {
    if (group === KVM_DEV_ARM_VGIC_GRP_ADDR && this.hasAddress(attr)) return 0;
    if (group === KVM_DEV_ARM_VGIC_GRP_NR_IRQS) return 0;
    if (group === KVM_DEV_ARM_VGIC_GRP_CTRL && attr === BigInt(KVM_DEV_ARM_VGIC_CTRL_INIT)) return 0;
    return this.unknown({ group, attr, addr: 0n });
  }

  private hasAddress(attr: bigint): boolean {
    const types =
      this.vgic.name === 'vgic-v2'
        ? [KVM_VGIC_V2_ADDR_TYPE_DIST, KVM_VGIC_V2_ADDR_TYPE_CPU]
        : [KVM_VGIC_V3_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_REDIST, KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION];
    return types.some((type) => BigInt(type) === attr);
  }

  private addressOf(type: number): number | null {
    if (type === KVM_VGIC_V2_ADDR_TYPE_CPU) return this.vgic.cpuBase;
    if (type === KVM_VGIC_V3_ADDR_TYPE_REDIST) return this.vgic.redistributors[0]?.base ?? null;
    return this.vgic.distributorBase;
  }

  private setAddress(process: Process, { attr, addr }: DeviceAttr): number {
    const { vm } = this.vgic;
    const { refusals } = vm.context;
    const value = copyInteger(process, addr, 64);
    if (value === null) return refusals.refuse('EFAULT', 'the address is not readable', 'addr');
    if (!this.hasAddress(attr)) return refusals.refuse('ENODEV', `${this.name} has no address of type ${attr}`, 'attr');
    const type = Number(attr);
    const v2 = this.vgic.name === 'vgic-v2';
    if (type === KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION) return this.addRegion(value);
    if (type === KVM_VGIC_V3_ADDR_TYPE_REDIST) return this.addRedistributors(value, Infinity);
    const error = checkRange(vm, this.addressOf(type), value, v2 ? 0x1000 : 0x1_0000, registerSize(v2, type));
    if (error < 0) return error;
    if (type === KVM_VGIC_V2_ADDR_TYPE_CPU) this.vgic.cpuBase = Number(value);
    else this.vgic.distributorBase = Number(value);
    return 0;
  }

  /** count[63:52] base[51:16] flags[15:12] index[11:0]. */
  private addRegion(value: bigint): number {
    const { refusals } = this.vgic.vm.context;
    const count = Number(value >> 52n);
    const index = Number(value & 0xfffn);
    if ((value & 0xf000n) !== 0n) return refusals.refuse('EINVAL', 'flags must be 0', 'addr');
    if (count === 0) return refusals.refuse('EINVAL', 'a region of no redistributors', 'addr');
    if (index !== this.vgic.redistributors.length) {
      return refusals.refuse('EINVAL', `region ${index} must be number ${this.vgic.redistributors.length}`, 'addr');
    }
    return this.addRedistributors(value & 0xf_ffff_ffff_0000n, count);
  }

  private addRedistributors(base: bigint, count: number): number {
    const { vm, redistributors } = this.vgic;
    const legacy = count === Infinity;
    if (legacy && redistributors.length > 0) {
      return vm.context.refusals.refuse('EINVAL', 'redistributors have their address already', 'addr');
    }
    const places = legacy ? Math.max(vm.vcpus.size, 1) : count;
    const error = checkRange(vm, null, base, 0x1_0000, places * REDISTRIBUTOR);
    if (error < 0) return error;
    redistributors.push({ base: Number(base), count });
    return 0;
  }

  private setNrIrqs(process: Process, { addr }: DeviceAttr): number {
    const { refusals } = this.vgic.vm.context;
    const value = copyInteger(process, addr, 32);
    if (value === null) return refusals.refuse('EFAULT', 'the number is not readable', 'addr');
    const count = Number(value);
    if (count < 64 || count > MAX_IRQS || count % 32 !== 0) {
      return refusals.refuse('EINVAL', `${count} is not a multiple of 32 from 64 to ${MAX_IRQS}`, 'addr');
    }
    if (this.vgic.initialized || this.vgic.nrSpis !== 0) {
      return refusals.refuse('EBUSY', 'the number of interrupts is fixed already', 'addr');
    }
    this.vgic.nrSpis = count - 32;
    return 0;
  }

  private control(attr: DeviceAttr): number {
    if (attr.attr === BigInt(KVM_DEV_ARM_VGIC_CTRL_INIT)) return this.vgic.init();
    if (attr.attr === BigInt(KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES)) {
      return this.vgic.vm.context.refusals.refuse(
        'ENXIO',
        'saving pending tables is not built: guests are not migrated here',
      );
    }
    return this.unknown(attr);
  }

  private unknown({ group, attr }: DeviceAttr): number {
    return this.vgic.vm.context.refusals.refuse(
      'ENXIO',
      `${this.name}: no attribute ${attr} in group ${group}`,
      'attr',
    );
  }
}

function registerSize(v2: boolean, type: number): number {
  if (!v2) return 0x1_0000;
  return type === KVM_VGIC_V2_ADDR_TYPE_CPU ? 0x2000 : 0x1000;
}
