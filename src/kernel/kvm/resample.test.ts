import { describe, expect, it } from 'vitest';
import { Count } from '../../ports/ledger.ts';
import * as uapi from '../../uapi/kvm.ts';
import { GICD, TestGuest, TestVm } from './test-vm.ts';

/** SPI 40 (gsi 8, by the default table) enabled, level sensitive after reset. */
function lineGuest(): { vm: TestVm; guest: TestGuest } {
  const vm = new TestVm().boot();
  const guest = new TestGuest(vm, vm.attach()).start();
  guest.cpu.mmioWrite(GICD + 0x104, 4, 1 << 8);
  return { vm, guest };
}

describe('an irqfd with RESAMPLE', () => {
  it('keeps the line up until the end of the interrupt, then tells who can look again', () => {
    const { vm, guest } = lineGuest();
    const trigger = vm.eventfd();
    const resample = vm.eventfd();
    expect(vm.irqfd(trigger.fd, 8, uapi.KVM_IRQFD_FLAG_RESAMPLE, resample.fd)).toBe(0);
    trigger.signal();
    expect(guest.cpu.acknowledge()).toBe(40);
    expect(resample.count).toBe(0);
    guest.cpu.endOfInterrupt(40);
    expect(resample.count).toBe(1);
    expect(guest.cpu.pending).toBe(false);
    expect(vm.ledger[Count.SENT]).toBe(1);
    expect(vm.ledger[Count.DELIVERED]).toBe(1);
    expect(vm.ledger[Count.PENDING]).toBe(0);
  });

  it('without RESAMPLE a level stays up: it comes again after each end', () => {
    const { vm, guest } = lineGuest();
    const trigger = vm.eventfd();
    vm.irqfd(trigger.fd, 8);
    trigger.signal();
    for (let i = 0; i < 3; i += 1) {
      expect(guest.cpu.acknowledge()).toBe(40);
      guest.cpu.endOfInterrupt(40);
    }
  });

  it('two irqfds of one line are both told', () => {
    const { vm, guest } = lineGuest();
    const fds = [vm.eventfd(), vm.eventfd(), vm.eventfd(), vm.eventfd()];
    vm.irqfd(fds[0].fd, 8, uapi.KVM_IRQFD_FLAG_RESAMPLE, fds[1].fd);
    vm.irqfd(fds[2].fd, 8, uapi.KVM_IRQFD_FLAG_RESAMPLE, fds[3].fd);
    fds[0].signal();
    guest.cpu.endOfInterrupt(guest.cpu.acknowledge());
    expect([fds[1].count, fds[3].count]).toEqual([1, 1]);
  });
});
