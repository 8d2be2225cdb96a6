import { describe, expect, it } from 'vitest';
import { Status } from '../../ports/transaction.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import { IommuGroups } from './groups.ts';
import { smmuHost } from './testing.ts';

type Kind =
  | 'root-port'
  | 'upstream'
  | 'downstream'
  | 'pcie-bridge'
  | 'pci-bridge'
  | 'endpoint'
  | 'integrated'
  | 'conventional';
const EXPRESS: Readonly<Record<Kind, number>> = {
  endpoint: 0,
  'root-port': 4,
  upstream: 5,
  downstream: 6,
  'pcie-bridge': 7,
  integrated: 9,
  'pci-bridge': -1,
  conventional: -1,
};

/** A device with the registers that topology is made of: header type, secondary bus, express and ACS capabilities. */
function fake(
  name: string,
  kind: Kind,
  options: { parent?: PciDev; acs?: boolean; secondary?: number; multifunction?: boolean } = {},
): PciDev {
  const [bus, rest] = name.split(':');
  const [device, fn] = rest.split('.');
  const address = {
    segment: 0,
    bus: Number.parseInt(bus, 16),
    device: Number.parseInt(device, 16),
    function: Number(fn),
  };
  const config = new DataView(new ArrayBuffer(0x110));
  config.setUint8(0xe, options.multifunction ? 0x80 : 0);
  config.setUint8(0x19, options.secondary ?? 0);
  if (EXPRESS[kind] >= 0) config.setUint16(0x42, (EXPRESS[kind] << 4) | 2, true);
  // SV, TB, RR, CR, UF are offered, and off until the kernel turns them on.
  config.setUint16(0x104, 0x1f, true);
  const read = (offset: number, size: number) =>
    size === 1 ? config.getUint8(offset) : size === 2 ? config.getUint16(offset, true) : config.getUint32(offset, true);
  return {
    address,
    name: `0000:${name}`,
    requester: (address.bus << 8) | (address.device << 3) | address.function,
    parent: options.parent ?? null,
    vendorId: 0x1b36,
    deviceId: 1,
    classCode: 0,
    configSize: 4096,
    isBridge: options.secondary !== undefined,
    configRead: read,
    configWrite: (offset, _size, value) => config.setUint16(offset, value, true),
    capability: (id) => (id === 0x10 && EXPRESS[kind] >= 0 ? 0x40 : 0),
    extendedCapability: (id) => (id === 0xd && options.acs ? 0x100 : 0),
    resources: [],
    irq: 0,
    driver: null,
    driverOverride: null,
    iommuGroup: null,
    enable: () => 0,
    disable: () => {},
    setMaster: () => {},
    clearMaster: () => {},
    canReset: true,
    tryReset: () => 0,
  };
}

function numbers(devices: PciDev[]): number[] {
  const { context, driver } = smmuHost();
  const groups = new IommuGroups(context, driver);
  expect(groups.addAll(devices)).toBe(0);
  return devices.map((dev) => dev.iommuGroup?.id ?? -1);
}

/** A root port, a switch, and two endpoints below it. */
function switched(rootAcs: boolean, downstreamAcs: boolean): PciDev[] {
  const root = fake('00:01.0', 'root-port', { acs: rootAcs, secondary: 1 });
  const up = fake('01:00.0', 'upstream', { parent: root, secondary: 2 });
  const downA = fake('02:00.0', 'downstream', { parent: up, acs: downstreamAcs, secondary: 3 });
  const a = fake('03:00.0', 'endpoint', { parent: downA });
  const downB = fake('02:01.0', 'downstream', { parent: up, acs: downstreamAcs, secondary: 4 });
  const b = fake('04:00.0', 'endpoint', { parent: downB });
  return [root, up, downA, a, downB, b];
}

function conventional(kind: 'pcie-bridge' | 'pci-bridge', acs = true): PciDev[] {
  const root = fake('00:01.0', 'root-port', { acs, secondary: 1 });
  const parent = kind === 'pcie-bridge' ? { parent: root } : {};
  const bridge = fake(kind === 'pcie-bridge' ? '01:00.0' : '00:1e.0', kind, { ...parent, secondary: 5 });
  return [
    root,
    bridge,
    fake('05:01.0', 'conventional', { parent: bridge }),
    fake('05:02.0', 'conventional', { parent: bridge }),
  ];
}

describe('IommuGroups', () => {
  const rootWith = (acs: boolean): PciDev[] => {
    const root = fake('00:01.0', 'root-port', { acs, secondary: 1 });
    return [root, fake('01:00.0', 'endpoint', { parent: root })];
  };
  const functions = (acs: boolean): PciDev[] =>
    [0, 2, 3].map((fn) => fake(`00:1f.${fn}`, 'integrated', { acs, multifunction: true }));

  it.each<[string, PciDev[], number[]]>([
    [
      'the lab: conventional functions on the root bus',
      [fake('00:00.0', 'conventional'), fake('00:05.0', 'conventional')],
      [0, 1],
    ],
    ['an endpoint below a root port with ACS', rootWith(true), [0, 1]],
    ['an endpoint below a root port without ACS', rootWith(false), [0, 0]],
    ['functions of one slot without ACS', functions(false), [0, 0, 0]],
    ['functions of one slot with ACS', functions(true), [0, 1, 2]],
    [
      'single-function neighbours on the root bus',
      [fake('00:02.0', 'integrated'), fake('00:03.0', 'integrated')],
      [0, 1],
    ],
    ['a switch with ACS everywhere', switched(true, true), [0, 1, 2, 3, 4, 5]],
    ['a switch whose downstream ports lack ACS', switched(true, false), [0, 1, 2, 2, 3, 3]],
    ['a switch below a root port without ACS', switched(false, true), [0, 0, 0, 0, 0, 0]],
    ['conventional devices behind a PCIe-to-PCI bridge', conventional('pcie-bridge'), [0, 1, 1, 1]],
    ['the same below a root port without ACS', conventional('pcie-bridge', false), [0, 0, 0, 0]],
    ['conventional devices behind a conventional bridge', conventional('pci-bridge'), [0, 1, 1, 1]],
  ])('%s', (_, devices, expected) => {
    expect(numbers(devices)).toEqual(expected);
  });

  it('attaches the bridge’s alias with the device behind it', () => {
    const { context, driver, dma } = smmuHost();
    const groups = new IommuGroups(context, driver);
    const devices = conventional('pcie-bridge');
    groups.addAll(devices);
    const group = groups.byId(1)!;
    expect(group.attach(driver.identity)).toBe(0);
    // 05:00.0 is nobody's function: the bridge takes ownership with it.
    expect(dma(0x500, 0x1234)).toBe(Status.OK);
    expect(dma(0x508, 0x1234)).toBe(Status.OK);
    expect(dma(0x08, 0x1234)).toBe(Status.FAULT);
  });
});

describe('PciIommuGroup', () => {
  function one(reserved: Parameters<typeof smmuHost>[0] = {}, bound: { driver: boolean } = { driver: false }) {
    const host = smmuHost(reserved);
    const fresh: number[] = [];
    const groups = new IommuGroups(host.context, host.driver, {
      isBoundToHostDriver: () => bound.driver,
      onDefaultDomain: ({ id }) => fresh.push(id),
    });
    const dev = fake('00:05.0', 'conventional');
    groups.addAll([dev]);
    return { ...host, groups, dev, fresh, group: groups.groups[0] };
  }

  it('starts in an empty DMA domain that translates nothing', () => {
    const { group, dma } = one();
    expect(group.domain).toBe(group.defaultDomain);
    expect(group.defaultDomain.type).toBe('dma');
    expect(dma(0x28, 0x1000)).toBe(Status.FAULT);
  });

  it('gives ownership once, and blocks silently until something is attached', () => {
    const { group, driver, dma } = one();
    const me = {};
    expect(group.claimDmaOwner(me)).toBe(0);
    expect(group.claimDmaOwner(me)).toBe(-1);
    expect(group.claimDmaOwner({})).toBe(-1);
    expect(group.domain).toBe(driver.blocked);
    expect(dma(0x28, 0x1000)).toBe(Status.ABORT);
    group.releaseDmaOwner();
    expect(group.domain).toBe(group.defaultDomain);
    expect(group.dmaOwner).toBeNull();
  });

  it('EPERM while a host driver is bound comes before EBUSY', () => {
    const bound = { driver: true };
    const { group, driver } = one({}, bound);
    group.attach(driver.identity);
    expect(group.claimDmaOwner({})).toBe(-1);
    bound.driver = false;
    expect(group.claimDmaOwner({})).toBe(-16);
    group.detach();
    expect(group.claimDmaOwner({})).toBe(0);
  });

  it('attach: EBUSY outside the default and the blocking domain, before EINVAL for a foreign one', () => {
    const { group, driver } = one();
    const foreign = smmuHost().driver.allocate(0x28);
    const mine = driver.allocate(0x28);
    if (typeof foreign === 'number' || typeof mine === 'number') throw new Error('allocate');
    expect(group.attach(foreign)).toBe(-22);
    expect(group.claimDmaOwner({})).toBe(0);
    expect(group.attach(mine)).toBe(0);
    expect(group.attach(foreign)).toBe(-16);
    expect(group.canShare(mine)).toBe(true);
    expect(group.canShare(foreign)).toBe(false);
    group.detach();
    expect(group.domain).toBe(driver.blocked);
  });

  it('replace keeps the old domain when it fails', () => {
    const { group, driver } = one();
    const a = driver.allocate(0x28);
    const foreign = smmuHost().driver.allocate(0x28);
    if (typeof a === 'number' || typeof foreign === 'number') throw new Error('allocate');
    group.claimDmaOwner({});
    group.attach(a);
    expect(group.replace(foreign)).toBe(-22);
    expect(group.domain).toBe(a);
  });

  it('lets one owner claim device by device', () => {
    const { group } = one();
    const me = {};
    expect(group.claimDeviceDmaOwner(me)).toBe(0);
    expect(group.claimDeviceDmaOwner(me)).toBe(0);
    expect(group.claimDeviceDmaOwner({})).toBe(-1);
    group.releaseDeviceDmaOwner();
    expect(group.dmaOwner).toBe(me);
    group.releaseDeviceDmaOwner();
    expect(group.dmaOwner).toBeNull();
  });

  it('cannot take a device that firmware wants mapped 1:1, which works for the host meanwhile', () => {
    const { group, dma, pa, context } = one({ reserved: [{ start: 0x9000_0000, end: 0x9000_1fff, type: 'direct' }] });
    expect(dma(0x28, 0x9000_1010)).toBe(Status.OK);
    expect(pa()).toBe(0x9000_1010);
    expect(group.claimDmaOwner({})).toBe(-22);
    expect(context.refusals.last?.why).toMatch(/firmware has requested/);
    const relaxed = one({ reserved: [{ start: 0x9000_0000, end: 0x9000_1fff, type: 'direct-relaxable' }] });
    expect(relaxed.dma(0x28, 0x9000_1010)).toBe(Status.OK);
    expect(relaxed.group.claimDmaOwner({})).toBe(0);
  });

  it('is isolated when every device is', () => {
    const { groups, group } = one();
    expect(group.hasIsolatedMsi()).toBe(false);
    groups.setMsiIsolated(() => true);
    expect(group.hasIsolatedMsi()).toBe(true);
  });

  it('changes its default domain unless it is taken, and gives memory back', () => {
    const { group, groups, driver, dma, context, dev, fresh } = one();
    expect(group.changeDefault('identity')).toBe(0);
    expect(dma(0x28, 0x1000)).toBe(Status.OK);
    group.claimDmaOwner({});
    expect(group.changeDefault('dma')).toBe(-1);
    group.releaseDmaOwner();
    expect(group.domain).toBe(driver.identity);
    const before = context.memory.allocated;
    expect(fresh).toEqual([]);
    expect(group.changeDefault('dma')).toBe(0);
    expect(fresh).toEqual([0]);
    groups.remove(dev);
    expect(groups.groups).toEqual([]);
    expect(context.memory.allocated).toBe(before);
    expect(dma(0x28, 0x1000)).toBe(Status.ABORT);
  });
});
