import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/vfio.ts';
import { testHost } from './test-host.ts';
import { attachedHost, setContainer } from './test-requests.ts';

const EXTENSIONS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

function check(host: { client: { ioctl(fd: number, request: number, argument: number): number } }, fd: number) {
  return EXTENSIONS.filter((id) => host.client.ioctl(fd, uapi.VFIO_CHECK_EXTENSION, id) === 1);
}

describe('a container', () => {
  it('is new with each open, speaks version 0, and polls its drivers for extensions before one is set', () => {
    const host = testHost();
    const fd = host.client.open('/dev/vfio/vfio');
    expect(host.client.ioctl(fd, uapi.VFIO_GET_API_VERSION)).toBe(0);
    expect(check(host, fd)).toEqual([1, 3, 9]);
  });

  it('answers DMA_CC when all domains enforce coherency, and UPDATE_VADDR, once type1 is set', () => {
    const coherent = attachedHost();
    expect(check(coherent, coherent.container)).toEqual([1, 3, 4, 9, 10]);
    const unit = { aperture: [0, 2 ** 48 - 1] as const, pageSizes: [4096], coherent: false };
    const incoherent = attachedHost({ units: [unit] });
    expect(check(incoherent, incoherent.container)).toEqual([1, 3, 9, 10]);
  });

  it('EINVAL before ENODEV: SET_IOMMU without a group, then with an id that nobody knows', () => {
    const { client } = testHost();
    const container = client.open('/dev/vfio/vfio');
    expect(client.ioctl(container, uapi.VFIO_SET_IOMMU, 77)).toBe(-22);
    setContainer(client, client.open('/dev/vfio/0'), container);
    expect(client.ioctl(container, uapi.VFIO_SET_IOMMU, 77)).toBe(-19);
    expect(client.refusal()).toMatchObject({ code: 'ENODEV', request: 'VFIO_SET_IOMMU' });
  });

  it('ENODEV: SET_IOMMU with an id that no driver claims; EINVAL with an ability that is no IOMMU (UNMAP_ALL)', () => {
    const { client } = testHost();
    const container = client.open('/dev/vfio/vfio');
    setContainer(client, client.open('/dev/vfio/0'), container);
    expect([2, 4, 6, 7, 8, 10].map((id) => client.ioctl(container, uapi.VFIO_SET_IOMMU, id))).toEqual(
      Array(6).fill(-19),
    );
    expect(client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_UNMAP_ALL)).toBe(-22);
    expect(client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)).toBe(0);
    expect(client.ioctl(container, uapi.VFIO_SET_IOMMU, 77)).toBe(-22);
  });

  it('EINVAL without an IOMMU, ENOTTY with one: an unknown request', () => {
    const host = testHost();
    const fd = host.client.open('/dev/vfio/vfio');
    expect(host.client.ioctl(fd, 0x3bff)).toBe(-22);
    expect(host.client.ioctl(fd, uapi.VFIO_IOMMU_GET_INFO)).toBe(-22);
    const attached = attachedHost();
    expect(attached.client.ioctl(attached.container, 0x3bff)).toBe(-25);
    expect(attached.client.ioctl(attached.container, uapi.VFIO_IOMMU_ENABLE)).toBe(-25);
  });

  it('lives on after its last descriptor while a group is in it, and is unset when the last group leaves', () => {
    const { client, container, groupFds, groups, vfio } = attachedHost({ groups: 2 });
    const object = vfio.groups[0].container!;
    client.close(container);
    expect(groups[0].domain.type).toBe('unmanaged');
    expect(client.ioctl(groupFds[0], uapi.VFIO_GROUP_UNSET_CONTAINER)).toBe(0);
    expect(object.iommu).not.toBeNull();
    client.close(groupFds[1]);
    expect(object.iommu).toBeNull();
    expect(groups.map((group) => group.domain.type)).toEqual(['dma', 'dma']);
  });

  it('attaches all groups or none: an error of the second undoes the first', () => {
    const { client, groups } = testHost({ groups: 2 });
    const container = client.open('/dev/vfio/vfio');
    for (const id of [0, 1]) setContainer(client, client.open(`/dev/vfio/${id}`), container);
    groups[1].isolated = false;
    expect(client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)).toBe(-1);
    expect(groups.map((group) => group.domain.type)).toEqual(['blocked', 'blocked']);
    expect(groups.flatMap((group) => group.made).every((domain) => domain.freed)).toBe(true);
    groups[1].isolated = true;
    expect(client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)).toBe(0);
  });
});
