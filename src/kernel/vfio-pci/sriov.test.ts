/** SR-IOV on a booted host: sysfs (iov.c), VFs in the hands of vfio-pci, and the token that PF and VF users share (vfio group.c). */
import { describe, expect, it } from 'vitest';
import { BELL_VF_DEVICE, BellRegister } from '../../devices/bell.ts';
import { createDevice } from '../../devices/registry.ts';
import { defineMachine } from '../../machine/define.ts';
import { Machine } from '../../machine/machine.ts';
import { type PresetName, presetInput } from '../../machine/presets.ts';
import { errnoName } from '../../uapi/errno.ts';
import * as uapi from '../../uapi/vfio.ts';
import { bootLinux } from '../boot/boot.ts';
import type { PciDevice } from '../pci/pci-device.ts';
import { s32 } from './testing/bus-host.ts';
import { named } from './testing/rig.ts';

const PF = '0000:01:00.0';
const VF0 = '0000:01:10.0';
const VF1 = '0000:01:10.1';
const SYS = '/sys/bus/pci/devices';
const UUID = '83d8f4f2-509f-382f-3c1e-e6bfe0fa1001';
const OTHER = '83d8f4f2-509f-382f-3c1e-e6bfe0fa1002';
const CONFIG = 7 * 2 ** 40;
const SET = 1 << 17;
const GET = 1 << 16;

const uuidBytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll('-', ''), 'hex'));

function setUp({
  driver = 'vfio-pci' as string | null,
  enableSriov = true,
  vfs = 4,
  preset = 'arm-its' as PresetName,
} = {}) {
  const input = presetInput(preset);
  input.pci.slots = [
    {
      at: '01.0',
      kind: 'root-port',
      acs: true,
      below: [{ at: '00.0', kind: 'function', device: 'bell', options: { vfs }, driver }],
    },
  ];
  const host = bootLinux(new Machine(defineMachine(input), createDevice));
  host.context.modules.vfio_pci.enable_sriov = enableSriov;
  const client = host.process().kernel;
  /** Why the last write of an attribute was refused. */
  let refused = '';
  const write = (path: string, text: string): string | number => {
    const fd = client.open(path);
    if (fd < 0) return errnoName(fd);
    const result = client.pwrite(fd, new TextEncoder().encode(text), 0);
    refused = client.refusal()?.why ?? '';
    client.close(fd);
    return named(result);
  };
  const numVfs = (count: number | string) => write(`${SYS}/${PF}/sriov_numvfs`, String(count));
  const dev = (name: string): PciDevice => host.drivers.devices.find((each) => each.name === name)!;
  const container = client.open('/dev/vfio/vfio');
  const group = (name: string): number => {
    const fd = client.open(`/dev/vfio/${dev(name).iommuGroup?.id}`);
    client.ioctl(fd, uapi.VFIO_GROUP_SET_CONTAINER, s32(container));
    client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU);
    return fd;
  };
  /** GET_DEVICE_FD: a descriptor, or an errno's name. */
  const device = (fd: number, text: string) =>
    named(client.ioctl(fd, uapi.VFIO_GROUP_GET_DEVICE_FD, new TextEncoder().encode(`${text}\0`)));
  const why = () => client.refusal()?.why ?? '';
  const whyNot = () => refused;
  return { host, client, whyNot, write, numVfs, dev, container, group, device, why };
}

describe('sriov_numvfs', () => {
  it('makes VFs with a group of their own each, which vfio-pci has at once, and takes them away', () => {
    const { client, numVfs, dev, host } = setUp();
    const groups = host.groups!.groups.length;
    const nodes = () => client.list('/dev/vfio')?.filter((name) => /^[0-9]+$/.test(name));
    expect(numVfs(2)).toBe(1);
    expect(client.readText(`${SYS}/${PF}/sriov_numvfs`)).toBe('2\n');
    expect([client.readLink(`${SYS}/${PF}/virtfn0`), client.readLink(`${SYS}/${PF}/virtfn1`)]).toEqual([
      `../${VF0}`,
      `../${VF1}`,
    ]);
    expect(client.readLink(`${SYS}/${PF}/virtfn2`)).toBeNull();
    expect(client.readLink(`${SYS}/${VF0}/physfn`)).toBe(`../${PF}`);
    expect(client.readText(`${SYS}/${PF}/virtfn0/vendor`)).toBe('0x1b36\n');
    expect(client.readText(`${SYS}/${VF0}/device`)).toBe('0xbe12\n');
    expect(client.readText(`${SYS}/${VF0}/driver_override`)).toBe('vfio-pci\n');
    expect([dev(VF0).driver, dev(VF1).driver]).toEqual(['vfio-pci', 'vfio-pci']);
    const ids = [PF, VF0, VF1].map((name) => dev(name).iommuGroup?.id);
    expect(new Set(ids).size).toBe(3);
    expect(nodes()).toEqual(ids.map(String));
    expect(numVfs('0\n')).toBe(2);
    expect([client.list(`${SYS}/${VF0}`), client.readText(`${SYS}/${PF}/sriov_numvfs`)]).toEqual([null, '0\n']);
    expect([host.groups!.groups.length, nodes()]).toEqual([groups, [String(ids[0])]]);
    expect([numVfs(4), numVfs(0), numVfs(1)]).toEqual([1, 1, 1]);
  });

  it('the other attributes, and none of them for a function without SR-IOV', () => {
    const { client, numVfs } = setUp();
    const read = (name: string) => client.readText(`${SYS}/${PF}/${name}`);
    expect(
      ['totalvfs', 'numvfs', 'offset', 'stride', 'vf_device', 'drivers_autoprobe'].map((n) => read(`sriov_${n}`)),
    ).toEqual(['4\n', '0\n', '128\n', '1\n', 'be12\n', '1\n']);
    numVfs(1);
    expect(client.readText(`${SYS}/${VF0}/sriov_totalvfs`)).toBeNull();
    expect(setUp({ vfs: 0 }).client.readText(`${SYS}/${PF}/sriov_totalvfs`)).toBeNull();
  });

  it('EINVAL no number, ERANGE too many, 0 the same, ENOENT no driver, EBUSY other VFs', () => {
    const { numVfs, write, whyNot } = setUp();
    expect([numVfs('many'), numVfs(65536), numVfs(5), numVfs(0)]).toEqual(['EINVAL', 'EINVAL', 'ERANGE', 1]);
    expect([numVfs(2), numVfs(2), numVfs(3)]).toEqual([1, 1, 'EBUSY']);
    expect(numVfs(0)).toBe(1);
    expect(write('/sys/bus/pci/drivers/vfio-pci/unbind', PF)).toBe(12);
    expect([numVfs(5), numVfs(1), whyNot()]).toEqual([
      'ERANGE',
      'ENOENT',
      `${PF} has no driver that could configure SR-IOV`,
    ]);
  });

  it('ENOENT: vfio-pci without enable_sriov, which is its default', () => {
    const { numVfs, whyNot, write } = setUp({ enableSriov: false });
    expect([numVfs(1), whyNot()]).toEqual(['ENOENT', 'vfio-pci leaves SR-IOV alone']);
    expect(write('/sys/module/vfio_pci/parameters/enable_sriov', '1')).toBe(1);
    expect(numVfs(1)).toBe(1);
  });

  it('sriov_drivers_autoprobe 0 leaves VFs of a host driver without one; an override counts more', () => {
    const { numVfs, write, dev } = setUp({ driver: 'net' });
    expect(write(`${SYS}/${PF}/sriov_drivers_autoprobe`, '0')).toBe(1);
    expect(numVfs(1)).toBe(1);
    expect([dev(VF0).driver, dev(VF0).driverOverride]).toEqual([null, null]);
    expect(numVfs(0)).toBe(1);
    // A driver that knows the ids of the VFs.
    expect(write('/sys/bus/pci/drivers/vfio-pci/new_id', '1b36 be12')).toBe(9);
    numVfs(1);
    expect(dev(VF0).driver).toBeNull();
    numVfs(0);
    write(`${SYS}/${PF}/sriov_drivers_autoprobe`, '1');
    numVfs(1);
    expect(dev(VF0).driver).toBe('vfio-pci');
    const own = setUp();
    own.write(`${SYS}/${PF}/sriov_drivers_autoprobe`, '0');
    expect([own.numVfs(1), own.dev(VF0).driver]).toEqual([1, 'vfio-pci']);
  });

  it('wakes the PF first: its user put it into D3hot', () => {
    const { numVfs, dev, group, device, client } = setUp();
    const pf = device(group(PF), PF) as number;
    client.pwrite(pf, Uint8Array.of(3), CONFIG + dev(PF).capability(1) + 4);
    expect(dev(PF).powerState).toBe(3);
    expect([numVfs(1), dev(PF).powerState, dev(VF0).configRead(0x0e, 1)]).toEqual([1, 0, 0]);
  });

  it('EBUSY while a VF is open: its user is asked, and the PF cannot be unbound either', () => {
    const { numVfs, group, device, client, write } = setUp();
    numVfs(2);
    // The token that nobody knows yet: the PF's user gives one first.
    const pf = group(PF);
    expect(device(pf, `${PF} vf_token=${UUID}`)).toBeTypeOf('number');
    const fd = device(group(VF1), `${VF1} vf_token=${UUID}`) as number;
    expect([numVfs(0), write('/sys/bus/pci/drivers/vfio-pci/unbind', PF)]).toEqual(['EBUSY', 'EBUSY']);
    // None of them is gone.
    expect([client.readLink(`${SYS}/${PF}/virtfn0`), client.readLink(`${SYS}/${PF}/virtfn1`)]).toEqual([
      `../${VF0}`,
      `../${VF1}`,
    ]);
    client.close(fd);
    expect(numVfs(0)).toBe(1);
  });

  it('a host driver takes its VFs along; EBUSY: vfio-pci does not take a PF whose VFs somebody left behind', () => {
    const { numVfs, write, dev, whyNot } = setUp({ driver: 'net' });
    numVfs(1);
    expect(write('/sys/bus/pci/drivers/net/unbind', PF)).toBe(12);
    expect([dev(VF0), write(`${SYS}/${PF}/driver_override`, 'vfio-pci')]).toEqual([undefined, 8]);
    // As pci-pf-stub would leave it.
    dev(PF).sriov!.numVfs = 1;
    expect(write('/sys/bus/pci/drivers/vfio-pci/bind', PF)).toBe('EBUSY');
    expect(whyNot()).toMatch(/virtual functions that somebody else made/);
    dev(PF).sriov!.numVfs = 0;
    expect(write('/sys/bus/pci/drivers/vfio-pci/bind', PF)).toBe(12);
  });
});

describe('a virtual function under vfio-pci', () => {
  function open(preset: PresetName = 'arm-its') {
    const made = setUp({ preset });
    made.numVfs(2);
    const pf = made.device(made.group(PF), `${PF} vf_token=${UUID}`) as number;
    const fd = made.device(made.group(VF0), `${VF0} vf_token=${UUID}`) as number;
    const config = (at: number, size: number) => {
      const bytes = new Uint8Array(4);
      made.client.pread(fd, bytes.subarray(0, size), CONFIG + at);
      return new DataView(bytes.buffer).getUint32(0, true);
    };
    return { ...made, pf, fd, config };
  }

  it('configuration: ids of the PF and the capability, memory on, no pin, BARs that can be sized', () => {
    const { client, fd, config } = open();
    expect([config(0, 2), config(2, 2), config(4, 2) & 2, config(0x3d, 1)]).toEqual([0x1b36, BELL_VF_DEVICE, 2, 0]);
    expect([config(0x10, 4), config(0x18, 4)]).toEqual([0, 0xc]);
    client.pwrite(fd, new Uint8Array(4).fill(0xff), CONFIG + 0x10);
    expect(config(0x10, 4)).toBe(0xffff_0000);
    const irq = uapi.vfio_irq_info.bytes({ argsz: 16, index: uapi.VFIO_PCI_INTX_IRQ_INDEX });
    client.ioctl(fd, uapi.VFIO_DEVICE_GET_IRQ_INFO, irq);
    expect(uapi.vfio_irq_info.read(irq).count).toBe(0);
  });

  it.each(['arm-its', 'x86'] as const)(
    '%s: memory answers whatever COMMAND says, MSI-X rings under its own id',
    (preset) => {
      const { client, fd, dev, host } = open(preset);
      const id = new Uint8Array(4);
      client.pwrite(fd, Uint8Array.of(0, 0), CONFIG + 4);
      expect(client.pread(fd, id, BellRegister.ID)).toBe(4);
      expect(new DataView(id.buffer).getUint32(0, true)).toBe(0x0001_be11);
      client.pwrite(fd, Uint8Array.of(4, 0), CONFIG + 4);
      const eventfd = client.eventfd();
      if (typeof eventfd === 'number') throw new Error();
      const bytes = new Uint8Array(24);
      uapi.vfio_irq_set.patch(bytes, { argsz: 24, flags: 0x24, index: 2, start: 0, count: 1 });
      bytes.set(s32(eventfd.fd), 20);
      expect(client.ioctl(fd, uapi.VFIO_DEVICE_SET_IRQS, bytes)).toBe(0);
      client.pwrite(fd, new Uint8Array(4), BellRegister.RING);
      client.settle();
      expect(eventfd.drain()).toBe(1);
      expect(host.machine.pci.function(VF0)?.streamId).toBe(dev(VF0).requester);
    },
  );

  it('RESET is its own FLR: the PF knows nothing of it', () => {
    const { client, pf, fd } = open();
    const value = (on: number) => {
      const bytes = new Uint8Array(4);
      client.pread(on, bytes, BellRegister.DMA_LOCAL);
      return new DataView(bytes.buffer).getUint32(0, true);
    };
    client.pwrite(pf, Uint8Array.of(2, 0), CONFIG + 4);
    for (const each of [pf, fd]) client.pwrite(each, Uint8Array.of(7, 0, 0, 0), BellRegister.DMA_LOCAL);
    expect([value(pf), value(fd)]).toEqual([7, 7]);
    expect(client.ioctl(fd, uapi.VFIO_DEVICE_RESET)).toBe(0);
    expect([value(pf), value(fd)]).toEqual([7, 0]);
  });

  it('a reset of the PF brings its VFs back as new, and the PF never sleeps while it has them', () => {
    const { client, pf, fd, dev } = open();
    client.pwrite(fd, Uint8Array.of(4, 0), CONFIG + 4);
    expect(client.ioctl(pf, uapi.VFIO_DEVICE_RESET)).toBe(0);
    const id = new Uint8Array(4);
    expect([client.pread(fd, id, BellRegister.ID), id[0], dev(VF0).configRead(4, 2)]).toEqual([4, 0x11, 0]);
    client.pwrite(pf, Uint8Array.of(3), CONFIG + dev(PF).capability(1) + 4);
    expect(dev(PF).powerState).toBe(0);
    client.close(pf);
    expect(dev(PF).powerState).toBe(0);
  });
});

describe('VF tokens', () => {
  it('EINVAL: a token where the PF is not vfio-pci’s, or where there is no SR-IOV', () => {
    const { numVfs, write, group, device, why } = setUp({ driver: 'net' });
    numVfs(1);
    write(`${SYS}/${VF0}/driver_override`, 'vfio-pci');
    expect(write('/sys/bus/pci/drivers/vfio-pci/bind', VF0)).toBe(12);
    const vf = group(VF0);
    expect([device(vf, `${VF0} vf_token=${UUID}`), why()]).toEqual([
      'EINVAL',
      `${VF0} takes no VF token: its physical function ${PF} is not bound to vfio-pci`,
    ]);
    expect(device(vf, VF0)).toBeTypeOf('number');
    const plain = setUp({ vfs: 0 });
    expect(plain.device(plain.group(PF), `${PF} vf_token=${UUID}`)).toBe('EINVAL');
  });

  it('EINVAL malformed before EACCES; EACCES without a token, and with another; the PF’s token opens', () => {
    const { numVfs, group, device } = setUp();
    numVfs(1);
    const [pf, vf] = [group(PF), group(VF0)];
    expect(device(vf, `${VF0} vf_token=83d8`)).toBe('EINVAL');
    expect([device(vf, VF0), device(vf, `${VF0} vf_token=${UUID}`)]).toEqual(['EACCES', 'EACCES']);
    expect(device(pf, `${PF} vf_token=${UUID}`)).toBeTypeOf('number');
    expect([device(vf, VF0), device(vf, `${VF0} vf_token=${OTHER}`)]).toEqual(['EACCES', 'EACCES']);
    expect(device(vf, `${VF0} vf_token=${UUID.toUpperCase()}`)).toBeTypeOf('number');
  });

  it('while a VF is open the PF needs the token too; without VFs in use it sets it', () => {
    const { numVfs, group, device, client } = setUp();
    numVfs(1);
    const [pf, vf] = [group(PF), group(VF0)];
    client.close(device(pf, `${PF} vf_token=${UUID}`) as number);
    const open = device(vf, `${VF0} vf_token=${UUID}`) as number;
    expect([device(pf, PF), device(pf, `${PF} vf_token=${OTHER}`)]).toEqual(['EACCES', 'EACCES']);
    expect(device(pf, `${PF} vf_token=${UUID}`)).toBeTypeOf('number');
    client.close(open);
    expect([device(pf, PF), device(pf, `${PF} vf_token=${OTHER}`)].map((each) => typeof each)).toEqual([
      'number',
      'number',
    ]);
    expect(device(vf, `${VF0} vf_token=${UUID}`)).toBe('EACCES');
    expect(device(vf, `${VF0} vf_token=${OTHER}`)).toBeTypeOf('number');
  });

  it('feature 0 sets it: ENOTTY for a VF, EINVAL GET and a short payload, EFAULT', () => {
    const { numVfs, group, device, client } = setUp();
    numVfs(1);
    const pf = device(group(PF), PF) as number;
    const vfGroup = group(VF0);
    const feature = (fd: number, flags: number, payload: Uint8Array) => {
      const bytes = new Uint8Array(8 + payload.length);
      uapi.vfio_device_feature.patch(bytes, { argsz: bytes.length, flags });
      bytes.set(payload, 8);
      return named(client.ioctl(fd, uapi.VFIO_DEVICE_FEATURE, bytes));
    };
    expect([feature(pf, GET, uuidBytes(UUID)), feature(pf, SET, uuidBytes(UUID).subarray(1))]).toEqual([
      'EINVAL',
      'EINVAL',
    ]);
    const lying = uapi.vfio_device_feature.bytes({ argsz: 24, flags: SET });
    expect(named(client.ioctl(pf, uapi.VFIO_DEVICE_FEATURE, lying))).toBe('EFAULT');
    expect(feature(pf, SET, uuidBytes(UUID))).toBe(0);
    const vf = device(vfGroup, `${VF0} vf_token=${UUID}`) as number;
    expect(feature(vf, SET, uuidBytes(UUID))).toBe('ENOTTY');
  });

  it('the same rules for whoever binds a device to an iommufd', () => {
    const { numVfs, host, dev, client } = setUp();
    numVfs(1);
    const iommufd = client.open('/dev/iommu');
    const node = (name: string) => client.open(`/dev/vfio/devices/vfio${host.vfio.deviceOf(dev(name))?.index}`);
    const [pf, vf] = [node(PF), node(VF0)];
    const bind = (fd: number, uuid: string | null) => {
      const token = client.allocate(4096);
      if (typeof token === 'number') throw new Error();
      if (uuid !== null) token.bytes.set(uuidBytes(uuid));
      const flags = uuid === null ? 0 : uapi.VFIO_DEVICE_BIND_FLAG_TOKEN;
      const layout = uapi.vfio_device_bind_iommufd;
      const bytes = layout.bytes({ argsz: layout.size, flags, iommufd, token_uuid_ptr: token.address });
      return named(client.ioctl(fd, uapi.VFIO_DEVICE_BIND_IOMMUFD, bytes));
    };
    expect([bind(vf, null), bind(vf, UUID), bind(pf, UUID)]).toEqual(['EACCES', 'EACCES', 0]);
    expect([bind(vf, OTHER), bind(vf, UUID)]).toEqual(['EACCES', 0]);
    // Both are bound to the same iommufd: that proves the ownership of the whole bus.
    const reset = uapi.vfio_pci_hot_reset.bytes({ argsz: 12 });
    expect(named(client.ioctl(pf, uapi.VFIO_DEVICE_PCI_HOT_RESET, reset))).toBe(0);
    client.close(vf);
    expect(named(client.ioctl(pf, uapi.VFIO_DEVICE_PCI_HOT_RESET, reset))).toBe('EINVAL');
  });
});

describe('hot reset of a bus with virtual functions', () => {
  it('counts them in', () => {
    const { numVfs, group, device, client } = setUp();
    numVfs(2);
    const fd = device(group(PF), PF) as number;
    const bytes = uapi.vfio_pci_hot_reset_info.bytes({ argsz: 12 });
    expect(named(client.ioctl(fd, uapi.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, bytes))).toBe('ENOSPC');
    expect(uapi.vfio_pci_hot_reset_info.read(bytes).count).toBe(3);
  });
});
