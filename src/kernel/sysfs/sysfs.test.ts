import { describe, expect, it } from 'vitest';
import { SimKernelClient } from '../client.ts';
import { SimKernel } from '../kernel.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import { hostDriver, PciDrivers, vfioPciDriver } from '../pci-drivers.ts';
import { testContext } from '../test-context.ts';
import { ARM_WINDOW, TestGroup, TestOps, testDevice, testUnit } from '../vfio/test-host.ts';
import { getDevice, setContainer } from '../vfio/test-requests.ts';
import { Vfio } from '../vfio/vfio-main.ts';
import { mountSysfs } from './index.ts';

const NVME = '0000:01:00.0';
const PCI = '/sys/bus/pci';

/** A root port 0000:00:01.0 with an NVMe controller below it, bound to the host's driver; and an endpoint without a driver. */
function setUp() {
  const context = testContext();
  const kernel = new SimKernel(context);
  const vfio = new Vfio(kernel);
  const events: string[] = [];
  const groups = [0, 1, 2].map((id) => new TestGroup(id, testUnit(), events));
  const port: PciDev = { ...testDevice('0000:00:01.0', groups[0]), isBridge: true, classCode: 0x060400, driver: null };
  const nvme: PciDev = {
    ...testDevice(NVME, groups[1]),
    parent: port,
    driver: null,
    irq: 36,
    resources: [
      { index: 0, kind: 'memory', base: 0x80_0000_0000, size: 0x4000, is64: true, prefetchable: false },
      { index: 2, kind: 'io', base: 0x1000, size: 0x20, is64: false, prefetchable: false },
      { index: 6, kind: 'rom', base: 0x1000_0000, size: 0x800, is64: false, prefetchable: false },
    ],
  };
  const spare: PciDev = { ...testDevice('0000:00:02.0', groups[2]), driver: null, deviceId: 0x0022 };
  groups[1].devices.splice(0, 1, nvme);
  groups[2].devices.splice(0, 1, spare);
  const core = new PciDrivers(context, [port, nvme, spare]);
  core.register(hostDriver('nvme', (dev) => dev.classCode === 0x010802 && dev.deviceId === 0x0010));
  const ops: TestOps[] = [];
  core.register(
    vfioPciDriver(context, vfio, (dev) => {
      ops.push(new TestOps(dev.name, events, context));
      return ops[ops.length - 1];
    }),
  );
  mountSysfs(kernel, { core, vfio, cpus: 4, groups: () => groups, iommu: 'dmar0' });
  const client = new SimKernelClient(kernel);
  const write = (path: string, text: string): number => {
    const fd = client.open(path, 'rw');
    if (fd < 0) return fd;
    const result = client.pwrite(fd, new TextEncoder().encode(text), 0);
    client.close(fd);
    return result;
  };
  return { context, kernel, client, write, vfio, groups, core, nvme, port, spare, ops };
}

describe('/sys', () => {
  it('shows a device as pci-sysfs does', () => {
    const { client } = setUp();
    const read = (name: string) => client.readText(`${PCI}/devices/${NVME}/${name}`);
    expect(read('vendor')).toBe('0x1b36\n');
    expect(read('device')).toBe('0x0010\n');
    expect(read('class')).toBe('0x010802\n');
    expect(read('irq')).toBe('36\n');
    expect(read('driver_override')).toBe('(null)\n');
    expect(read('modalias')).toBe('pci:v00001B36d00000010sv00000000sd00000000bc01sc08i02\n');
    expect(read('resource')).toBe(
      [
        '0x0000008000000000 0x0000008000003fff 0x0000000000140204',
        '0x0000000000000000 0x0000000000000000 0x0000000000000000',
        '0x0000000000001000 0x000000000000101f 0x0000000000040101',
        ...Array(3).fill('0x0000000000000000 0x0000000000000000 0x0000000000000000'),
        '0x0000000010000000 0x00000000100007ff 0x0000000000046200',
        '',
      ].join('\n'),
    );
    expect(read('local_cpus')).toBe('f\n');
    expect(read('nothing')).toBeNull();
  });

  it('links through the device tree: devices lie below their bridges', () => {
    const { client } = setUp();
    expect(client.list(`${PCI}/devices`)).toEqual(['0000:00:01.0', '0000:00:02.0', NVME]);
    expect(client.readLink(`${PCI}/devices/${NVME}`)).toBe(`../../../devices/pci0000:00/0000:00:01.0/${NVME}`);
    expect(client.readLink(`${PCI}/devices/${NVME}/iommu_group`)).toBe('../../../../kernel/iommu_groups/1');
    expect(client.readLink(`${PCI}/devices/${NVME}/driver`)).toBe('../../../../bus/pci/drivers/nvme');
    expect(client.list(`${PCI}/devices/${NVME}/iommu_group/devices`)).toEqual([NVME]);
    expect(client.readLink(`${PCI}/devices/0000:00:02.0/driver`)).toBeNull();
  });

  it('shows the config space as bytes', () => {
    const { client } = setUp();
    const fd = client.open(`${PCI}/devices/${NVME}/config`, 'r');
    const bytes = new Uint8Array(300);
    expect(client.pread(fd, bytes, 0)).toBe(256);
    expect(client.pread(fd, bytes, 250)).toBe(6);
  });

  // drivers/pci/pci-sysfs.c pci_write_config; setpci goes this way.
  it('writes the config space where it stands, cut off at its end', () => {
    const { client, nvme } = setUp();
    const written: string[] = [];
    Object.assign(nvme, {
      configWrite: (at: number, size: number, value: number) =>
        written.push(`${at.toString(16)}/${size}=${(value >>> 0).toString(16)}`),
    });
    const fd = client.open(`${PCI}/devices/${NVME}/config`, 'rw');
    expect(client.pwrite(fd, Uint8Array.of(6, 0), 4)).toBe(2);
    expect(client.pwrite(fd, Uint8Array.of(1, 2, 3, 4, 5, 6, 0xf7, 8), 0xb1)).toBe(8);
    expect(written).toEqual(['4/2=6', 'b1/1=1', 'b2/2=302', 'b4/4=f7060504', 'b8/1=8']);
    expect([client.pwrite(fd, new Uint8Array(8), 252), client.pwrite(fd, new Uint8Array(4), 256)]).toEqual([4, 0]);
  });

  it('has a class of IOMMUs, with the devices behind each', () => {
    const { client } = setUp();
    expect(client.list('/sys/class/iommu')).toEqual(['dmar0']);
    expect(client.list('/sys/class/iommu/dmar0/devices')).toContain(NVME);
    expect(client.readText(`/sys/class/iommu/dmar0/devices/${NVME}/vendor`)).toBe('0x1b36\n');
  });

  it('links the module and its driver to each other', () => {
    const { client } = setUp();
    const entries = client.list('/sys/module/vfio_pci/drivers/pci:vfio-pci');
    expect(entries).toEqual(expect.arrayContaining(['bind', 'module', 'new_id']));
    expect(client.list('/sys/bus/pci/drivers/vfio-pci/module')).toEqual(['drivers', 'initstate', 'parameters']);
  });

  it('shows the SW_MSI window as msi (golden vector G1), with inclusive ends', () => {
    const { client, groups } = setUp();
    expect(client.readText('/sys/kernel/iommu_groups/1/reserved_regions')).toBe(
      '0x0000000008000000 0x00000000080fffff msi\n',
    );
    groups[1].regions = [ARM_WINDOW, { start: 0x9000_0000, end: 0x9000_ffff, type: 'direct-relaxable' }];
    expect(client.readText('/sys/kernel/iommu_groups/1/reserved_regions')).toContain(
      '0x0000000090000000 0x000000009000ffff direct-relaxable\n',
    );
    expect(client.readText('/sys/kernel/iommu_groups/1/type')).toBe('DMA\n');
  });

  it('EACCES before EINVAL before EPERM: writing the type of a group', () => {
    const { client, write, nvme } = setUp();
    const path = '/sys/kernel/iommu_groups/1/type';
    client.process.credentials.capabilities.delete('CAP_SYS_RAWIO');
    expect(write(path, 'nonsense')).toBe(-13);
    client.process.credentials.capabilities.add('CAP_SYS_RAWIO');
    expect(write(path, 'nonsense')).toBe(-22);
    expect(write(path, 'identity')).toBe(-1);
    nvme.driver = null;
    expect(write(path, 'identity')).toBe(-95);
  });

  it('moves a device from its host driver to vfio-pci, which registers it and its group', () => {
    const { client, write } = setUp();
    expect(client.list('/dev/vfio')).toEqual(['vfio']);
    expect(write(`${PCI}/drivers/vfio-pci/bind`, NVME)).toBe(-19);
    expect(write(`${PCI}/devices/${NVME}/driver_override`, 'vfio-pci\n')).toBe(9);
    expect(client.readText(`${PCI}/devices/${NVME}/driver_override`)).toBe('vfio-pci\n');
    expect(write(`${PCI}/drivers/vfio-pci/bind`, NVME)).toBe(-16);
    expect(write(`${PCI}/drivers/vfio-pci/unbind`, NVME)).toBe(-19);
    expect(write(`${PCI}/drivers/nvme/unbind`, `${NVME}\n`)).toBe(13);
    expect(write(`${PCI}/drivers_probe`, NVME)).toBe(12);
    expect(client.list(`${PCI}/drivers/vfio-pci`)).toContain(NVME);
    expect(client.list('/dev/vfio')).toEqual(['1', 'vfio']);
    expect(client.list('/sys/class/vfio-dev')).toEqual(['vfio0']);
    expect(client.list(`${PCI}/devices/${NVME}/vfio-dev`)).toEqual(['vfio0']);
    expect(client.list('/sys/class/vfio-dev/vfio0')).toEqual([]);
    expect(write(`${PCI}/drivers/vfio-pci/unbind`, NVME)).toBe(12);
    expect(client.list('/dev/vfio')).toEqual(['vfio']);
    expect(write(`${PCI}/devices/${NVME}/driver_override`, '\n')).toBe(1);
    expect(write(`${PCI}/drivers_probe`, NVME)).toBe(12);
    expect(client.readLink(`${PCI}/devices/${NVME}/driver`)).toContain('drivers/nvme');
  });

  it('EBUSY: unbinding a device that user space has open, after asking for it', () => {
    const { client, write, ops } = setUp();
    expect(write(`${PCI}/drivers/vfio-pci/new_id`, '1b36 0022')).toBe(9);
    const group = client.open('/dev/vfio/2');
    const container = client.open('/dev/vfio/vfio');
    setContainer(client, group, container);
    client.ioctl(container, 0x3b66, 3);
    const device = getDevice(client, group, '0000:00:02.0');
    expect(device).toBeGreaterThanOrEqual(0);
    expect(write(`${PCI}/drivers/vfio-pci/unbind`, '0000:00:02.0')).toBe(-16);
    expect(ops[0].requests).toBe(1);
    client.close(device);
    expect(write(`${PCI}/drivers/vfio-pci/unbind`, '0000:00:02.0')).toBe(12);
  });

  it('EBUSY: a host driver for a device whose group user space owns', () => {
    const { write, groups, spare, core } = setUp();
    core.register(hostDriver('rng', (dev) => dev === spare));
    expect(write(`${PCI}/drivers/rng/unbind`, spare.name)).toBe(12);
    groups[2].dmaOwner = {};
    expect(write(`${PCI}/drivers/rng/bind`, spare.name)).toBe(-16);
  });

  it('EINVAL: vfio-pci takes neither bridges nor devices without an IOMMU', () => {
    const { write, port, spare } = setUp();
    write(`${PCI}/devices/${port.name}/driver_override`, 'vfio-pci');
    expect(write(`${PCI}/drivers/vfio-pci/bind`, port.name)).toBe(-22);
    spare.iommuGroup = null;
    write(`${PCI}/devices/${spare.name}/driver_override`, 'vfio-pci');
    expect(write(`${PCI}/drivers/vfio-pci/bind`, spare.name)).toBe(-22);
    expect(spare.driver).toBeNull();
  });

  it('EINVAL, EEXIST, ENODEV: new_id and remove_id', () => {
    const { write, spare } = setUp();
    const vfioPci = `${PCI}/drivers/vfio-pci`;
    expect(write(`${vfioPci}/new_id`, '1b36')).toBe(-22);
    expect(write(`${PCI}/drivers/nvme/new_id`, '1b36 0010')).toBe(-17);
    expect(write(`${vfioPci}/remove_id`, '1b36 0022')).toBe(-19);
    expect(write(`${vfioPci}/new_id`, '1b36 0022\n')).toBe(10);
    expect(spare.driver).toBe('vfio-pci');
    expect(write(`${vfioPci}/new_id`, '1b36 0022')).toBe(-17);
    expect(write(`${vfioPci}/remove_id`, '1b36 0022')).toBe(9);
    expect(write(`${vfioPci}/new_id`, '0x1b36 0x0022')).toBe(13);
    expect(write(`${vfioPci}/remove_id`, '0x1b36 0x0022')).toBe(13);
  });

  it('sets module parameters with effect, and refuses what they are not', () => {
    const { client, write, context } = setUp();
    const parameters = '/sys/module/vfio_iommu_type1/parameters';
    expect(client.list(parameters)).toEqual(['allow_unsafe_interrupts', 'dma_entry_limit']);
    expect(client.readText(`${parameters}/allow_unsafe_interrupts`)).toBe('N\n');
    expect(write(`${parameters}/allow_unsafe_interrupts`, '1\n')).toBe(2);
    expect(context.modules.vfio_iommu_type1.allow_unsafe_interrupts).toBe(true);
    expect(write(`${parameters}/allow_unsafe_interrupts`, 'maybe')).toBe(-22);
    expect(write(`${parameters}/dma_entry_limit`, '0x10')).toBe(4);
    expect(client.readText(`${parameters}/dma_entry_limit`)).toBe('16\n');
    expect(write(`${parameters}/dma_entry_limit`, '-1')).toBe(-22);
  });

  it('shows the modules that programs look for', () => {
    const { client, write } = setUp();
    // DPDK takes VFIO to be there by /sys/module/vfio and /sys/module/vfio_pci.
    for (const name of ['vfio', 'vfio_pci', 'vfio_pci_core', 'vfio_iommu_type1', 'iommufd'])
      expect(client.readText(`/sys/module/${name}/initstate`), name).toBe('live\n');
    const mode = '/sys/module/vfio/parameters/enable_unsafe_noiommu_mode';
    expect([client.readText(mode), write(mode, 'N'), write(mode, 'Y')]).toEqual(['N\n', 1, -22]);
  });

  it('EACCES: attributes that an ordinary user may only read', () => {
    const { kernel } = setUp();
    const client = new SimKernelClient(kernel, kernel.createProcess({ euid: 1000 }));
    const path = '/sys/module/iommufd/parameters/allow_unsafe_interrupts';
    expect(client.open(path, 'rw')).toBe(-13);
    expect(client.open(path, 'r')).toBe(0);
    expect(client.open('/sys/nothing')).toBe(-2);
    expect(client.open('/sys/module')).toBe(-21);
  });
});
