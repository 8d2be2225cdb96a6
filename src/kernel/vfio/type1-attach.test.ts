import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/vfio.ts';
import { msiCookie } from '../irq/msi-cookie.ts';
import { Type1WindowCookie } from '../irq/type1-cookie.ts';
import { dmaContext } from './doorbell-context.ts';
import { ARM_WINDOW, type MapDomain, testHost, testUnit } from './test-host.ts';
import { attachedHost, iovaRanges, mapDma, setContainer, unmapDma } from './test-requests.ts';

const PAGE = 4096;
const TOP = 2 ** 48 - 1;
const X86_MSI = { start: 0xfee0_0000, end: 0xfeef_ffff, type: 'msi' } as const;

/** Group 0 is attached; group 1 is open and waits beside. */
function secondGroup(options: Parameters<typeof testHost>[0] = {}) {
  const host = testHost({ groups: 2, ...options });
  const { client, groups } = host;
  const container = client.open('/dev/vfio/vfio');
  const fds = [client.open('/dev/vfio/0'), client.open('/dev/vfio/1')];
  setContainer(client, fds[0], container);
  client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU);
  const buffer = client.allocate(0x10_0000);
  if (typeof buffer === 'number') throw new Error('no memory');
  const map = (iova: number, size = PAGE) => mapDma(client, container, iova, buffer.address, size);
  const join = () => setContainer(client, fds[1], container);
  const type1 = host.vfio.groups[0].container!.type1!;
  return { ...host, container, fds, map, join, type1, groups };
}

describe('attaching a group', () => {
  it('allows what the aperture has outside of the SW_MSI window (golden vector G2)', () => {
    const { client, container } = attachedHost();
    expect(iovaRanges(client, container)).toEqual([
      [0, 0x7ff_ffff],
      [0x810_0000, TOP],
    ]);
  });

  it('allows what a VT-d host has outside of 0xfee00000, as the lab saw it', () => {
    const { client, groups, fds, container } = secondGroup();
    client.close(fds[0]);
    groups[1].regions = [X86_MSI];
    setContainer(client, fds[1], container);
    client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU);
    expect(iovaRanges(client, container)).toEqual([
      [0, 0xfedf_ffff],
      [0xfef0_0000, TOP],
    ]);
    expect(msiCookie(groups[1].domain)).toBeNull();
  });

  it('gives a new domain the window cookie, unless a hardware region wins', () => {
    const { groups } = attachedHost();
    const cookie = msiCookie(groups[0].domain);
    expect(cookie).toBeInstanceOf(Type1WindowCookie);
    const { client, fds, container, groups: others } = secondGroup();
    client.close(fds[0]);
    others[1].regions = [ARM_WINDOW, X86_MSI];
    setContainer(client, fds[1], container);
    client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU);
    expect(msiCookie(others[1].domain)).toBeNull();
  });

  it('shares the domain of a group on the same IOMMU: the fresh one is freed, the cookie stays', () => {
    const { join, groups, type1 } = secondGroup();
    const cookie = msiCookie(groups[0].domain);
    expect(join()).toBe(0);
    expect(groups[1].domain).toBe(groups[0].domain);
    expect(groups[1].made.map((domain) => domain.freed)).toEqual([true]);
    expect(msiCookie(groups[0].domain)).toBe(cookie);
    expect([type1.domains.length, type1.groups.length]).toEqual([1, 2]);
  });

  it('replays what is mapped into a domain of another IOMMU', () => {
    const { map, join, groups, type1 } = secondGroup({ units: [testUnit(), testUnit({ pageSizes: [4096, 65536] })] });
    map(0, 3 * PAGE);
    map(0x10_0000, PAGE);
    expect(join()).toBe(0);
    const [first, second] = groups.map((group) => group.domain as MapDomain);
    expect(second).not.toBe(first);
    expect([...second.pages]).toEqual([...first.pages]);
    expect(type1.pageSizes).toEqual([4096]);
    expect(msiCookie(second)).toBeInstanceOf(Type1WindowCookie);
    expect(dmaContext(second)).toBe(type1);
  });

  it('replays or nothing: an error leaves the group unowned and the container as it was', () => {
    const { map, join, groups, type1, client } = secondGroup({ units: [testUnit(), testUnit()] });
    map(0);
    map(PAGE);
    const allocate = groups[1].allocateDomain.bind(groups[1]);
    groups[1].allocateDomain = () => {
      const domain = allocate() as MapDomain;
      const original = domain.map.bind(domain);
      domain.map = (iova, pa, size, prot) => (iova === PAGE ? -12 : original(iova, pa, size, prot));
      return domain;
    };
    expect(join()).toBe(-12);
    expect(client.refusal()).toMatchObject({ code: 'ENOMEM', request: 'VFIO_GROUP_SET_CONTAINER' });
    expect([groups[1].dmaOwner, groups[1].domain.type, groups[1].made[0].freed]).toEqual([null, 'dma', true]);
    expect(type1.domains).toEqual([groups[0].domain]);
  });

  it('goes without coherency into a domain of its own', () => {
    const unit = { coherent: true };
    const units = [testUnit(unit), testUnit(unit)];
    const { join, type1, client, container } = secondGroup({ units: [units[0], { ...units[0], coherent: false }] });
    expect(client.ioctl(container, uapi.VFIO_CHECK_EXTENSION, uapi.VFIO_DMA_CC_IOMMU)).toBe(1);
    expect(join()).toBe(0);
    expect(type1.domains).toHaveLength(2);
    expect(client.ioctl(container, uapi.VFIO_CHECK_EXTENSION, uapi.VFIO_DMA_CC_IOMMU)).toBe(0);
  });
});

describe('attaching a group is refused in order', () => {
  it('EBUSY: a vaddr is invalid, before the group is attached anywhere', () => {
    const { map, join, container, client, groups } = secondGroup();
    map(0);
    unmapDma(client, container, 0, PAGE, uapi.VFIO_DMA_UNMAP_FLAG_VADDR);
    groups[1].refuseAttach = -22;
    expect(join()).toBe(-16);
    expect(groups[1].made).toEqual([]);
  });

  it('EINVAL: a group that is there already, before the IOMMU is asked', () => {
    const { type1, groups } = secondGroup();
    expect(type1.attachGroup(groups[0])).toBe(-22);
    expect(groups[0].made).toHaveLength(1);
  });

  it('EBUSY and EINVAL of the IOMMU come before the aperture', () => {
    const { map, join, groups } = secondGroup({ units: [testUnit(), testUnit({ aperture: [0, 0xfff] })] });
    map(0x10_0000);
    groups[1].refuseAttach = -16;
    expect(join()).toBe(-16);
    groups[1].refuseAttach = 0;
    expect(join()).toBe(-22);
  });

  it('EINVAL: an aperture that does not hold what is mapped, before the reserved regions', () => {
    const { map, join, client, groups } = secondGroup({
      units: [testUnit(), testUnit({ aperture: [0, 2 ** 32 - 1] })],
    });
    map(2 ** 32);
    groups[1].regions = [{ start: 2 ** 32, end: 2 ** 32 + 0xfff, type: 'reserved' }];
    expect(join()).toBe(-22);
    expect(client.refusal()?.why).toContain('aperture');
  });

  it('EINVAL: apertures that have nothing in common, before the reserved regions', () => {
    const { join, client, groups } = secondGroup({
      units: [testUnit({ aperture: [0, 2 ** 32 - 1] }), testUnit({ aperture: [2 ** 32, TOP] })],
    });
    groups[1].regions = [{ start: 0, end: TOP, type: 'reserved' }];
    expect(join()).toBe(-22);
    expect(client.refusal()?.why).toContain('nothing in common');
  });

  it('EINVAL: a reserved region over what is mapped, before EPERM; the mapping stays (golden vector G4)', () => {
    const { map, join, client, groups, type1 } = secondGroup();
    map(0xfee0_0000);
    groups[1].regions = [X86_MSI];
    groups[1].isolated = false;
    expect(join()).toBe(-22);
    expect(client.refusal()?.why).toContain('reserved region msi 0xfee0_0000 to 0xfeef_ffff of group 1');
    expect(type1.dmas.size).toBe(1);
    groups[1].regions = [{ ...X86_MSI, type: 'direct-relaxable' }];
    expect(join()).toBe(-1);
  });

  it('EINVAL: nothing would be left to map, before EPERM', () => {
    const { join, groups, client } = secondGroup();
    groups[1].regions = [{ start: 0, end: TOP, type: 'reserved' }];
    groups[1].isolated = false;
    expect(join()).toBe(-22);
    expect(client.refusal()?.why).toContain('nothing');
  });

  it('EPERM: interrupts are not isolated; allow_unsafe_interrupts lets it pass', () => {
    const { join, groups, client, context } = secondGroup();
    groups[1].isolated = false;
    expect(join()).toBe(-1);
    expect(client.refusal()).toMatchObject({ code: 'EPERM', hint: expect.stringContaining('allow_unsafe_interrupts') });
    expect(context.lines).toHaveLength(1);
    expect(groups[1].domain.type).toBe('dma');
    context.modules.iommufd.allow_unsafe_interrupts = true;
    expect(join()).toBe(-1);
    context.modules.vfio_iommu_type1.allow_unsafe_interrupts = true;
    expect(join()).toBe(0);
  });
});

describe('a group leaves', () => {
  it('takes back its reserved regions, and the domain stays for the other', () => {
    const { join, groups, client, container, fds, map } = secondGroup();
    groups[1].regions = [X86_MSI];
    join();
    expect(map(0xfee0_0000)).toBe(-22);
    client.ioctl(fds[1], uapi.VFIO_GROUP_UNSET_CONTAINER);
    expect(iovaRanges(client, container)).toEqual([
      [0, 0x7ff_ffff],
      [0x810_0000, TOP],
    ]);
    expect(map(0xfee0_0000)).toBe(0);
    expect((groups[0].domain as MapDomain).freed).toBe(false);
  });

  it('frees its domain as the last one in it, and widens the aperture again', () => {
    const { join, client, container, fds, groups, map } = secondGroup({
      units: [testUnit(), testUnit({ aperture: [0, 2 ** 39 - 1] })],
    });
    join();
    const domain = groups[1].domain as MapDomain;
    expect(iovaRanges(client, container)).toEqual([
      [0, 0x7ff_ffff],
      [0x810_0000, 2 ** 39 - 1],
    ]);
    map(0);
    client.close(fds[1]);
    expect([domain.freed, msiCookie(domain), dmaContext(domain)]).toEqual([true, null, null]);
    expect(iovaRanges(client, container)[1]).toEqual([0x810_0000, TOP]);
    expect((groups[0].domain as MapDomain).pages.size).toBe(1);
  });

  it('takes every mapping with it as the last one of the container', () => {
    const { client, fds, map, context } = secondGroup();
    map(0, 16 * PAGE);
    map(0x20_0000, 16 * PAGE);
    expect(client.process.lockedPages).toBe(32);
    client.close(fds[0]);
    expect(client.process.lockedPages).toBe(0);
    client.kernel.exit(client.process);
    expect(context.memory.allocated).toBe(0);
  });
});

describe('a reservation for a doorbell', () => {
  it('leaves the IOVA list, refuses maps, and no unmap sees it', () => {
    const { client, container, type1, map } = secondGroup();
    map(0x908_0000);
    type1.reserve(0x809_0000 + 0x100_0000, 0x909_ffff);
    expect(iovaRanges(client, container)).toEqual([
      [0, 0x7ff_ffff],
      [0x810_0000, 0x908_ffff],
      [0x90a_0000, TOP],
    ]);
    expect(map(0x909_0000)).toBe(-22);
    expect(client.refusal()?.why).toContain('doorbell reserved at 0x0909_0000 to 0x0909_ffff');
    expect(unmapDma(client, container, 0, 0, uapi.VFIO_DMA_UNMAP_FLAG_ALL)).toBe(PAGE);
    expect(type1.reservations).toEqual([{ start: 0x909_0000, end: 0x909_ffff }]);
    type1.release(0x909_0000, 0x909_ffff);
    expect(map(0x909_0000)).toBe(0);
    expect(type1.userMapping(0x909_0000, 0x909_0000)).toEqual({ start: 0x909_0000, end: 0x909_0fff });
  });

  it('EINVAL: a later group whose region conflicts; its SW_MSI window and direct-relaxable regions do not', () => {
    const { type1, groups, join, client } = secondGroup();
    type1.reserve(0x800_0000, 0x800_ffff);
    groups[1].regions = [{ start: 0x800_8000, end: 0x801_ffff, type: 'reserved' }];
    groups[1].isolated = false;
    expect(join()).toBe(-22);
    expect(client.refusal()?.why).toContain('overlaps the doorbell');
    groups[1].isolated = true;
    groups[1].regions = [ARM_WINDOW, { start: 0x800_0000, end: 0x800_0fff, type: 'direct-relaxable' }];
    expect(join()).toBe(0);
  });

  it('stays out of the list when groups come and go', () => {
    const { type1, join, client, fds, container } = secondGroup();
    type1.reserve(0x900_0000, 0x900_ffff);
    join();
    client.close(fds[1]);
    expect(iovaRanges(client, container)).toContainEqual([0x901_0000, TOP]);
  });
});
