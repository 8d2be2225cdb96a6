/** Random programs on a physical function and its virtual ones, against a model of who has what open and which token is in use. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createDevice } from '../../devices/registry.ts';
import { defineMachine } from '../../machine/define.ts';
import { Machine } from '../../machine/machine.ts';
import { presetInput } from '../../machine/presets.ts';
import * as uapi from '../../uapi/vfio.ts';
import { bootLinux } from '../boot/boot.ts';
import { s32 } from './testing/bus-host.ts';

const PF = '0000:01:00.0';
const VFS = 3;
const vfName = (index: number): string => `0000:01:10.${index}`;
const UUIDS = ['83d8f4f2-509f-382f-3c1e-e6bfe0fa1001', '83d8f4f2-509f-382f-3c1e-e6bfe0fa1002'];
const [EACCES, EBUSY, ERANGE] = [-13, -16, -34];

const step = fc.oneof(
  fc.record({
    what: fc.constant('numvfs' as const),
    at: fc.integer({ min: 0, max: VFS + 1 }),
    token: fc.constant(null),
  }),
  fc.record({
    what: fc.constantFrom('open' as const, 'open' as const, 'close' as const),
    /** 0: the physical function; else a virtual one. */
    at: fc.integer({ min: 0, max: VFS }),
    token: fc.constantFrom(null, ...UUIDS),
  }),
  fc.record({ what: fc.constant('reset' as const), at: fc.constant(0), token: fc.constant(null) }),
);

function world() {
  const input = presetInput('arm-its');
  const pf = { at: '00.0', kind: 'function' as const, device: 'bell', options: { vfs: VFS } };
  input.pci.slots = [{ at: '01.0', kind: 'root-port', acs: true, below: [pf] }];
  const host = bootLinux(new Machine(defineMachine(input), createDevice));
  host.context.modules.vfio_pci.enable_sriov = true;
  const client = host.process().kernel;
  const container = client.open('/dev/vfio/vfio');
  const dev = (name: string) => host.drivers.devices.find((each) => each.name === name);
  const numVfs = (count: number): number => {
    const fd = client.open(`/sys/bus/pci/devices/${PF}/sriov_numvfs`);
    const result = client.pwrite(fd, new TextEncoder().encode(String(count)), 0);
    client.close(fd);
    return Math.min(result, 0);
  };
  /** [group, device], or the -errno of the device. */
  const open = (name: string, token: string | null): [number, number] | number => {
    const group = client.open(`/dev/vfio/${dev(name)?.iommuGroup?.id}`);
    client.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, s32(container));
    client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU);
    const text = token === null ? name : `${name} vf_token=${token}`;
    const fd = client.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, new TextEncoder().encode(`${text}\0`));
    if (fd >= 0) return [group, fd];
    client.close(group);
    return fd;
  };
  return { host, client, dev, numVfs, open };
}

describe('random programs on a physical function', () => {
  it('answer as the model does; functions, groups and nodes are always those of the VFs that are there', () => {
    const { host, client, dev, numVfs, open } = world();
    const base = { functions: host.pciDevices.length, groups: host.groups!.groups.length };
    let token: string | null = null;
    fc.assert(
      fc.property(fc.array(step, { maxLength: 8 }), (steps) => {
        let count = 0;
        const files = new Map<number, [number, number]>();
        const vfsInUse = (): boolean => [...files.keys()].some((at) => at > 0);
        const name = (at: number): string => (at === 0 ? PF : vfName(at - 1));
        for (const { what, at, token: given } of steps) {
          if (what === 'numvfs') {
            const wanted =
              at > VFS ? ERANGE : at === count ? 0 : (at > 0 && count > 0) || (at === 0 && vfsInUse()) ? EBUSY : 0;
            expect(numVfs(at)).toBe(wanted);
            if (wanted === 0) count = at;
          } else if (at > count) {
            expect(dev(name(at))).toBeUndefined();
          } else if (what === 'open' && !files.has(at)) {
            const needed = at > 0 || vfsInUse();
            const result = open(name(at), given);
            if (needed && (given === null || given !== token)) expect(result).toBe(EACCES);
            else {
              if (typeof result === 'number') throw new Error(`${name(at)}: ${client.refusal()?.why}`);
              files.set(at, result);
              if (!needed && given !== null) token = given;
            }
          } else if (what === 'close') {
            for (const fd of files.get(at) ?? []) client.close(fd);
            files.delete(at);
          } else if (what === 'reset' && files.has(0)) {
            expect(client.ioctl(files.get(0)![1], uapi.VFIO_DEVICE_RESET)).toBe(0);
          }
          expect([host.pciDevices.length, host.groups!.groups.length, host.machine.pci.functions.length]).toEqual([
            base.functions + count,
            base.groups + count,
            1 + count,
          ]);
          for (let index = 0; index < count; index += 1) {
            const address = dev(vfName(index))!.resources[0].base;
            expect([dev(vfName(index))!.driver, host.context.bus.claimant(address)]).toEqual([
              'vfio-pci',
              'bell VF BAR 0',
            ]);
          }
        }
        for (const pair of files.values()) for (const fd of pair) client.close(fd);
        expect(numVfs(0)).toBe(0);
      }),
      { numRuns: 400 },
    );
  });
});
