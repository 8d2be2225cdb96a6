import { describe, expect, it } from 'vitest';
import type { GuestCpu } from '../../../ports/guest.ts';
import { Count, Loss } from '../../../ports/ledger.ts';
import { ERRNO } from '../../../uapi/errno.ts';
import * as uapi from '../../../uapi/kvm.ts';
import { msi, TestVm } from '../test-vm.ts';

const LAPIC = 0xfee0_0000;
const IOAPIC = 0xfec0_0000;

function x86(cpus = 1): { vm: TestVm; cpu: GuestCpu[] } {
  const vm = new TestVm('x86');
  vm.ioctl(uapi.KVM_CREATE_IRQCHIP);
  for (let i = 0; i < cpus; i += 1) vm.ioctl(uapi.KVM_CREATE_VCPU, i);
  const cpu = Array.from({ length: cpus }, (_, i) => vm.attach(i));
  for (const each of cpu) each.mmioWrite(LAPIC + 0xf0, 4, 0x1ff);
  return { vm, cpu };
}

const address = (destination: number, flags = 0): number => LAPIC + destination * 0x1000 + flags;

function redirect(cpu: GuestCpu, pin: number, low: number): void {
  cpu.mmioWrite(IOAPIC, 4, 0x10 + pin * 2);
  cpu.mmioWrite(IOAPIC + 0x10, 4, low);
}

describe('KVM_CREATE_IRQCHIP', () => {
  it('EEXIST twice, EINVAL behind a CPU, ENOTTY on arm64', () => {
    const vm = new TestVm('x86');
    expect(vm.irqfd(vm.eventfd().fd, 0)).toBe(-ERRNO.EAGAIN);
    expect(vm.ioctl(uapi.KVM_CREATE_IRQCHIP)).toBe(0);
    expect(vm.ioctl(uapi.KVM_CREATE_IRQCHIP)).toBe(-ERRNO.EEXIST);
    const late = new TestVm('x86');
    late.ioctl(uapi.KVM_CREATE_VCPU, 0);
    expect(late.ioctl(uapi.KVM_CREATE_IRQCHIP)).toBe(-ERRNO.EINVAL);
    expect(new TestVm().ioctl(uapi.KVM_CREATE_IRQCHIP)).toBe(-ERRNO.ENOTTY);
  });
});

describe('MSIs to local APICs', () => {
  it('an irqfd pends a vector; acknowledge puts it into service; EOI ends it', () => {
    const { vm, cpu } = x86();
    const eventfd = vm.eventfd();
    vm.route([msi(30, 0x41, null, address(0))]);
    vm.irqfd(eventfd.fd, 30);
    eventfd.signal();
    eventfd.signal();
    expect(cpu[0].mmioRead(LAPIC + 0x220, 4)).toBe(2);
    expect(cpu[0].acknowledge()).toBe(0x41);
    expect(cpu[0].mmioRead(LAPIC + 0x120, 4)).toBe(2);
    eventfd.signal();
    expect(cpu[0].acknowledge()).toBe(1023);
    cpu[0].mmioWrite(LAPIC + 0xb0, 4, 0);
    expect(cpu[0].acknowledge()).toBe(0x41);
    expect([Count.SENT, Count.DELIVERED, Count.COALESCED, Count.PENDING].map((slot) => vm.ledger[slot])).toEqual([
      3, 2, 1, 0,
    ]);
  });

  it('the higher class comes first; the task priority holds back', () => {
    const { vm, cpu } = x86();
    for (const vector of [0x31, 0x52, 0x44]) vm.signalMsi(address(0), vector, null);
    cpu[0].mmioWrite(LAPIC + 0x80, 4, 0x40);
    expect(cpu[0].acknowledge()).toBe(0x52);
    cpu[0].endOfInterrupt(0x52);
    expect(cpu[0].acknowledge()).toBe(1023);
    cpu[0].mmioWrite(LAPIC + 0x80, 4, 0);
    expect(cpu[0].acknowledge()).toBe(0x44);
  });

  it('physical, logical and broadcast destinations', () => {
    const { vm, cpu } = x86(3);
    for (const [i, each] of cpu.entries()) each.mmioWrite(LAPIC + 0xd0, 4, (1 << (24 + i)) >>> 0);
    const pending = (): boolean[] => cpu.map((each) => each.pending);
    vm.signalMsi(address(2), 0x41, null);
    expect(pending()).toEqual([false, false, true]);
    vm.signalMsi(address(3, 4), 0x51, null);
    expect(pending()).toEqual([true, true, true]);
    expect(vm.signalMsi(address(9), 0x41, null)).toBe(-ERRNO.EINVAL);
  });

  it('lost: no such CPU, a CPU that is switched off', () => {
    const { vm, cpu } = x86();
    const eventfd = vm.eventfd();
    vm.irqfd(eventfd.fd, 30);
    vm.route([msi(30, 0x41, null, address(7))]);
    eventfd.signal();
    expect(vm.ledger[Count.LOST + Loss.ROUTE_REFUSED]).toBe(1);
    vm.route([msi(30, 0x41, null, address(0))]);
    cpu[0].mmioWrite(LAPIC + 0xf0, 4, 0xff);
    eventfd.signal();
    expect(vm.ledger[Count.LOST + Loss.GUEST_CONTROLLER_OFF]).toBe(1);
  });
});

describe('lines through the I/O APIC', () => {
  it('level, with RESAMPLE: lowered at the end of interrupt', () => {
    const { vm, cpu } = x86();
    redirect(cpu[0], 16, 0x8051);
    const trigger = vm.eventfd();
    const resample = vm.eventfd();
    expect(vm.irqfd(trigger.fd, 16, uapi.KVM_IRQFD_FLAG_RESAMPLE, resample.fd)).toBe(0);
    trigger.signal();
    trigger.signal();
    expect(cpu[0].acknowledge()).toBe(0x51);
    cpu[0].endOfInterrupt(0x51);
    expect(resample.count).toBe(1);
    expect(cpu[0].acknowledge()).toBe(1023);
    expect([Count.SENT, Count.DELIVERED, Count.COALESCED].map((slot) => vm.ledger[slot])).toEqual([2, 1, 1]);
  });

  it('a masked level waits in the ledger too, and goes on when it is unmasked', () => {
    const { vm, cpu } = x86();
    redirect(cpu[0], 18, 0x1_8053);
    const trigger = vm.eventfd();
    vm.irqfd(trigger.fd, 18);
    trigger.signal();
    trigger.signal();
    expect([Count.SENT, Count.PENDING, Count.COALESCED].map((slot) => vm.ledger[slot])).toEqual([2, 1, 1]);
    redirect(cpu[0], 18, 0x8053);
    expect(cpu[0].acknowledge()).toBe(0x53);
    expect([Count.PENDING, Count.DELIVERED].map((slot) => vm.ledger[slot])).toEqual([0, 1]);
  });

  it('a line that stays up comes again; a masked one waits', () => {
    const { vm, cpu } = x86();
    const line = (level: number): number => vm.ioctl(uapi.KVM_IRQ_LINE, uapi.kvm_irq_level.bytes({ irq: 17, level }));
    redirect(cpu[0], 17, 0x1_8052);
    line(1);
    expect(cpu[0].pending).toBe(false);
    redirect(cpu[0], 17, 0x8052);
    for (let i = 0; i < 2; i += 1) {
      expect(cpu[0].acknowledge()).toBe(0x52);
      if (i === 1) line(0);
      cpu[0].endOfInterrupt(0x52);
    }
    expect(cpu[0].pending).toBe(false);
  });
});
