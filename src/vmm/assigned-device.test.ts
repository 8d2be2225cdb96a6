import { describe, expect, it } from 'vitest';
import { Header } from '../arch/pci/config.ts';
import { BellRegister, type DeviceOptions } from '../devices/index.ts';
import { createDevice } from '../devices/registry.ts';
import { type BootOptions, bootLinux, type Host } from '../kernel/boot/boot.ts';
import { defineMachine } from '../machine/define.ts';
import { Machine } from '../machine/machine.ts';
import { PRESET_DEVICE, type PresetName, presetInput } from '../machine/presets.ts';
import { Count } from '../ports/ledger.ts';
import type { Hop } from '../ports/tap.ts';
import { openDevice } from '../vfio/open-device.ts';
import type { AssignedDevice } from './assigned-device.ts';
import { GuestDriver } from './guest-driver.ts';
import { type GuestMap, virtMap } from './guest-map.ts';
import { balance } from './testing/fake-host.ts';
import { type Assignment, type AssignOptions, VirtualMachine } from './vm.ts';

const RAM = 0x40_0000;

interface Bed {
  readonly host: Host;
  readonly vm: VirtualMachine;
  readonly guest: GuestDriver;
  readonly device: AssignedDevice;
  readonly assignment: Assignment;
  /** The guest writes one of the bell's registers. */
  write(register: number, value: number): void;
  read(register: number): number;
  settle(): void;
}

function bed(
  preset: PresetName,
  map: GuestMap,
  { boot, assign, bell }: { boot?: BootOptions; assign?: AssignOptions; bell?: DeviceOptions } = {},
): Bed {
  const spec = defineMachine(presetInput(preset));
  const host = bootLinux(new Machine(spec, (name, options) => createDevice(name, { ...options, ...bell })), boot);
  const { process, kernel } = host.process();
  const vm = VirtualMachine.create(kernel, { map, guestPort: host.kvm.guestPort(process) });
  const assignment = vm.assign(PRESET_DEVICE, assign);
  const { device } = assignment;
  const guest = GuestDriver.start(vm);
  guest.enableDevice(device);
  const bar0 = (): number => (vm.configRead(device.guestId, Header.BAR0, 4) & ~0xf) >>> 0;
  return {
    host,
    vm,
    guest,
    device,
    assignment,
    write: (register, value) => {
      vm.mmioWrite(bar0() + register, 4, value);
      kernel.settle();
    },
    read: (register) => vm.mmioRead(bar0() + register, 4) ?? -1,
    settle: () => kernel.settle(),
  };
}

describe('a device in a guest, from its register to the guest CPU', () => {
  it('MSI-X with an ITS on both sides: the doorbell is where the guest has its own', () => {
    const { assignment, guest, device, write, host, vm } = bed('arm-its', virtMap({ ram: RAM }));
    expect(assignment.doorbell).toMatchObject({ rule: 'guest', iova: 0x0809_0000 });
    expect(assignment.unreachable).toEqual([]);
    const vectors = guest.enableMsix(device, 4);
    for (let i = 0; i < 4; i++) for (let n = 0; n <= i; n++) write(BellRegister.RING, i);
    expect([0, 1, 2, 3].map((i) => vectors.count(i))).toEqual([1, 2, 3, 4]);
    expect(device.device.doorbell.get(0).address).toBe(0x0809_0040);
    const { ledger } = host.machine.tap;
    expect(ledger[Count.SENT]).toBe(10);
    expect(ledger[Count.DELIVERED]).toBe(10);
    expect(device.warnings).toEqual([]);
    vm.close();
  });

  it('EBUSY for a device that the guest has already, which goes on working', () => {
    const { guest, device, write, vm, host } = bed('arm-its', virtMap({ ram: RAM }));
    const vectors = guest.enableMsix(device, 2);
    expect(() => vm.assign(PRESET_DEVICE)).toThrow(/EBUSY: 0000:01:00.0 is in slot 1 of the guest already/);
    expect(() => vm.assign('0000:09:00.0', { slot: 40 })).toThrow(/EINVAL: slot 40: a guest's bus has 1 to 31/);
    write(BellRegister.RING, 1);
    expect(vectors.count(1)).toBe(1);
    vm.close();
    expect(host.machine.tap.ledger[Count.PENDING]).toBe(0);
  });

  it('what the kernel refuses while a VM closes keeps nothing open', () => {
    const { device, vm, host } = bed('arm-its', virtMap({ ram: RAM }));
    device.device.intx.request('trigger', 0, { fds: [-1] });
    device.device.intx.request('trigger', 0, { count: 0 });
    vm.close();
    const { kernel } = host.process();
    const again = openDevice(kernel, PRESET_DEVICE);
    expect(again.info().pci).toBe(true);
    again.close();
  });

  it('masked in the guest: pending in the guest’s bits, then delivered', () => {
    const { guest, device, write, settle, host } = bed('arm-its', virtMap({ ram: RAM }));
    const vectors = guest.enableMsix(device, 2);
    vectors.mask(1);
    write(BellRegister.RING, 1);
    write(BellRegister.RING, 1);
    expect(vectors.count(1)).toBe(0);
    vectors.unmask(1);
    settle();
    expect(vectors.count(1)).toBe(1);
    write(BellRegister.RING, 1);
    expect(vectors.count(1)).toBe(2);
    const { sent, ended } = balance(host.machine.tap.ledger);
    expect(ended).toBe(sent);
  });

  it('off, and on again with more vectors', () => {
    const { guest, device, write } = bed('arm-its', virtMap({ ram: RAM }));
    const first = guest.enableMsix(device, 1);
    write(BellRegister.RING, 0);
    first.disable();
    write(BellRegister.RING, 0);
    const second = guest.enableMsix(device, 8);
    write(BellRegister.RING, 7);
    expect(second.count(7)).toBe(1);
    expect(device.warnings).toEqual([]);
  });

  it('MSI alone: no line to fall back to, and disabling it is fine', () => {
    const { guest, device, write } = bed('arm-its', virtMap({ ram: RAM }), { bell: { msix: 0, intx: false, msi: 4 } });
    expect(device.intx).toBeNull();
    const vectors = guest.enableMsi(device, 4);
    write(BellRegister.RING, 2);
    expect(vectors.count(2)).toBe(1);
    vectors.disable();
    const again = guest.enableMsi(device, 1);
    write(BellRegister.RING, 0);
    expect(again.count(0)).toBe(1);
    expect(device.warnings).toEqual([]);
  });

  it('INTx: level, resampled at each end of interrupt', () => {
    const run = bed('arm-its', virtMap({ ram: RAM }));
    const { guest, device, write } = run;
    let left = 3;
    const line = guest.enableIntx(device, () => {
      // The device stays asserted for two more interrupts: the host must see it again at each end.
      left--;
      if (left === 0) write(BellRegister.LINE, 0);
    });
    write(BellRegister.LINE, 1);
    run.settle();
    expect(left).toBe(0);
    expect(line.count(0)).toBe(3);
    const { sent, ended } = balance(run.host.machine.tap.ledger);
    expect(ended).toBe(sent);
  });

  it('a GICv2m frame in the guest', () => {
    const { assignment, guest, device, write } = bed('arm-its', virtMap({ ram: RAM, msi: 'v2m' }));
    expect(assignment.doorbell).toMatchObject({ rule: 'guest', iova: 0x0802_0000 });
    const vectors = guest.enableMsix(device, 3);
    write(BellRegister.RING, 2);
    expect(vectors.count(2)).toBe(1);
  });

  it('the guest’s own write to its GICv2m frame raises the SPI; others do nothing', () => {
    const { guest, vm, settle } = bed('arm-its', virtMap({ ram: RAM, msi: 'v2m' }));
    const [interrupt] = guest.controller.allocateMsis(8, 1);
    expect(vm.mmioRead(0x0802_0008, 4)).toBe((80 << 16) | 64);
    for (const spi of [interrupt.intid, 79, 144, interrupt.intid + 1]) vm.mmioWrite(0x0802_0040, 4, spi);
    settle();
    expect(guest.unexpected).toBe(1);
  });

  it('a reset of the guest: everything off, the line on, and the next driver finds a device that works', () => {
    const { guest, device, write } = bed('arm-its', virtMap({ ram: RAM }));
    guest.enableMsix(device, 2);
    device.reset();
    expect(device.msix?.flags).toBe(31);
    expect(device.intx?.enabled).toBe(true);
    const vectors = guest.enableMsix(device, 3);
    write(BellRegister.RING, 2);
    expect(vectors.count(2)).toBe(1);
    expect(device.warnings).toEqual([]);
  });

  it('a GICv2m on the host, and a GICv2 guest', () => {
    const { guest, device, write } = bed('arm-v2m', virtMap({ ram: RAM, gic: 2, msi: 'v2m' }), {
      boot: { allowUnsafeInterrupts: true },
    });
    const vectors = guest.enableMsix(device, 3);
    write(BellRegister.RING, 1);
    expect(vectors.count(1)).toBe(1);
  });

  it('Linux’s own window: the guest does not notice', () => {
    const { assignment, guest, device, write } = bed('arm-its', virtMap({ ram: RAM }), { boot: { abi: 'linux-7.2' } });
    expect(assignment.doorbell).toMatchObject({ rule: 'window', iova: 0x0800_0000 });
    const vectors = guest.enableMsix(device, 1);
    write(BellRegister.RING, 0);
    expect(vectors.count(0)).toBe(1);
  });

  it('guest memory over the kernel’s window: the device reaches the rest, and what it cannot reach is said', () => {
    const map: GuestMap = {
      ...virtMap(),
      ram: [
        { base: 0x4000_0000, size: RAM },
        { base: 0x0800_0000, size: 0x20_0000 },
      ],
      interrupts: {
        type: 'gic',
        version: 3,
        distributor: 0x0a00_0000,
        redistributors: 0x0a10_0000,
        its: 0x0b00_0000,
      },
    };
    const { assignment, guest, device, write } = bed('arm-its', map);
    expect(assignment.doorbell).toMatchObject({ rule: 'guest', iova: 0x0b01_0000 });
    expect(assignment.unreachable).toEqual([{ base: 0x0800_0000, size: 0x10_0000 }]);
    const vectors = guest.enableMsix(device, 1);
    write(BellRegister.RING, 0);
    expect(vectors.count(0)).toBe(1);
  });

  it('every hop can be seen, in order', () => {
    const { guest, device, write, host } = bed('arm-its', virtMap({ ram: RAM }));
    guest.enableMsix(device, 1);
    const hops: Hop[] = [];
    host.machine.tap.observer = { hop: (hop) => hops.push(hop) };
    write(BellRegister.RING, 0);
    expect(hops.map(({ at }) => at)).toEqual([
      'device',
      'iommu',
      'controller',
      'irq',
      'eventfd',
      'irqfd',
      'guest-controller',
      'guest-cpu',
      'guest-cpu',
    ]);
    expect(hops[5]).toEqual({ at: 'irqfd', gsi: 256, address: 0x0809_0040, data: 0, deviceId: device.guestId });
    expect(hops[6]).toEqual({ at: 'guest-controller', name: 'vgic-v3', intid: 8192, cpu: 0, state: 'sent' });
  });

  it.each(['close', 'kill'])('%s: nothing stays allocated, and the ledger balances', (how) => {
    const { guest, device, write, host, vm } = bed('arm-its', virtMap({ ram: RAM }));
    const vectors = guest.enableMsix(device, 4);
    write(BellRegister.RING, 1);
    vectors.mask(2);
    write(BellRegister.RING, 2);
    // This one stays at the guest's controller: nobody settles, so the guest is not told.
    vm.mmioWrite(((vm.configRead(device.guestId, Header.BAR0, 4) & ~0xf) >>> 0) + BellRegister.RING, 4, 3);
    expect(host.machine.tap.ledger[Count.PENDING]).toBe(2);
    if (how === 'close') vm.close();
    else for (const process of [...host.kernel.processes.values()]) host.kernel.exit(process);
    const { ledger } = host.machine.tap;
    expect(balance(ledger).ended).toBe(balance(ledger).sent);
    expect(ledger[Count.PENDING]).toBe(0);
    // The kernel keeps what it allocated for the device once; another VM takes no more.
    const used = host.machine.memory.allocated;
    const { process, kernel } = host.process();
    const second = VirtualMachine.create(kernel, { map: virtMap({ ram: RAM }) });
    second.assign(PRESET_DEVICE);
    host.kernel.exit(process);
    if (how === 'kill') expect(host.machine.memory.allocated).toBe(used);
  });

  it('a guest that writes nonsense gets warnings, never an exception', () => {
    const { guest, device, vm } = bed('arm-its', virtMap({ ram: RAM }));
    guest.enableMsix(device, 1);
    for (let offset = 0; offset < 256; offset++) {
      for (const size of [1, 2, 4]) vm.configWrite(device.guestId, offset, size, 0xffff_ffff);
      vm.configRead(device.guestId, offset, 4);
    }
    for (const { base, size } of device.bars.places) {
      for (const offset of [0, 1, size - 4, size - 1]) {
        vm.mmioWrite(base + offset, 4, 0xffff_ffff);
        vm.mmioRead(base + offset, 4);
      }
    }
    expect(vm.mmioRead(0x1_0000, 4)).toBeNull();
    expect(vm.configRead(0xf8, 0, 4)).toBe(0xffff_ffff);
  });
});
