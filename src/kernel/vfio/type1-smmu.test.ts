import { describe, expect, it } from 'vitest';
import { Access, Status } from '../../ports/transaction.ts';
import * as uapi from '../../uapi/vfio.ts';
import { SimKernelClient } from '../client.ts';
import { IommuGroups } from '../iommu/groups.ts';
import { smmuHost } from '../iommu/testing.ts';
import { SimKernel } from '../kernel.ts';
import { TestGroup, TestOps, testDevice, testUnit } from './test-host.ts';
import { buffer, getDevice, iovaRanges, mapDma, READ, setContainer, unmapDma, WRITE } from './test-requests.ts';
import { Vfio } from './vfio-main.ts';

const NAME = '0000:00:05.0';
const STREAM = 0x28;

/** One device behind the driver and tables of a real SMMUv3 model, in a type1 container. */
function setUp(pageSize = 4096) {
  const host = smmuHost({}, pageSize);
  const { context, driver } = host;
  const events: string[] = [];
  const dev = testDevice(NAME, new TestGroup(99, testUnit(), events));
  dev.iommuGroup = null;
  const groups = new IommuGroups(context, driver);
  groups.setMsiIsolated(() => true);
  expect(groups.addAll([dev])).toBe(0);
  const kernel = new SimKernel(context);
  const vfio = new Vfio(kernel);
  vfio.register(dev, new TestOps(NAME, events, context));
  const client = new SimKernelClient(kernel);
  const container = client.open('/dev/vfio/vfio');
  const group = client.open(`/dev/vfio/${dev.iommuGroup!.id}`);
  const attach = () => {
    expect(setContainer(client, group, container)).toBe(0);
    expect(client.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU)).toBe(0);
  };
  return { ...host, kernel, client, container, group, attach };
}

describe('type1 on an SMMUv3', () => {
  it('lets the device reach what is mapped, as it is mapped, and nothing else', () => {
    const { client, container, attach, dma, pa, context } = setUp();
    attach();
    const memory = buffer(client, 0x4000);
    memory.bytes[0x1004] = 0x5a;
    expect(mapDma(client, container, 0x10_0000, memory.address, 0x4000, READ)).toBe(0);
    expect(dma(STREAM, 0x10_1004, Access.READ)).toBe(Status.OK);
    expect(context.memory.read32(pa()) & 0xff).toBe(0x5a);
    expect(dma(STREAM, 0x10_1004, Access.WRITE)).toBe(Status.FAULT);
    expect(dma(STREAM, 0x10_4000, Access.READ)).toBe(Status.FAULT);
    expect(unmapDma(client, container, 0x10_0000, 0x4000)).toBe(0x4000);
    expect(dma(STREAM, 0x10_1004, Access.READ)).toBe(Status.FAULT);
  });

  it('shows the IOVA ranges and page sizes that Linux showed in the lab', () => {
    const { client, container, attach } = setUp();
    attach();
    expect(iovaRanges(client, container)).toEqual([
      [0, 0x7ff_ffff],
      [0x810_0000, 0xffff_ffff_ffff],
    ]);
    const bytes = uapi.vfio_iommu_type1_info.bytes({ argsz: 24 });
    client.ioctl(container, uapi.VFIO_IOMMU_GET_INFO, bytes);
    expect(uapi.vfio_iommu_type1_info.read(bytes).iova_pgsizes).toBe(0x4020_1000n);
  });

  it('aborts what the device does between the claim and the attachment, and after the group left', () => {
    const { client, container, group, attach, dma } = setUp();
    expect(setContainer(client, group, container)).toBe(0);
    expect(dma(STREAM, 0x10_0000)).toBe(Status.ABORT);
    client.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER);
    attach();
    const memory = buffer(client, 0x1000);
    mapDma(client, container, 0, memory.address, 0x1000, WRITE);
    expect(dma(STREAM, 0)).toBe(Status.OK);
    client.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER);
    expect(dma(STREAM, 0)).not.toBe(Status.OK);
  });

  it('gives back every frame, tables included, when the process dies', () => {
    const { client, kernel, container, attach, context, group } = setUp();
    const before = context.memory.allocated;
    attach();
    expect(getDevice(client, group, NAME)).toBeGreaterThanOrEqual(0);
    const memory = buffer(client, 0x20_0000);
    for (let i = 0; i < 64; i++) expect(mapDma(client, container, i * 2 ** 32, memory.address, 0x20_0000)).toBe(0);
    kernel.exit(client.process);
    expect(client.process.lockedPages).toBe(0);
    expect(context.memory.allocated).toBe(before);
  });
});
