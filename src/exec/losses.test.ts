import { describe, expect, it } from 'vitest';
import { createDevice } from '../devices/index.ts';
import { bootLinux } from '../kernel/boot/boot.ts';
import { Machine } from '../machine/machine.ts';
import { preset } from '../machine/presets.ts';
import { Count, Loss } from '../ports/ledger.ts';
import type { Hop, HopObserver } from '../ports/tap.ts';
import { Losses } from './losses.ts';
import { watched } from './watched-function.ts';

function bed(options: { vfs?: number } = {}) {
  const losses = new Losses(true);
  const spec = preset('arm-its');
  const below = [{ at: '00.0', kind: 'function' as const, device: 'bell', options }];
  const slots = [{ at: '01.0', kind: 'root-port' as const, acs: true, below }];
  const machine = new Machine({ ...spec, pci: { ...spec.pci, slots } }, (device, given) =>
    watched(createDevice(device, given), losses.watch),
  );
  losses.tap = machine.tap;
  const host = bootLinux(machine, { abi: 'linux-7.2' });
  const fn = machine.pci.functions[0]!;
  /** RING is at 4 of BAR 0; COMMAND 6 decodes memory and masters the bus. */
  const ring = (vector: number): void => {
    fn.configWrite(0x04, 2, 6);
    machine.bus.write32(host.pciDevices.find(({ name }) => name === '0000:01:00.0')!.resources[0]!.base + 4, vector);
  };
  return { losses, machine, host, fn, ring };
}

describe('losses', () => {
  it('are told once, alike ones together, with the device, the vector, and what helps', () => {
    const { losses, ring } = bed();
    ring(1);
    ring(1);
    ring(0);
    const told = losses.take();
    expect(told.map(({ count, vector, loss, device }) => [count, vector, loss, device])).toEqual([
      [2, 1, 'NOT_ENABLED', '0000:01:00.0'],
      [1, 0, 'NOT_ENABLED', '0000:01:00.0'],
    ]);
    expect(told[0]?.hint).toContain('VFIO_DEVICE_SET_IRQS');
    expect(losses.take()).toEqual([]);
  });

  it('beyond sixteen kinds are counted by their reason', () => {
    const { losses, machine, ring } = bed();
    for (let vector = 0; vector < 40; vector += 1) ring(vector);
    const told = losses.take();
    expect(told).toHaveLength(17);
    expect(told.at(-1)).toMatchObject({ count: 24, loss: 'NOT_ENABLED', device: null, vector: null });
    expect(told.reduce((sum, { count }) => sum + count, 0)).toBe(machine.tap.ledger[Count.LOST + Loss.NOT_ENABLED]);
  });

  it('that nobody saw are told from the ledger', () => {
    const { losses, machine } = bed();
    machine.tap.ledger[Count.LOST + Loss.TORN_DOWN]! += 3;
    expect(losses.take()).toMatchObject([{ count: 3, loss: 'TORN_DOWN', device: null }]);
    expect(losses.take()).toEqual([]);
  });
});

describe('a watched model', () => {
  it('is observed while it raises, and at no other time; who observes already sees everything', () => {
    const { losses, machine, ring } = bed();
    expect(machine.tap.observer).toBe(null);
    ring(0);
    expect(machine.tap.observer).toBe(null);
    const hops: Hop['at'][] = [];
    const trace: HopObserver = { hop: ({ at }) => void hops.push(at) };
    machine.tap.observer = trace;
    ring(0);
    expect(machine.tap.observer).toBe(trace);
    expect(hops).toEqual(['device', 'lost']);
    expect(losses.take()).toMatchObject([{ count: 2 }]);
  });

  it('makes virtual functions only when its model does', () => {
    const { fn } = bed({ vfs: 2 });
    expect(fn.model.virtualFunction?.(0).spec.name).toBe(
      createDevice('bell', { vfs: 2 }).virtualFunction?.(0).spec.name,
    );
    expect(watched(createDevice('edu', {}), (act) => act()).virtualFunction).toBe(undefined);
  });
});
