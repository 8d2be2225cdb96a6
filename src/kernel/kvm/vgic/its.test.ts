import { describe, expect, it } from 'vitest';
import {
  encodeClear,
  encodeDiscard,
  encodeInt,
  encodeInv,
  encodeInvall,
  encodeMapc,
  encodeMapd,
  encodeMovall,
  encodeMovi,
  GITS_BASER,
  GITS_CREADR,
  GITS_CTLR,
  GITS_IIDR,
  GITS_TYPER,
} from '../../../arch/gic/index.ts';
import { Count, Loss } from '../../../ports/ledger.ts';
import { DOORBELL, GICR, ITS, msi, RAM, TestGuest, TestVm } from '../test-vm.ts';

const words = (): Int32Array => new Int32Array(8);

function started(cpus = 1): { vm: TestVm; guest: TestGuest } {
  const vm = new TestVm().boot(cpus);
  const guest = new TestGuest(vm, vm.attach()).start();
  guest.mapDevice(8, 4);
  guest.mapEvent(8, 1, 8200);
  return { vm, guest };
}

describe('registers of the vITS', () => {
  it('TYPER 0x1ef71, IIDR 0x4b00043b; BASERs keep their type, entry size and 64 KiB pages', () => {
    const vm = new TestVm().boot();
    const cpu = vm.attach();
    expect(cpu.mmioRead(ITS + GITS_TYPER, 4)).toBe(0x1_ef71);
    expect(cpu.mmioRead(ITS + GITS_IIDR, 4)).toBe(0x4b00_043b);
    cpu.mmioWrite(ITS + GITS_BASER, 4, 0x4000_0107);
    cpu.mmioWrite(ITS + GITS_BASER + 4, 4, 0xff00_0000);
    cpu.mmioWrite(ITS + GITS_BASER + 12, 4, 0xff00_0000);
    expect(cpu.mmioRead(ITS + GITS_BASER, 4)).toBe(0x4000_0207);
    // Indirect for devices, never for collections; types 1 and 4; entries of 8 bytes.
    expect(cpu.mmioRead(ITS + GITS_BASER + 4, 4)).toBe(0xf907_0000);
    expect(cpu.mmioRead(ITS + GITS_BASER + 12, 4)).toBe(0xbc07_0000);
  });

  it('does not go on without its queue and tables', () => {
    const vm = new TestVm().boot();
    const cpu = vm.attach();
    cpu.mmioWrite(ITS + GITS_CTLR, 4, 1);
    expect(cpu.mmioRead(ITS + GITS_CTLR, 4)).toBe(0x8000_0000);
  });
});

describe('commands', () => {
  it('fail silently: the reader passes them', () => {
    const { vm, guest } = started();
    const before = guest.cpu.mmioRead(ITS + GITS_CREADR, 4) as number;
    guest.mapEvent(9, 0, 8300);
    guest.mapEvent(8, 99, 8300);
    guest.mapEvent(8, 2, 100);
    guest.command(encodeMapc(words(), 1, 5 << 16, true));
    guest.command(encodeDiscard(words(), 8, 3));
    expect(guest.cpu.mmioRead(ITS + GITS_CREADR, 4)).toBe(before + 5 * 32);
    expect(vm.signalMsi(DOORBELL, 0, 9)).toBe(0);
    expect(vm.signalMsi(DOORBELL, 2, 8)).toBe(0);
  });

  it('MAPTI on an event that is mapped is ignored', () => {
    const { vm, guest } = started();
    guest.mapEvent(8, 1, 8201);
    vm.signalMsi(DOORBELL, 1, 8);
    expect(guest.cpu.acknowledge()).toBe(8200);
  });

  it('DISCARD loses what is pending and unmaps; MAPD without V drops the device', () => {
    const { vm, guest } = started();
    const eventfd = vm.eventfd();
    vm.route([msi(5, 1)]);
    vm.irqfd(eventfd.fd, 5);
    eventfd.signal();
    guest.command(encodeDiscard(words(), 8, 1));
    expect(vm.ledger[Count.PENDING]).toBe(0);
    expect(vm.ledger[Count.LOST + Loss.TORN_DOWN]).toBe(1);
    eventfd.signal();
    expect(vm.ledger[Count.LOST + Loss.GUEST_NOT_MAPPED]).toBe(1);
    guest.mapEvent(8, 1, 8200);
    expect(vm.signalMsi(DOORBELL, 1, 8)).toBe(1);
    guest.command(encodeMapd(words(), 8, 4, 0, false));
    expect(vm.signalMsi(DOORBELL, 1, 8)).toBe(0);
  });

  it('CLEAR and INT', () => {
    const { guest } = started();
    guest.command(encodeInt(words(), 8, 1));
    expect(guest.cpu.pending).toBe(true);
    guest.command(encodeClear(words(), 8, 1));
    expect(guest.cpu.acknowledge()).toBe(1023);
  });

  it('INV and INVALL read the property byte again', () => {
    const { vm, guest } = started();
    guest.property(8200, 0xa0);
    vm.signalMsi(DOORBELL, 1, 8);
    expect(guest.cpu.pending).toBe(true);
    guest.command(encodeInv(words(), 8, 1));
    expect(guest.cpu.pending).toBe(false);
    guest.property(8200, 0xa1);
    guest.command(encodeInvall(words(), 0));
    expect(guest.cpu.acknowledge()).toBe(8200);
  });

  it('MOVI, MAPC and MOVALL move what is pending', () => {
    const { vm, guest } = started(2);
    const second = vm.attach(1);
    second.mmioWrite(GICR + 0x2_0000, 4, 1);
    guest.command(encodeMapc(words(), 1, 1 << 16, true));
    vm.signalMsi(DOORBELL, 1, 8);
    guest.command(encodeMovi(words(), 8, 1, 1));
    expect(guest.cpu.pending).toBe(false);
    expect(second.pending).toBe(true);
    guest.command(encodeMovall(words(), 1 << 16, 0));
    expect(guest.cpu.pending).toBe(true);
    guest.command(encodeMapc(words(), 1, 1 << 16, true));
    expect(second.acknowledge()).toBe(8200);
  });

  it('the priority decides, then the order of arrival', () => {
    const { vm, guest } = started();
    for (const event of [2, 3, 4]) guest.mapEvent(8, event, 8200 + event);
    guest.property(8204, 0x21);
    guest.command(encodeInv(words(), 8, 4));
    for (const event of [3, 1, 4]) vm.signalMsi(DOORBELL, event, 8);
    const order = [0, 0, 0].map(() => {
      const intid = guest.cpu.acknowledge();
      guest.cpu.endOfInterrupt(intid);
      return intid;
    });
    expect(order).toEqual([8204, 8203, 8200]);
  });

  it('a higher priority preempts, an equal one waits for the end', () => {
    const { vm, guest } = started();
    guest.mapEvent(8, 2, 8202);
    guest.mapEvent(8, 3, 8203);
    guest.property(8203, 0x21);
    guest.command(encodeInv(words(), 8, 3));
    vm.signalMsi(DOORBELL, 1, 8);
    expect(guest.cpu.acknowledge()).toBe(8200);
    vm.signalMsi(DOORBELL, 2, 8);
    expect(guest.cpu.acknowledge()).toBe(1023);
    vm.signalMsi(DOORBELL, 3, 8);
    expect(guest.cpu.acknowledge()).toBe(8203);
    guest.cpu.endOfInterrupt(8203);
    expect(guest.cpu.acknowledge()).toBe(1023);
    guest.cpu.endOfInterrupt(8200);
    expect(guest.cpu.acknowledge()).toBe(8202);
  });
});

describe('what is off, and what is broken', () => {
  it('LPIs off: EBUSY, what was pending is lost; on again: it works', () => {
    const { vm, guest } = started();
    const eventfd = vm.eventfd();
    vm.route([msi(5, 1)]);
    vm.irqfd(eventfd.fd, 5);
    eventfd.signal();
    guest.cpu.mmioWrite(GICR, 4, 0);
    expect(vm.ledger[Count.LOST + Loss.TORN_DOWN]).toBe(1);
    eventfd.signal();
    expect(vm.ledger[Count.LOST + Loss.GUEST_CONTROLLER_OFF]).toBe(1);
    guest.cpu.mmioWrite(GICR, 4, 1);
    eventfd.signal();
    expect(guest.cpu.acknowledge()).toBe(8200);
  });

  it('ITS off: the cache is dropped with it', () => {
    const { vm, guest } = started();
    vm.signalMsi(DOORBELL, 1, 8);
    guest.cpu.mmioWrite(ITS + GITS_CTLR, 4, 0);
    expect(vm.signalMsi(DOORBELL, 1, 8)).toBe(-16);
  });

  it('a distributor that is off keeps it pending', () => {
    const { vm, guest } = started();
    guest.cpu.mmioWrite(0x0800_0000, 4, 0x10);
    vm.signalMsi(DOORBELL, 1, 8);
    expect(guest.cpu.acknowledge()).toBe(1023);
    guest.cpu.mmioWrite(0x0800_0000, 4, 0x12);
    expect(guest.cpu.acknowledge()).toBe(8200);
  });

  it('an entry corrupted in guest memory is found after an invalidation', () => {
    const { vm, guest } = started();
    const eventfd = vm.eventfd();
    vm.route([msi(5, 1)]);
    vm.irqfd(eventfd.fd, 5);
    eventfd.signal();
    guest.cpu.endOfInterrupt(guest.cpu.acknowledge());
    // The translation entry of event 1: 8 bytes each from the device's table on.
    vm.ram.bytes.fill(0, 0x30_0000 + 8 * 0x100 + 8, 0x30_0000 + 8 * 0x100 + 16);
    eventfd.signal();
    expect(guest.cpu.acknowledge()).toBe(8200);
    guest.cpu.endOfInterrupt(8200);
    guest.command(encodeMapc(words(), 0, 0, true));
    eventfd.signal();
    expect(vm.ledger[Count.LOST + Loss.GUEST_NOT_MAPPED]).toBe(1);
  });

  it('a new device table drops all devices, though the memory is the same', () => {
    const { vm, guest } = started();
    guest.cpu.mmioWrite(ITS + GITS_CTLR, 4, 0);
    guest.write64(ITS + GITS_BASER, (1n << 63n) | BigInt(RAM + 0x10_0000) | 7n);
    guest.cpu.mmioWrite(ITS + GITS_CTLR, 4, 1);
    expect(vm.signalMsi(DOORBELL, 1, 8)).toBe(0);
  });
});
