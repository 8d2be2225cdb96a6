/** A guest's GIC (arch/arm64/kvm/vgic): distributor state, CPUs, LPIs, and the injection of routes. */
import { ERRNO } from '../../../uapi/errno.ts';
import { KVM_IRQ_ROUTING_MSI, KVM_MSI_VALID_DEVID } from '../../../uapi/kvm.ts';
import type { CpuInterface, GuestIrqchip, InjectTarget } from '../irqchip.ts';
import type { RoutingEntry } from '../routing.ts';
import { pinEntry } from '../routing.ts';
import type { Vm } from '../vm.ts';
import { DistributorV2, DistributorV3 } from './distributor.ts';
import type { Its } from './its.ts';
import { Redistributor } from './redistributor.ts';
import { VgicCpu } from './vgic-cpu.ts';
import { GIC_LPI_OFFSET, VgicIrq } from './vgic-irq.ts';

export const VGIC_NR_SGIS = 16;
export const VGIC_NR_PRIVATE_IRQS = 32;
/** Pins of the irqchip in a routing table: KVM_IRQCHIP_NUM_PINS. */
export const VGIC_MAX_SPIS = 988;
/** SPIs without KVM_DEV_ARM_VGIC_GRP_NR_IRQS: VGIC_NR_IRQS_LEGACY less the private ones. */
const DEFAULT_SPIS = 224;
/** Bits of an LPI's identifier: INTERRUPT_ID_BITS_ITS. */
export const LPI_ID_BITS = 16;

const LPI_ENABLED = 1;
const LPI_PRIORITY = 0xfc;

export class Vgic implements GuestIrqchip {
  readonly name: 'vgic-v2' | 'vgic-v3';
  readonly vm: Vm;
  readonly tap: Vm['context']['tap'];
  initialized = false;
  /** GICD_CTLR: group 1 is forwarded. */
  enabled = false;
  /** Shared peripheral interrupts; set by NR_IRQS, frozen by INIT. */
  nrSpis = 0;
  readonly spis: VgicIrq[] = [];
  readonly cpus: VgicCpu[] = [];
  readonly lpis = new Map<number, VgicIrq>();
  readonly itses: Its[] = [];
  /** GICR_PROPBASER, one for all redistributors as in KVM. */
  propbaser = 0n;
  distributorBase: number | null = null;
  /** v2: base of the CPU interface. */
  cpuBase: number | null = null;
  /** v3: ranges of redistributors, in the order of the CPUs. */
  readonly redistributors: { readonly base: number; readonly count: number }[] = [];
  private mapped = false;

  constructor(vm: Vm, version: 2 | 3) {
    this.vm = vm;
    this.tap = vm.context.tap;
    this.name = version === 2 ? 'vgic-v2' : 'vgic-v3';
  }

  get hasIts(): boolean {
    return this.itses.length > 0;
  }

  get needsDeviceId(): boolean {
    return this.hasIts;
  }

  /** vgic_init. 0, or -EBUSY while a CPU is being created. */
  init(): number {
    if (this.initialized) return 0;
    if (this.nrSpis === 0) this.nrSpis = DEFAULT_SPIS;
    const { tap, work } = this.vm.context;
    for (const index of this.vm.vcpus.keys()) {
      const cpu = new VgicCpu(index, tap, work);
      for (let intid = 0; intid < VGIC_NR_PRIVATE_IRQS; intid += 1) {
        const irq = new VgicIrq(this, intid, cpu);
        irq.level = intid >= VGIC_NR_SGIS;
        irq.enabled = intid < VGIC_NR_SGIS;
        cpu.privates.push(irq);
      }
      cpu.onEoi = (irq) => {
        if (irq.intid >= VGIC_NR_PRIVATE_IRQS && irq.level) this.vm.notifyAcked(irq.intid - VGIC_NR_PRIVATE_IRQS);
      };
      this.cpus.push(cpu);
    }
    for (let i = 0; i < this.nrSpis; i += 1) {
      const irq = new VgicIrq(this, VGIC_NR_PRIVATE_IRQS + i, this.cpus[0] ?? null);
      irq.level = true;
      this.spis.push(irq);
    }
    this.vm.setRouting(new Map(this.spis.map((_, i) => [i, [pinEntry(i, 0, i)]])));
    this.initialized = true;
    return 0;
  }

  hasPin(irqchip: number, pin: number): boolean {
    return irqchip === 0 && pin < VGIC_MAX_SPIS;
  }

  /** kvm_arch_set_irq_inatomic and, behind it, vgic_its_inject_msi. */
  resolve(route: RoutingEntry): InjectTarget | number {
    if (route.type !== KVM_IRQ_ROUTING_MSI) return this.spis[route.pin] ?? -ERRNO.EINVAL;
    if (!this.hasIts) return -ERRNO.ENODEV;
    if ((route.flags & KVM_MSI_VALID_DEVID) === 0) return -ERRNO.EINVAL;
    const its = this.doorbellToIts(route.addressHi, route.addressLo);
    return its === null ? -ERRNO.EINVAL : its.translate(route.devid, route.data);
  }

  setLine(pin: number, level: boolean): number {
    return this.drive(this.spis[pin], level);
  }

  /** kvm_vgic_inject_irq for a private interrupt of a CPU. */
  setPrivateLine(cpu: number, intid: number, level: boolean): number {
    return this.drive(this.cpus[cpu]?.privates[intid], level);
  }

  /** kvm_vgic_map_resources, at the first run of a CPU: what it needs must be there by now. */
  cpuInterface(index: number): CpuInterface | number {
    const error = this.mapResources();
    return error < 0 ? error : (this.cpus[index] ?? -ERRNO.ENXIO);
  }

  /** The LPI's object; made at the first event that maps to it, with its configuration read from the guest's tables. */
  lpi(intid: number): VgicIrq {
    const known = this.lpis.get(intid);
    if (known !== undefined) return known;
    const irq = new VgicIrq(this, intid, null);
    this.lpis.set(intid, irq);
    return irq;
  }

  /** update_lpi_config: the property byte, which the guest wrote before its INV, INVALL or MAPTI. */
  readLpiConfig(irq: VgicIrq): void {
    const base = Number(this.propbaser & 0xf_ffff_ffff_f000n);
    const property = this.vm.memory.readByte(base + irq.intid - GIC_LPI_OFFSET);
    if (property === null) return;
    irq.enabled = (property & LPI_ENABLED) !== 0;
    irq.priority = property & LPI_PRIORITY;
    irq.refresh();
  }

  /** LPIs that the guest's PROPBASER gives: the first identifier that is out of range. */
  get lpiLimit(): number {
    return 2 ** Math.min(Number(this.propbaser & 0x1fn) + 1, LPI_ID_BITS);
  }

  /** Everything that waits is looked at again: the distributor was turned on or off. */
  refreshAll(): void {
    for (const cpu of this.cpus) for (const irq of cpu.privates) irq.refresh();
    for (const irq of this.spis) irq.refresh();
    for (const irq of this.lpis.values()) irq.refresh();
  }

  /** vgic_its_invalidate_all_caches. */
  invalidate(): void {
    for (const its of this.itses) its.dropCache();
    this.vm.invalidate();
  }

  destroy(): void {
    for (const irq of [...this.spis, ...this.lpis.values(), ...this.cpus.flatMap((cpu) => cpu.privates)]) {
      irq.lower();
      irq.clear();
    }
  }

  /** __vgic_doorbell_to_its: any address inside the 128 KiB of an ITS will do. */
  private doorbellToIts(hi: number, lo: number): Its | null {
    const address = (hi >>> 0) * 4294967296 + (lo >>> 0);
    const device = this.vm.bus.find(address)?.device;
    return this.itses.find((its) => its === device) ?? null;
  }

  private drive(irq: VgicIrq | undefined, level: boolean): number {
    if (irq === undefined) return -ERRNO.EINVAL;
    if (level) irq.raise();
    else irq.lower();
    return 0;
  }

  private mapResources(): number {
    if (this.mapped) return 0;
    const { vm } = this;
    const v2 = this.name === 'vgic-v2';
    if (v2 && !this.initialized) this.init();
    if (!this.initialized) return -ERRNO.EBUSY;
    const places = this.redistributors.flatMap(({ base, count }) =>
      Array.from({ length: Math.min(count, this.cpus.length) }, (_, i) => base + i * 0x2_0000),
    );
    if (this.distributorBase === null) return -ERRNO.ENXIO;
    if (v2 ? this.cpuBase === null : places.length < this.cpus.length) return -ERRNO.ENXIO;
    const distributor = v2 ? new DistributorV2(this) : new DistributorV3(this);
    if (vm.bus.add(this.distributorBase, v2 ? 0x1000 : 0x1_0000, distributor) !== null) return -ERRNO.EEXIST;
    if (!v2) {
      for (const [i, cpu] of this.cpus.entries()) {
        const last = i === this.cpus.length - 1;
        if (vm.bus.add(places[i], 0x2_0000, new Redistributor(this, cpu, last)) !== null) return -ERRNO.EEXIST;
      }
    }
    this.mapped = true;
    return 0;
  }
}
