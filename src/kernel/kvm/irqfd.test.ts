import { describe, expect, it } from 'vitest';
import { Count, Loss } from '../../ports/ledger.ts';
import { DOORBELL, ITS, msi, TestGuest, TestVm } from './test-vm.ts';

/** Device 8, events 0 to 31, LPI 8192 + event. */
function started(): { vm: TestVm; guest: TestGuest; told: () => number } {
  let told = 0;
  const vm = new TestVm().boot();
  const guest = new TestGuest(
    vm,
    vm.attach(0, () => (told += 1)),
  ).start();
  guest.mapDevice(8, 5);
  for (let event = 0; event < 32; event += 1) guest.mapEvent(8, event, 8192 + event);
  return { vm, guest, told: () => told };
}

describe('the way of a signal into the guest', () => {
  it('eventfd, irqfd, vITS, vLPI, acknowledge, end', () => {
    const { vm, guest, told } = started();
    const eventfd = vm.eventfd();
    expect(vm.route([msi(40, 3)])).toBe(0);
    expect(vm.irqfd(eventfd.fd, 40)).toBe(0);
    eventfd.signal();
    expect(guest.cpu.pending).toBe(true);
    expect(told()).toBe(0);
    vm.client.settle();
    expect(told()).toBe(1);
    expect(vm.ledger[Count.PENDING]).toBe(1);
    expect(guest.cpu.acknowledge()).toBe(8195);
    expect(guest.cpu.acknowledge()).toBe(1023);
    guest.cpu.endOfInterrupt(8195);
    expect([Count.SENT, Count.DELIVERED, Count.PENDING, Count.COALESCED].map((slot) => vm.ledger[slot])).toEqual([
      1, 1, 0, 0,
    ]);
    expect(eventfd.count).toBe(0);
  });

  it('a second signal before the acknowledge is merged', () => {
    const { vm, guest } = started();
    const eventfd = vm.eventfd();
    vm.route([msi(40, 3)]);
    vm.irqfd(eventfd.fd, 40);
    eventfd.signal();
    eventfd.signal();
    eventfd.signal();
    expect(guest.cpu.acknowledge()).toBe(8195);
    expect([Count.SENT, Count.DELIVERED, Count.PENDING, Count.COALESCED].map((slot) => vm.ledger[slot])).toEqual([
      3, 1, 0, 2,
    ]);
  });

  it.each([
    ['no route', [], Loss.NO_ROUTE],
    ['a route without a device id', [msi(40, 3, null)], Loss.ROUTE_REFUSED],
    ['a route into no ITS', [msi(40, 3, 8, ITS - 4)], Loss.ROUTE_REFUSED],
    ['the end of the ITS region', [msi(40, 3, 8, ITS + 0x2_0000)], Loss.ROUTE_REFUSED],
    ['an event that is not mapped', [msi(40, 99)], Loss.GUEST_NOT_MAPPED],
    ['a device that is not mapped', [msi(40, 3, 9)], Loss.GUEST_NOT_MAPPED],
  ])('lost: %s', (_, routes, loss) => {
    const { vm } = started();
    const eventfd = vm.eventfd();
    vm.route(routes);
    vm.irqfd(eventfd.fd, 40);
    eventfd.signal();
    expect(vm.ledger[Count.LOST + loss]).toBe(1);
    expect(vm.ledger[Count.PENDING]).toBe(0);
  });

  it.each([ITS, ITS + 0xfffc, DOORBELL + 4, ITS + 0x1_fffc])('any address of the ITS will do: %i', (address) => {
    const { vm, guest } = started();
    const eventfd = vm.eventfd();
    vm.route([msi(40, 3, 8, address)]);
    vm.irqfd(eventfd.fd, 40);
    eventfd.signal();
    expect(guest.cpu.acknowledge()).toBe(8195);
  });
});
