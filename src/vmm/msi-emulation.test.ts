import { describe, expect, it } from 'vitest';
import { Msi, MsiFlags } from '../arch/pci/msi.ts';
import { type GuestInterrupt, startController } from './guest-controller.ts';
import { type GuestMap, q35Map, virtMap } from './guest-map.ts';
import { MsiEmulation } from './msi-emulation.ts';
import { balance, FakeHost } from './testing/fake-host.ts';
import { testVm } from './testing/test-guest.ts';

const RAM = 0x20_0000;
/** Eight messages, 64-bit addresses, per-vector masks. */
const FLAGS = MsiFlags.ADDRESS_64 | MsiFlags.PER_VECTOR_MASK | (3 << MsiFlags.CAPABLE_SHIFT);

function bench(map: GuestMap, available = 8) {
  const { vm, client, ledger } = testVm(map);
  const host = new FakeHost(client.process, ledger, 8, false, available);
  const warnings: string[] = [];
  const modes: boolean[] = [];
  const cpu = vm.attachCpu(0, () => {});
  const controller = startController(vm, [cpu]);
  const msi = new MsiEmulation({
    kvm: vm.kvm,
    routes: vm.routes,
    host,
    flags: FLAGS,
    devid: 8,
    onMode: (on) => modes.push(on),
    warn: (text) => warnings.push(text),
  });
  const acknowledge = (): number => {
    const intid = cpu.acknowledge();
    cpu.endOfInterrupt(intid);
    return intid;
  };
  const program = ({ message }: GuestInterrupt): void => {
    msi.write(Msi.ADDRESS_LO, 4, message.address);
    msi.write(Msi.ADDRESS_HI, 4, 0);
    msi.write(12, 2, message.data);
  };
  return { vm, host, warnings, modes, msi, acknowledge, program, controller, ledger };
}

const maps: [string, GuestMap][] = [
  ['ITS', virtMap({ ram: RAM })],
  ['GICv2m', virtMap({ ram: RAM, msi: 'v2m' })],
  ['x86', q35Map({ ram: RAM })],
];

describe.each(maps)('MSI of a guest with %s', (_, map) => {
  it('all vectors with one request; the number is in the low bits of the data; off closes the way', () => {
    const { msi, host, modes, program, controller, acknowledge, ledger, vm } = bench(map);
    const interrupts = controller.allocateMsis(8, 4);
    program(interrupts[0]);
    msi.write(Msi.FLAGS, 2, MsiFlags.ENABLE | (2 << MsiFlags.ENABLED_SHIFT));
    expect(host.log).toEqual(['program 0 [eeee]']);
    for (const i of [2, 0, 3, 1]) {
      host.fire(i);
      expect(acknowledge()).toBe(interrupts[i].intid);
    }
    msi.write(Msi.FLAGS, 2, 0);
    host.fire(0);
    expect(acknowledge()).toBe(1023);
    expect(modes).toEqual([true, false]);
    expect(balance(ledger).sent).toBe(balance(ledger).ended);
    vm.close();
  });

  it('a short answer is retried with that number', () => {
    const { msi, host, warnings, program, controller, acknowledge, vm } = bench(map, 2);
    const interrupts = controller.allocateMsis(8, 8);
    program(interrupts[0]);
    msi.write(Msi.FLAGS, 2, MsiFlags.ENABLE | (3 << MsiFlags.ENABLED_SHIFT));
    expect(host.log).toEqual(['program 0 [eeeeeeee]', 'program 0 [ee]']);
    expect(warnings).toEqual(["MSI: the host has 2 of 8 vectors; the guest's others cannot fire"]);
    expect(msi.allocated).toBe(2);
    host.fire(1);
    expect(acknowledge()).toBe(interrupts[1].intid);
    vm.close();
  });

  it('a new message while MSI is on changes the route', () => {
    const { msi, host, program, controller, acknowledge, vm } = bench(map);
    const [first, second] = controller.allocateMsis(8, 2);
    program(first);
    msi.write(Msi.FLAGS, 2, MsiFlags.ENABLE);
    program(second);
    host.fire(0);
    expect(acknowledge()).toBe(second.intid);
    vm.close();
  });
});

describe('the capability as the guest sees it', () => {
  it('only enable and the number of messages are writable, the latter up to eight', () => {
    const { msi, vm } = bench(virtMap({ ram: RAM }));
    msi.write(Msi.FLAGS, 2, 0xffff & ~MsiFlags.ENABLE);
    expect(msi.read(Msi.FLAGS, 2)).toBe(FLAGS | (3 << MsiFlags.ENABLED_SHIFT));
    vm.close();
  });
});
