import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../uapi/errno.ts';
import * as uapi from '../../uapi/kvm.ts';
import * as arm from '../../uapi/kvm-arm64.ts';
import { DOORBELL, GICD, ITS, msi, RAM, RAM_SIZE, TestGuest, TestVm } from './test-vm.ts';

const { EAGAIN, EBADF, EBUSY, EEXIST, EFAULT, EINVAL, EIO, ENODEV, ENOENT, ENOTTY, ENXIO, EPERM, E2BIG, ENOSYS } =
  ERRNO;
const PIN = uapi.KVM_IRQ_ROUTING_IRQCHIP;
const pin = (gsi: number, number: number, irqchip = 0) => ({
  gsi,
  type: PIN,
  u: { irqchip: { irqchip, pin: number } },
});

describe('/dev/kvm', () => {
  const vm = new TestVm();
  const fd = vm.client.process.install(vm.kvm.openFile());

  it.each([
    ['version', uapi.KVM_GET_API_VERSION, 0, 12],
    ['version with an argument', uapi.KVM_GET_API_VERSION, 1, -EINVAL],
    ['IRQ_ROUTING', uapi.KVM_CHECK_EXTENSION, 25, 4096],
    ['IRQFD', uapi.KVM_CHECK_EXTENSION, 32, 1],
    ['IOEVENTFD', uapi.KVM_CHECK_EXTENSION, 36, 1],
    ['SIGNAL_MSI', uapi.KVM_CHECK_EXTENSION, 77, 1],
    ['IRQFD_RESAMPLE', uapi.KVM_CHECK_EXTENSION, 82, 1],
    ['MSI_DEVID asks for a VM', uapi.KVM_CHECK_EXTENSION, 131, -EINVAL],
    ['an unknown extension', uapi.KVM_CHECK_EXTENSION, 9999, 0],
    ['31 bits of addresses', uapi.KVM_CREATE_VM, 31, -EINVAL],
    ['49 bits of addresses', uapi.KVM_CREATE_VM, 49, -EINVAL],
    ['a type beyond the mask', uapi.KVM_CREATE_VM, 0x100, -EINVAL],
    ['no such request', 0xaeff, 0, -ENOTTY],
  ])('%s', (_, request, argument, result) => expect(vm.client.ioctl(fd, request, argument)).toBe(result));
});

describe('KVM_SET_USER_MEMORY_REGION, check after check', () => {
  it.each([
    ['flags before size', { flags: 4, memory_size: 1 }, EINVAL, 'flags'],
    ['size before guest address', { memory_size: RAM_SIZE + 1, guest_phys_addr: 1 }, EINVAL, 'memory_size'],
    ['guest address before user address', { guest_phys_addr: 1, userspace_addr: 1 }, EINVAL, 'guest_phys_addr'],
    ['user address before slot', { userspace_addr: 1, slot: 0x1_0000 }, EINVAL, 'userspace_addr'],
    ['slot', { slot: 32767 }, EINVAL, 'slot'],
    ['deletion of an empty slot', { memory_size: 0 }, EINVAL, 'memory_size'],
    ['beyond 40 bits', { guest_phys_addr: 2 ** 40 - 4096 }, EFAULT, 'guest_phys_addr'],
  ])('%s', (_, region, errno, field) => {
    const vm = new TestVm();
    expect(vm.addMemory(region)).toBe(-errno);
    expect(vm.client.refusal()?.field).toBe(field);
  });

  it('EEXIST names the slot; the range next to it passes; EFAULT comes after EEXIST', () => {
    const vm = new TestVm();
    expect(vm.addMemory()).toBe(0);
    expect(vm.addMemory({ slot: 1, guest_phys_addr: RAM + RAM_SIZE - 4096 })).toBe(-EEXIST);
    expect(vm.why()).toContain('slot 0');
    expect(vm.addMemory({ slot: 1, guest_phys_addr: RAM + RAM_SIZE })).toBe(0);
  });

  it('a slot moves, keeps its size, and goes with size 0', () => {
    const vm = new TestVm();
    vm.addMemory();
    expect(vm.addMemory()).toBe(0);
    expect(vm.addMemory({ memory_size: RAM_SIZE / 2 })).toBe(-EINVAL);
    expect(vm.addMemory({ guest_phys_addr: RAM * 2 })).toBe(0);
    expect(vm.addMemory({ memory_size: 0 })).toBe(0);
    expect(vm.addMemory({ memory_size: 0 })).toBe(-EINVAL);
  });

  it('EFAULT before everything', () => {
    const vm = new TestVm();
    expect(vm.ioctl(uapi.KVM_SET_USER_MEMORY_REGION, 0n)).toBe(-EFAULT);
  });
});

describe('KVM_SET_GSI_ROUTING, check after check', () => {
  it('EINVAL without a controller comes before the number, and EFAULT of the header before it', () => {
    const vm = new TestVm();
    expect(vm.route([], 1)).toBe(-EINVAL);
    expect(vm.why()).toContain('no in-kernel');
    expect(vm.ioctl(uapi.KVM_SET_GSI_ROUTING, 0n)).toBe(-EFAULT);
  });

  it.each([
    ['nr before flags', [], 1, 4097, EINVAL, 'nr'],
    ['flags before the entries', [pin(5000, 0)], 1, 1, EINVAL, 'flags'],
    ['entries that are not there', [], 0, 2, EFAULT, 'entries'],
    ['gsi 4096', [pin(4096, 0)], 0, 1, EINVAL, 'gsi'],
    ['flags of a pin', [{ ...pin(0, 0), flags: 1 }], 0, 1, EINVAL, 'flags'],
    ['flags of an MSI beyond VALID_DEVID', [{ ...msi(0, 0), flags: 3 }], 0, 1, EINVAL, 'flags'],
    ['irqchip 1', [pin(0, 0, 1)], 0, 1, EINVAL, 'pin'],
    ['pin 988', [pin(0, 988)], 0, 1, EINVAL, 'pin'],
    ['an unknown type', [{ gsi: 0, type: 5 }], 0, 1, EINVAL, 'type'],
    ['two entries of one gsi', [msi(3, 0), msi(3, 1)], 0, 2, EINVAL, 'gsi'],
    ['a pin and an MSI of one gsi', [pin(3, 0), msi(3, 1)], 0, 2, EINVAL, 'gsi'],
    ['a gsi out of range is found before a bad entry', [pin(0, 988), pin(4096, 0)], 0, 2, EINVAL, 'gsi'],
  ])('%s', (_, entries, flags, nr, errno, field) => {
    const vm = new TestVm().boot();
    expect(vm.route(entries, flags, nr)).toBe(-errno);
    expect(vm.client.refusal()?.field).toBe(field);
  });

  it('takes 4096 entries, pin 987, and any MSI address', () => {
    const vm = new TestVm().boot();
    expect(vm.route(Array.from({ length: 4096 }, (_, gsi) => msi(gsi, gsi, 8, 0xdead_0000)))).toBe(0);
    expect(vm.route([pin(0, 987)])).toBe(0);
  });

  it('a refused table leaves the old one in force', () => {
    const vm = new TestVm().boot();
    const guest = new TestGuest(vm, vm.attach()).start();
    guest.mapDevice(8, 2);
    guest.mapEvent(8, 1, 8193);
    const eventfd = vm.eventfd();
    vm.route([msi(7, 1)]);
    vm.irqfd(eventfd.fd, 7);
    expect(vm.route([msi(7, 2), pin(0, 988)])).toBe(-EINVAL);
    eventfd.signal();
    expect(guest.cpu.acknowledge()).toBe(8193);
  });
});

describe('KVM_IRQFD', () => {
  it('EINVAL of flags, EAGAIN, EBADF, EINVAL, EBUSY, in this order', () => {
    const vm = new TestVm();
    expect(vm.irqfd(999, 0, 4)).toBe(-EINVAL);
    expect(vm.client.refusal()?.field).toBe('flags');
    expect(vm.irqfd(999, 0)).toBe(-EAGAIN);
    vm.boot();
    expect(vm.irqfd(999, 0)).toBe(-EBADF);
    expect(vm.irqfd(vm.fd, 0)).toBe(-EINVAL);
    const eventfd = vm.eventfd();
    expect(vm.irqfd(eventfd.fd, 4095, uapi.KVM_IRQFD_FLAG_RESAMPLE, 999)).toBe(-EBADF);
    expect(vm.client.refusal()?.field).toBe('resamplefd');
    expect(vm.irqfd(eventfd.fd, 4095, uapi.KVM_IRQFD_FLAG_RESAMPLE, vm.fd)).toBe(-EINVAL);
    expect(vm.irqfd(eventfd.fd, 99999)).toBe(0);
    expect(vm.irqfd(eventfd.fd, 0)).toBe(-EBUSY);
  });

  it('EBUSY also across VMs', () => {
    const vm = new TestVm().boot();
    const eventfd = vm.eventfd();
    vm.irqfd(eventfd.fd, 0);
    const kvm = vm.client.process.install(vm.kvm.openFile());
    const other = vm.client.ioctl(kvm, uapi.KVM_CREATE_VM);
    vm.client.ioctl(other, uapi.KVM_CREATE_VCPU, 0);
    const bytes = uapi.kvm_create_device.bytes({ type: uapi.KVM_DEV_TYPE_ARM_VGIC_V3 });
    vm.client.ioctl(other, uapi.KVM_CREATE_DEVICE, bytes);
    vm.attr(uapi.kvm_create_device.read(bytes).fd, arm.KVM_DEV_ARM_VGIC_GRP_CTRL, arm.KVM_DEV_ARM_VGIC_CTRL_INIT);
    expect(vm.client.ioctl(other, uapi.KVM_IRQFD, uapi.kvm_irqfd.bytes({ fd: eventfd.fd }))).toBe(-EBUSY);
  });

  it('deassign needs both numbers; no match is success; afterwards the counter rises again', () => {
    const vm = new TestVm().boot();
    const eventfd = vm.eventfd();
    vm.irqfd(eventfd.fd, 3);
    expect(vm.irqfd(eventfd.fd, 4, uapi.KVM_IRQFD_FLAG_DEASSIGN)).toBe(0);
    expect(vm.irqfd(eventfd.fd, 3)).toBe(-EBUSY);
    expect(vm.irqfd(999, 3, uapi.KVM_IRQFD_FLAG_DEASSIGN)).toBe(-EBADF);
    expect(vm.irqfd(eventfd.fd, 3, uapi.KVM_IRQFD_FLAG_DEASSIGN)).toBe(0);
    eventfd.signal();
    expect(eventfd.count).toBe(1);
    expect(vm.irqfd(eventfd.fd, 3)).toBe(0);
    expect(eventfd.count).toBe(0);
  });

  it('the last close of the eventfd detaches it', () => {
    const vm = new TestVm().boot();
    const eventfd = vm.eventfd();
    const file = vm.client.process.file(eventfd.fd);
    vm.irqfd(eventfd.fd, 3);
    vm.client.close(eventfd.fd);
    expect(file?.eventfd?.setConsumer({ signalled: () => {} })).toBe(true);
  });

  it('closing the VM detaches all', () => {
    const vm = new TestVm().boot();
    const eventfd = vm.eventfd();
    vm.irqfd(eventfd.fd, 3);
    vm.client.close(vm.fd);
    eventfd.signal();
    expect(eventfd.count).toBe(1);
  });
});

describe('KVM_SIGNAL_MSI', () => {
  it('EINVAL without a controller, ENODEV without an ITS, EINVAL of flags and address, EBUSY, 0, 1', () => {
    const vm = new TestVm();
    expect(vm.signalMsi(DOORBELL, 1, 8)).toBe(-EINVAL);
    vm.addMemory();
    vm.ioctl(uapi.KVM_CREATE_VCPU, 0);
    vm.createDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_V3);
    expect(vm.signalMsi(DOORBELL, 1, 8)).toBe(-ENODEV);

    const full = new TestVm().boot();
    expect(full.ioctl(uapi.KVM_SIGNAL_MSI, uapi.kvm_msi.bytes({ flags: 2 }))).toBe(-EINVAL);
    expect(full.signalMsi(DOORBELL, 1, null)).toBe(-EINVAL);
    expect(full.signalMsi(ITS - 4, 1, 8)).toBe(-EINVAL);
    expect(full.signalMsi(GICD, 1, 8)).toBe(-EINVAL);
    expect(full.signalMsi(DOORBELL, 1, 8)).toBe(-EBUSY);
    const guest = new TestGuest(full, full.attach()).start();
    expect(full.signalMsi(DOORBELL, 1, 8)).toBe(0);
    guest.mapDevice(8, 2);
    guest.mapEvent(8, 1, 8193);
    expect(full.signalMsi(DOORBELL, 1, 8)).toBe(1);
    expect(full.signalMsi(ITS, 1, 8)).toBe(1);
    expect(guest.cpu.acknowledge()).toBe(8193);
    expect(full.ledger.every((count) => count === 0)).toBe(true);
  });

  it('MSI_DEVID is 1 once an ITS exists', () => {
    const vm = new TestVm();
    expect(vm.ioctl(uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_MSI_DEVID)).toBe(0);
    expect(vm.boot().ioctl(uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_MSI_DEVID)).toBe(1);
  });
});

describe('KVM_IRQ_LINE', () => {
  const line = (vm: TestVm, type: number, number: number, level = 1, cpu = 0): number =>
    vm.ioctl(uapi.KVM_IRQ_LINE, uapi.kvm_irq_level.bytes({ irq: ((type << 24) | (cpu << 16) | number) >>> 0, level }));

  it.each([
    ['a CPU line beside a GIC', 0, 0, 0, ENXIO],
    ['SPI 31', 1, 31, 0, EINVAL],
    ['an SPI that does not exist', 1, 32 + 224, 0, EINVAL],
    ['PPI 15', 2, 15, 0, EINVAL],
    ['PPI 32', 2, 32, 0, EINVAL],
    ['a CPU that does not exist', 2, 20, 3, EINVAL],
    ['an unknown type', 3, 40, 0, EINVAL],
  ])('%s', (_, type, number, cpu, errno) => expect(line(new TestVm().boot(), type, number, 1, cpu)).toBe(-errno));

  it('ENXIO without a GIC', () => expect(line(new TestVm(), 1, 40)).toBe(-ENXIO));

  it('a level comes and goes', () => {
    const vm = new TestVm().boot();
    const guest = new TestGuest(vm, vm.attach()).start();
    guest.cpu.mmioWrite(GICD + 0x104, 4, 1 << 8);
    expect(line(vm, 1, 40)).toBe(0);
    expect(guest.cpu.pending).toBe(true);
    expect(line(vm, 1, 40, 0)).toBe(0);
    expect(guest.cpu.acknowledge()).toBe(1023);
  });
});

describe('KVM_CREATE_DEVICE and CREATE_VCPU', () => {
  it('ENODEV, TEST, EEXIST, and an ITS without a GIC', () => {
    const vm = new TestVm();
    expect(vm.createDevice(99)).toBe(-ENODEV);
    expect(vm.createDevice(99, 1)).toBe(-ENODEV);
    expect(vm.createDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_V5)).toBe(-ENODEV);
    expect(vm.createDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_V3, uapi.KVM_CREATE_DEVICE_TEST)).toBe(0);
    expect(vm.createDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_ITS)).toBe(-ENODEV);
    expect(vm.createDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_V3)).toBeGreaterThan(0);
    expect(vm.createDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_V2)).toBe(-EEXIST);
  });

  it('a virtual CPU: EINVAL beyond the limit, EEXIST, EBUSY behind INIT; RUN says what to do instead', () => {
    const vm = new TestVm();
    expect(vm.ioctl(uapi.KVM_CREATE_VCPU, 512)).toBe(-EINVAL);
    const fd = vm.ioctl(uapi.KVM_CREATE_VCPU, 0);
    expect(vm.ioctl(uapi.KVM_CREATE_VCPU, 0)).toBe(-EEXIST);
    expect(vm.client.ioctl(fd, 0xae80)).toBe(-ENOSYS);
    expect(vm.client.refusal()?.hint).toContain('GuestPort');
    expect(new TestVm().boot().ioctl(uapi.KVM_CREATE_VCPU, 9)).toBe(-EBUSY);
  });

  it('KVM_DEV_TYPE_VFIO: one of them; EPERM to get; ENXIO; EFAULT; EBADF; EINVAL; EEXIST; ENOENT', () => {
    const vm = new TestVm();
    const fd = vm.createDevice(uapi.KVM_DEV_TYPE_VFIO);
    expect(vm.createDevice(uapi.KVM_DEV_TYPE_VFIO)).toBe(-EBUSY);
    expect(vm.attr(fd, 1, 1, 0n, uapi.KVM_GET_DEVICE_ATTR)).toBe(-EPERM);
    expect(vm.attr(fd, 2, 1)).toBe(-ENXIO);
    expect(vm.attr(fd, 1, 3)).toBe(-ENXIO);
    expect(vm.attr(fd, 1, 1, null)).toBe(-EFAULT);
    expect(vm.attr(fd, 1, 1, 999n)).toBe(-EBADF);
    expect(vm.attr(fd, 1, 1, BigInt(vm.fd))).toBe(-EINVAL);
    const group = vm.client.process.install({ name: '/dev/vfio/3', kind: 'group', release: () => {} });
    expect(vm.attr(fd, 1, 2, BigInt(group))).toBe(-ENOENT);
    expect(vm.attr(fd, 1, 1, BigInt(group))).toBe(0);
    expect(vm.attr(fd, 1, 1, BigInt(group))).toBe(-EEXIST);
    expect(vm.attr(fd, 1, 2, BigInt(group))).toBe(0);
    vm.client.close(fd);
    expect(vm.createDevice(uapi.KVM_DEV_TYPE_VFIO)).toBeGreaterThan(0);
  });

  it('another address space gets EIO', () => {
    const vm = new TestVm().boot();
    const other = vm.kernel.createProcess();
    const fd = vm.client.process.send(vm.fd, other);
    const gic = vm.client.process.send(vm.gic, other);
    expect(vm.kernel.syscalls.ioctl(other, fd, uapi.KVM_CREATE_VCPU, 1n)).toBe(-EIO);
    expect(vm.kernel.syscalls.ioctl(other, gic, uapi.KVM_SET_DEVICE_ATTR, 0n)).toBe(-EIO);
  });
});

describe('attributes of the GIC and the ITS', () => {
  const addr = (vm: TestVm, fd: number, type: number, value: bigint): number =>
    vm.attr(fd, arm.KVM_DEV_ARM_VGIC_GRP_ADDR, type, value);

  it('NR_IRQS: EFAULT, EINVAL, EBUSY', () => {
    const vm = new TestVm();
    const gic = vm.createDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_V3);
    const set = (value: bigint | null): number => vm.attr(gic, arm.KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, value);
    expect(set(null)).toBe(-EFAULT);
    for (const bad of [32n, 63n, 65n, 1056n]) expect(set(bad)).toBe(-EINVAL);
    expect(set(1024n)).toBe(0);
    expect(set(64n)).toBe(-EBUSY);
  });

  it('distributor: ENODEV, EINVAL, E2BIG, then EEXIST', () => {
    const vm = new TestVm();
    const gic = vm.createDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_V3);
    expect(addr(vm, gic, arm.KVM_VGIC_V2_ADDR_TYPE_DIST, 0n)).toBe(-ENODEV);
    expect(addr(vm, gic, arm.KVM_VGIC_V3_ADDR_TYPE_DIST, 0x1000n)).toBe(-EINVAL);
    expect(addr(vm, gic, arm.KVM_VGIC_V3_ADDR_TYPE_DIST, 1n << 40n)).toBe(-E2BIG);
    expect(addr(vm, gic, arm.KVM_VGIC_V3_ADDR_TYPE_DIST, 0x800_0000n)).toBe(0);
    expect(addr(vm, gic, arm.KVM_VGIC_V3_ADDR_TYPE_DIST, 0x1000n)).toBe(-EEXIST);
  });

  it('ITS: ENODEV before EFAULT, EINVAL, E2BIG, EEXIST; controls', () => {
    const vm = new TestVm().boot();
    const its = vm.createDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_ITS);
    expect(vm.attr(its, arm.KVM_DEV_ARM_VGIC_GRP_ADDR, 3, null)).toBe(-ENODEV);
    expect(vm.attr(its, arm.KVM_DEV_ARM_VGIC_GRP_ADDR, 4, null)).toBe(-EFAULT);
    expect(addr(vm, its, 4, 0x1000n)).toBe(-EINVAL);
    expect(addr(vm, its, 4, (1n << 40n) - 0x1_0000n)).toBe(-E2BIG);
    expect(addr(vm, its, 4, BigInt(ITS))).toBe(-EEXIST);
    expect(addr(vm, its, 4, 0x900_0000n)).toBe(0);
    expect(addr(vm, its, 4, 0xa00_0000n)).toBe(-EEXIST);
    expect(vm.attr(its, arm.KVM_DEV_ARM_VGIC_GRP_CTRL, 9)).toBe(-ENXIO);
    vm.attach();
    expect(vm.attr(its, arm.KVM_DEV_ARM_VGIC_GRP_CTRL, arm.KVM_DEV_ARM_ITS_CTRL_RESET)).toBe(-EBUSY);
    expect(vm.attr(its, arm.KVM_DEV_ARM_VGIC_GRP_CTRL, arm.KVM_DEV_ARM_VGIC_CTRL_INIT)).toBe(0);
  });

  it('the guest port answers as the first run would: EBUSY before INIT, ENXIO without addresses', () => {
    const vm = new TestVm();
    expect(vm.port.attach(999, 0, () => {})).toBe(-EBADF);
    vm.ioctl(uapi.KVM_CREATE_VCPU, 0);
    expect(vm.port.attach(vm.fd, 1, () => {})).toBe(-EINVAL);
    expect(vm.port.attach(vm.fd, 0, () => {})).toBe(-ENXIO);
    const gic = vm.createDevice(uapi.KVM_DEV_TYPE_ARM_VGIC_V3);
    expect(vm.port.attach(vm.fd, 0, () => {})).toBe(-EBUSY);
    vm.attr(gic, arm.KVM_DEV_ARM_VGIC_GRP_CTRL, arm.KVM_DEV_ARM_VGIC_CTRL_INIT);
    expect(vm.port.attach(vm.fd, 0, () => {})).toBe(-ENXIO);
  });
});

describe('KVM_IOEVENTFD', () => {
  it('a matching write is a signal; collisions, unknown ones and bad lengths are refused', () => {
    const vm = new TestVm().boot();
    const cpu = vm.attach();
    const eventfd = vm.eventfd();
    const bind = (values: object): number =>
      vm.ioctl(uapi.KVM_IOEVENTFD, uapi.kvm_ioeventfd.bytes({ addr: 0x5000, len: 4, fd: eventfd.fd, ...values }));
    expect(bind({ len: 3 })).toBe(-EINVAL);
    expect(bind({ flags: 16 })).toBe(-EINVAL);
    expect(bind({ len: 0, flags: 1 })).toBe(-EINVAL);
    expect(bind({ fd: 999 })).toBe(-EBADF);
    expect(bind({ flags: 1, datamatch: 7 })).toBe(0);
    expect(bind({ flags: 1, datamatch: 7 })).toBe(-EEXIST);
    expect(cpu.mmioWrite(0x5000, 4, 6)).toBe(false);
    expect(cpu.mmioWrite(0x5000, 4, 7)).toBe(true);
    expect(eventfd.count).toBe(1);
    expect(bind({ flags: 5, datamatch: 6 })).toBe(-ENOENT);
    expect(bind({ flags: 5, datamatch: 7 })).toBe(0);
    expect(cpu.mmioWrite(0x5000, 4, 7)).toBe(false);
  });
});
