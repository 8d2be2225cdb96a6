/** A VM of KVM, over the Kernel port: memory, CPUs, controllers, routes, irqfds. */
import { hex } from '../ports/address.ts';
import type { EventFdHandle, Kernel, UserBuffer } from '../ports/kernel.ts';
import * as uapi from '../uapi/kvm.ts';
import * as arm from '../uapi/kvm-arm64.ts';
import { check, VfioError } from '../vfio/error.ts';
import { Resource } from '../vfio/resource.ts';
import type { GuestGic, GuestMap } from './guest-map.ts';

/** SPIs of the guest's GIC, as QEMU's virt has them; a multiple of 32 together with the 32 private ones. */
export const GUEST_SPIS = 256;
const IOAPIC_PINS = 24;

export class KvmVm extends Resource {
  readonly label = 'VM';
  readonly kernel: Kernel;
  readonly fd: number;
  readonly map: GuestMap;
  readonly cpus: number;
  readonly #fds: number[] = [];
  #slots = 0;
  #vfio: number | null = null;

  private constructor(kernel: Kernel, fd: number, map: GuestMap, cpus: number) {
    super();
    this.kernel = kernel;
    this.fd = fd;
    this.map = map;
    this.cpus = cpus;
  }

  /** The VM with its CPUs and its interrupt controller, initialised. @throws VfioError */
  static create(kernel: Kernel, map: GuestMap, cpus: number): KvmVm {
    const kvm = check(kernel, kernel.open('/dev/kvm'), 'open(/dev/kvm)');
    const fd = kernel.ioctl(kvm, uapi.KVM_CREATE_VM);
    kernel.close(kvm);
    const vm = new KvmVm(kernel, check(kernel, fd, 'KVM_CREATE_VM'), map, cpus);
    try {
      if (map.interrupts.type === 'apic') vm.call(uapi.KVM_CREATE_IRQCHIP, 'KVM_CREATE_IRQCHIP');
      for (let i = 0; i < cpus; i++) vm.#fds.push(vm.call(uapi.KVM_CREATE_VCPU, 'KVM_CREATE_VCPU', i));
      if (map.interrupts.type === 'gic') vm.#createGic(map.interrupts);
    } catch (error) {
      vm.close();
      throw error;
    }
    return vm;
  }

  /** The first gsi that no line of the guest's controller has. */
  get firstFreeGsi(): number {
    return this.map.interrupts.type === 'gic' ? GUEST_SPIS : IOAPIC_PINS;
  }

  /** The irqchip number of the lines in a route: the GIC, or the I/O APIC. */
  get lineChip(): number {
    return this.map.interrupts.type === 'gic' ? 0 : 2;
  }

  addMemory(gpa: number, memory: UserBuffer): void {
    const region = {
      slot: this.#slots,
      guest_phys_addr: gpa,
      memory_size: memory.length,
      userspace_addr: memory.address,
    };
    const bytes = uapi.kvm_userspace_memory_region.bytes(region);
    this.call(uapi.KVM_SET_USER_MEMORY_REGION, 'KVM_SET_USER_MEMORY_REGION', bytes);
    this.#slots++;
  }

  /** Tells KVM which device files the VM uses; failures are the caller's to ignore, as QEMU does without the device. */
  addVfioFile(fd: number): number {
    this.#vfio ??= this.createDevice(uapi.KVM_DEV_TYPE_VFIO);
    return this.#setAttr(this.#vfio, uapi.KVM_DEV_VFIO_FILE, uapi.KVM_DEV_VFIO_FILE_ADD, BigInt(fd));
  }

  /** KVM lets go of a file; failures are ignored here as there. */
  removeVfioFile(fd: number): void {
    if (this.#vfio !== null) this.#setAttr(this.#vfio, uapi.KVM_DEV_VFIO_FILE, uapi.KVM_DEV_VFIO_FILE_DEL, BigInt(fd));
  }

  /** @param entries each a `struct kvm_irq_routing_entry` */
  setRouting(entries: readonly Uint8Array[]): void {
    const { size } = uapi.kvm_irq_routing_entry;
    const bytes = new Uint8Array(uapi.kvm_irq_routing.size + entries.length * size);
    uapi.kvm_irq_routing.patch(bytes, { nr: entries.length });
    for (const [i, entry] of entries.entries()) bytes.set(entry, uapi.kvm_irq_routing.size + i * size);
    this.call(uapi.KVM_SET_GSI_ROUTING, 'KVM_SET_GSI_ROUTING', bytes);
  }

  assignIrqfd(eventfd: EventFdHandle, gsi: number, resample: EventFdHandle | null = null): void {
    const flags = resample === null ? 0 : uapi.KVM_IRQFD_FLAG_RESAMPLE;
    const bytes = uapi.kvm_irqfd.bytes({ fd: eventfd.fd, gsi, flags, resamplefd: resample?.fd ?? 0 });
    this.call(uapi.KVM_IRQFD, 'KVM_IRQFD', bytes);
  }

  deassignIrqfd(eventfd: EventFdHandle, gsi: number): void {
    const bytes = uapi.kvm_irqfd.bytes({ fd: eventfd.fd, gsi, flags: uapi.KVM_IRQFD_FLAG_DEASSIGN });
    this.call(uapi.KVM_IRQFD, 'KVM_IRQFD', bytes);
  }

  /** KVM_IRQ_LINE of a shared interrupt line. */
  setLine(gsi: number, level: boolean): void {
    const irq =
      this.map.interrupts.type === 'gic' ? (arm.KVM_ARM_IRQ_TYPE_SPI << arm.KVM_ARM_IRQ_TYPE_SHIFT) | (gsi + 32) : gsi;
    this.call(uapi.KVM_IRQ_LINE, 'KVM_IRQ_LINE', uapi.kvm_irq_level.bytes({ irq, level: level ? 1 : 0 }));
  }

  /** @throws VfioError */
  eventfd(): EventFdHandle {
    const eventfd = this.kernel.eventfd();
    if (typeof eventfd !== 'number') return eventfd;
    check(this.kernel, eventfd, 'eventfd');
    throw new TypeError('Kernel.eventfd answered a number that is no error');
  }

  createDevice(type: number): number {
    const bytes = uapi.kvm_create_device.bytes({ type });
    this.call(uapi.KVM_CREATE_DEVICE, 'KVM_CREATE_DEVICE', bytes);
    const { fd } = uapi.kvm_create_device.read(bytes);
    this.#fds.push(fd);
    return fd;
  }

  /** @throws VfioError */
  call(request: number, name: string, argument: Uint8Array | number = 0): number {
    this.assertOpen(name);
    return check(this.kernel, this.kernel.ioctl(this.fd, request, argument), name);
  }

  protected override release(): void {
    for (const fd of this.#fds.reverse()) this.kernel.close(fd);
    this.kernel.close(this.fd);
  }

  #createGic(gic: GuestGic): void {
    const v3 = gic.version === 3;
    const fd = this.createDevice(v3 ? uapi.KVM_DEV_TYPE_ARM_VGIC_V3 : uapi.KVM_DEV_TYPE_ARM_VGIC_V2);
    const its = gic.its === undefined ? -1 : this.createDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_ITS);
    const address = (device: number, type: number, value: number | undefined): void => {
      if (value !== undefined) this.#attr(device, arm.KVM_DEV_ARM_VGIC_GRP_ADDR, type, BigInt(value), hex(value));
    };
    this.#attr(fd, arm.KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, BigInt(GUEST_SPIS + 32), 'NR_IRQS');
    address(fd, v3 ? arm.KVM_VGIC_V3_ADDR_TYPE_DIST : arm.KVM_VGIC_V2_ADDR_TYPE_DIST, gic.distributor);
    if (v3) address(fd, arm.KVM_VGIC_V3_ADDR_TYPE_REDIST, gic.redistributors);
    else address(fd, arm.KVM_VGIC_V2_ADDR_TYPE_CPU, gic.cpuInterface);
    this.#attr(fd, arm.KVM_DEV_ARM_VGIC_GRP_CTRL, arm.KVM_DEV_ARM_VGIC_CTRL_INIT, null, 'INIT');
    if (its >= 0) {
      address(its, arm.KVM_VGIC_ITS_ADDR_TYPE, gic.its);
      this.#attr(its, arm.KVM_DEV_ARM_VGIC_GRP_CTRL, arm.KVM_DEV_ARM_VGIC_CTRL_INIT, null, 'INIT');
    }
  }

  #attr(fd: number, group: number, attr: number, value: bigint | null, what: string): void {
    const result = this.#setAttr(fd, group, attr, value);
    check(this.kernel, result, `KVM_SET_DEVICE_ATTR(${what})`);
  }

  /** The value has an address of its own: a page for as long as the request lasts. */
  #setAttr(fd: number, group: number, attr: number, value: bigint | null): number {
    const memory = this.kernel.allocate(this.kernel.pageSize);
    if (typeof memory === 'number')
      throw new VfioError({ code: 'ENOMEM', request: 'mmap', why: 'no page for an attribute' });
    if (value !== null) new DataView(memory.bytes.buffer, memory.bytes.byteOffset).setBigUint64(0, value, true);
    const bytes = uapi.kvm_device_attr.bytes({ group, attr, addr: value === null ? 0 : memory.address });
    const result = this.kernel.ioctl(fd, uapi.KVM_SET_DEVICE_ATTR, bytes);
    memory.free();
    return result;
  }
}
