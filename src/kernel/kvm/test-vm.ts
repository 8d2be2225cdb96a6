/** A VM with memory and an interrupt controller, made through the requests that a VMM makes, for the tests of this room. */
import {
  encodeMapc,
  encodeMapd,
  encodeMapti,
  GICD_CTLR,
  GICR_CTLR,
  GICR_PENDBASER,
  GICR_PROPBASER,
  GITS_BASER,
  GITS_CBASER,
  GITS_CTLR,
  GITS_CWRITER,
} from '../../arch/gic/index.ts';
import type { GuestCpu, GuestPort } from '../../ports/guest.ts';
import type { EventFdHandle, UserBuffer } from '../../ports/kernel.ts';
import * as uapi from '../../uapi/kvm.ts';
import * as arm from '../../uapi/kvm-arm64.ts';
import type { Init } from '../../uapi/struct.ts';
import { SimKernelClient } from '../client.ts';
import { SimKernel } from '../kernel.ts';
import { type TestContext, testContext } from '../test-context.ts';
import { createKvm, type Kvm } from './kvm.ts';
import type { GuestArchitecture } from './vm.ts';

export const GICD = 0x0800_0000;
export const GICR = 0x080a_0000;
export const ITS = 0x0808_0000;
export const DOORBELL = ITS + 0x1_0040;
export const RAM = 0x4000_0000;
export const RAM_SIZE = 0x40_0000;

/** Where the guest keeps its tables, as offsets into its RAM. */
const QUEUE = 0x1_0000;
const DEVICE_TABLE = 0x10_0000;
const COLLECTION_TABLE = 0x20_0000;
const PROPERTIES = 0x2_0000;
const PENDING = 0x3_0000;
const ITT = 0x30_0000;

export class TestVm {
  readonly context: TestContext = testContext();
  readonly kernel = new SimKernel(this.context);
  readonly client = new SimKernelClient(this.kernel);
  readonly kvm: Kvm;
  readonly port: GuestPort;
  readonly fd: number;
  readonly ram: UserBuffer;
  gic = -1;
  its = -1;

  constructor(architecture: GuestArchitecture = 'arm64') {
    this.kvm = createKvm(this.context, { architecture });
    this.port = this.kvm.guestPort(this.client.process);
    const kvm = this.client.process.install(this.kvm.openFile());
    this.fd = this.client.ioctl(kvm, uapi.KVM_CREATE_VM);
    this.ram = this.client.allocate(RAM_SIZE) as UserBuffer;
  }

  get ledger(): Float64Array {
    return this.context.tap.ledger;
  }

  ioctl(request: number, argument: Uint8Array | number | bigint = 0): number {
    return this.client.ioctl(this.fd, request, argument);
  }

  why(): string {
    return this.client.refusal()?.why ?? '';
  }

  addMemory(overrides: Init<typeof uapi.kvm_userspace_memory_region> = {}): number {
    return this.ioctl(
      uapi.KVM_SET_USER_MEMORY_REGION,
      uapi.kvm_userspace_memory_region.bytes({
        slot: 0,
        guest_phys_addr: RAM,
        memory_size: RAM_SIZE,
        userspace_addr: this.ram.address,
        ...overrides,
      }),
    );
  }

  createDevice(type: number, flags = 0): number {
    const bytes = uapi.kvm_create_device.bytes({ type, flags });
    const result = this.ioctl(uapi.KVM_CREATE_DEVICE, bytes);
    return result < 0 || flags !== 0 ? result : uapi.kvm_create_device.read(bytes).fd;
  }

  attr(
    fd: number,
    group: number,
    attr: number,
    value: bigint | null = null,
    request = uapi.KVM_SET_DEVICE_ATTR,
  ): number {
    const buffer = this.client.allocate(4096) as UserBuffer;
    if (value !== null) new DataView(buffer.bytes.buffer, buffer.bytes.byteOffset).setBigUint64(0, value, true);
    const addr = value === null ? 0 : buffer.address;
    const result = this.client.ioctl(fd, request, uapi.kvm_device_attr.bytes({ group, attr, addr }));
    buffer.free();
    return result;
  }

  /** A GICv3 with an ITS, as QEMU makes it: CPU first, then devices, addresses, init. */
  boot(cpus = 1): this {
    this.addMemory();
    for (let i = 0; i < cpus; i += 1) this.ioctl(uapi.KVM_CREATE_VCPU, i);
    this.gic = this.createDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_V3);
    this.its = this.createDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_ITS);
    this.attr(this.gic, arm.KVM_DEV_ARM_VGIC_GRP_ADDR, arm.KVM_VGIC_V3_ADDR_TYPE_DIST, BigInt(GICD));
    this.attr(this.gic, arm.KVM_DEV_ARM_VGIC_GRP_ADDR, arm.KVM_VGIC_V3_ADDR_TYPE_REDIST, BigInt(GICR));
    this.attr(this.gic, arm.KVM_DEV_ARM_VGIC_GRP_CTRL, arm.KVM_DEV_ARM_VGIC_CTRL_INIT);
    this.attr(this.its, arm.KVM_DEV_ARM_VGIC_GRP_ADDR, arm.KVM_VGIC_ITS_ADDR_TYPE, BigInt(ITS));
    return this;
  }

  route(entries: readonly Init<typeof uapi.kvm_irq_routing_entry>[], flags = 0, nr = entries.length): number {
    return this.ioctl(uapi.KVM_SET_GSI_ROUTING, uapi.kvm_irq_routing.bytes({ nr, flags, entries: entries as never }));
  }

  irqfd(fd: number, gsi: number, flags = 0, resamplefd = 0): number {
    return this.ioctl(uapi.KVM_IRQFD, uapi.kvm_irqfd.bytes({ fd: fd >>> 0, gsi, flags, resamplefd }));
  }

  signalMsi(address: number, data: number, devid: number | null): number {
    return this.ioctl(
      uapi.KVM_SIGNAL_MSI,
      uapi.kvm_msi.bytes({
        address_lo: address >>> 0,
        address_hi: Math.floor(address / 4294967296),
        data,
        flags: devid === null ? 0 : uapi.KVM_MSI_VALID_DEVID,
        devid: devid ?? 0,
      }),
    );
  }

  eventfd(initial = 0): EventFdHandle {
    return this.client.eventfd(initial) as EventFdHandle;
  }

  attach(cpu = 0, signal: () => void = () => {}): GuestCpu {
    const attached = this.port.attach(this.fd, cpu, signal);
    if (typeof attached === 'number') throw new Error(`attach: ${attached}`);
    return attached;
  }
}

export const msi = (gsi: number, data: number, devid: number | null = 8, address = DOORBELL) => ({
  gsi,
  type: uapi.KVM_IRQ_ROUTING_MSI,
  flags: devid === null ? 0 : uapi.KVM_MSI_VALID_DEVID,
  u: {
    msi: { address_lo: address >>> 0, address_hi: Math.floor(address / 4294967296), data, devid: devid ?? 0 },
  },
});

/** The guest's own software for its GIC and ITS: written from the architecture, with the formats of `arch/`. */
export class TestGuest {
  readonly cpu: GuestCpu;
  readonly vm: TestVm;
  private writer = 0;

  constructor(vm: TestVm, cpu: GuestCpu) {
    this.vm = vm;
    this.cpu = cpu;
  }

  write64(gpa: number, value: bigint): void {
    this.cpu.mmioWrite(gpa, 4, Number(value & 0xffff_ffffn));
    this.cpu.mmioWrite(gpa + 4, 4, Number(value >> 32n));
  }

  /** Distributor on, LPIs on, ITS on with its queue and tables, collection 0 at CPU 0. */
  start(): this {
    const { cpu, vm } = this;
    const valid = 1n << 63n;
    cpu.mmioWrite(GICD + GICD_CTLR, 4, 0x12);
    this.write64(GICR + GICR_PROPBASER, BigInt(RAM + PROPERTIES) | 15n);
    this.write64(GICR + GICR_PENDBASER, BigInt(RAM + PENDING));
    cpu.mmioWrite(GICR + GICR_CTLR, 4, 1);
    // Property bytes of the first LPIs: priority 0xa0, enabled.
    vm.ram.bytes.fill(0xa1, PROPERTIES, PROPERTIES + 4096);
    this.write64(ITS + GITS_CBASER, valid | BigInt(RAM + QUEUE) | 15n);
    this.write64(ITS + GITS_BASER, valid | BigInt(RAM + DEVICE_TABLE) | 7n);
    this.write64(ITS + GITS_BASER + 8, valid | BigInt(RAM + COLLECTION_TABLE));
    cpu.mmioWrite(ITS + GITS_CTLR, 4, 1);
    this.command(encodeMapc(new Int32Array(8), 0, 0, true));
    return this;
  }

  command(words: Int32Array): void {
    const bytes = new Uint8Array(words.buffer, words.byteOffset, 32);
    this.vm.ram.bytes.set(bytes, QUEUE + this.writer);
    this.writer = (this.writer + 32) % 0x1_0000;
    this.cpu.mmioWrite(ITS + GITS_CWRITER, 4, this.writer);
  }

  mapDevice(device: number, eventBits: number): void {
    this.command(encodeMapd(new Int32Array(8), device, eventBits, RAM + ITT + device * 0x100, true));
  }

  mapEvent(device: number, event: number, lpi: number, collection = 0): void {
    this.command(encodeMapti(new Int32Array(8), device, event, lpi, collection));
  }

  property(lpi: number, value: number): void {
    this.vm.ram.bytes[PROPERTIES + lpi - 8192] = value;
  }
}
