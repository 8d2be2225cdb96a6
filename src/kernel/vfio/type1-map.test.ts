import { describe, expect, it } from 'vitest';
import type { UserBuffer } from '../../ports/kernel.ts';
import * as uapi from '../../uapi/vfio.ts';
import type { SimKernelClient } from '../client.ts';
import type { MapDomain } from './test-host.ts';
import { ARM_WINDOW } from './test-host.ts';
import { attachedHost, buffer, mapDma, READ, unmapDma, VADDR, WRITE } from './test-requests.ts';

const U64_MAX = 2n ** 64n - 1n;
const PAGE = 4096;
/** Nobody has anything mapped here. */
const NOWHERE = 0x1000;

function raw(
  client: SimKernelClient,
  fd: number,
  changes: Partial<Record<'argsz' | 'flags', number>>,
  map: Partial<Record<'iova' | 'vaddr' | 'size', bigint | number>> = {},
) {
  const layout = uapi.vfio_iommu_type1_dma_map;
  return client.ioctl(
    fd,
    uapi.VFIO_IOMMU_MAP_DMA,
    layout.bytes({ argsz: 32, flags: READ | WRITE, ...map, ...changes }),
  );
}

function setUp(options: Parameters<typeof attachedHost>[0] = {}) {
  const host = attachedHost(options);
  const map = (iova: number | bigint, size: number | bigint, memory: UserBuffer = host.memory, flags = READ | WRITE) =>
    mapDma(host.client, host.container, iova, memory.address, size, flags);
  const domain = host.groups[0].domain as MapDomain;
  return { ...host, map, domain };
}

/** A limited user: RLIMIT_MEMLOCK of 8 pages, no capabilities. The group's node is its own, as after chown. */
const limited = { process: { euid: 0, capabilities: [], limits: { memlock: 8 * PAGE } } };

describe('MAP_DMA', () => {
  it('maps the frames of the buffer for the device, with CACHE always', () => {
    const { map, domain, memory, client, type1 } = setUp();
    expect(map(0x10_0000, 0x3000)).toBe(0);
    const pinned = client.process.memory.view(memory.address, PAGE)!;
    pinned[5] = 77;
    const into = new Uint8Array(1);
    type1.context.memory.read(domain.lookup(0x10_0005), into);
    expect(into[0]).toBe(77);
    expect(domain.pages.get(0x10_2000)?.prot).toBe(1 | 2 | 4);
    expect(map(0x20_0000, PAGE, memory, READ)).toBe(0);
    expect(domain.pages.get(0x20_0000)?.prot).toBe(1 | 4);
    expect(map(0x30_0000, PAGE, memory, WRITE)).toBe(0);
    expect(domain.pages.get(0x30_0000)?.prot).toBe(2 | 4);
    expect([client.process.lockedPages, type1.dmaAvail]).toEqual([5, 65535 - 3]);
  });

  it('refuses the SW_MSI window and allows both of its edges, as Linux on Arm did in the lab', () => {
    const { map, client } = setUp();
    for (const iova of [0x800_0000, 0x808_0000, 0x80f_f000, 0x809_0000]) expect(map(iova, PAGE)).toBe(-22);
    expect(map(0x800_0000, 0x10_0000)).toBe(-22);
    expect(map(0x7ff_f000, 0x2000)).toBe(-22);
    expect(map(0x80f_f000, 0x2000)).toBe(-22);
    expect(client.refusal()).toMatchObject({
      code: 'EINVAL',
      request: 'VFIO_IOMMU_MAP_DMA',
      field: 'iova',
      why: 'iova 0x080f_f000 + 0x0000_2000 overlaps the reserved region sw-msi 0x0800_0000 to 0x080f_ffff of group 0',
    });
    expect(map(0x7ff_f000, PAGE)).toBe(0);
    expect(map(0x810_0000, PAGE)).toBe(0);
    expect(map(2 ** 48 - PAGE, PAGE)).toBe(0);
    expect(map(2 ** 48, PAGE)).toBe(-22);
    expect(client.refusal()?.why).toContain('outside of what the IOMMU can translate');
    expect(map(2n ** 60n, PAGE)).toBe(-22);
  });

  it('EFAULT before EINVAL: the argument, then argsz', () => {
    const { client, container } = setUp();
    expect(client.ioctl(container, uapi.VFIO_IOMMU_MAP_DMA, NOWHERE)).toBe(-14);
    expect(client.ioctl(container, uapi.VFIO_IOMMU_MAP_DMA, new Uint8Array(31))).toBe(-14);
    expect(raw(client, container, { argsz: 31, flags: 8 })).toBe(-22);
    expect(client.refusal()?.field).toBe('argsz');
  });

  it('EINVAL flags before EINVAL size before EOVERFLOW: an unknown flag, size 0, a wrap', () => {
    const { client, container } = setUp();
    expect(raw(client, container, { flags: 8 }, { size: 0 })).toBe(-22);
    expect(client.refusal()?.field).toBe('flags');
    expect(raw(client, container, {}, { size: 0, iova: 1 })).toBe(-22);
    expect(client.refusal()?.field).toBe('size');
  });

  it('EOVERFLOW: iova wraps, then vaddr wraps, before the flags are understood', () => {
    const { client, container } = setUp();
    const bad = { flags: 0 };
    expect(raw(client, container, bad, { iova: U64_MAX, vaddr: U64_MAX, size: 2 })).toBe(-75);
    expect(client.refusal()?.field).toBe('iova');
    expect(raw(client, container, bad, { iova: 1, vaddr: U64_MAX, size: 2 })).toBe(-75);
    expect(client.refusal()?.field).toBe('vaddr');
    expect(raw(client, container, bad, { iova: U64_MAX, vaddr: 0, size: 1 })).toBe(-22);
  });

  it('EINVAL: VADDR with access, or neither, before alignment', () => {
    const { client, container } = setUp();
    for (const flags of [0, READ | VADDR, WRITE | VADDR]) {
      expect(raw(client, container, { flags }, { iova: 1, size: 1 })).toBe(-22);
      expect(client.refusal()?.field).toBe('flags');
    }
  });

  it('EINVAL: iova, vaddr or size off the smallest page, before EEXIST', () => {
    const { client, container, map, memory } = setUp();
    map(0, 0x2000);
    const at = { iova: 0, vaddr: memory.address, size: PAGE };
    for (const field of ['iova', 'vaddr', 'size'] as const) {
      expect(raw(client, container, {}, { ...at, [field]: BigInt(at[field]) + 1n })).toBe(-22);
      expect(client.refusal()?.field).toBe(field);
    }
  });

  it('EEXIST: any overlap, before ENOSPC', () => {
    const { map, type1 } = setUp();
    map(0x2000, 0x2000);
    type1.dmaAvail = 0;
    for (const [iova, size] of [
      [0x2000, PAGE],
      [0x1000, 0x2000],
      [0x3000, 0x2000],
      [0, 0x8000],
    ])
      expect(map(iova, size)).toBe(-17);
    expect(map(0x1000, PAGE)).toBe(-28);
  });

  it('ENOSPC: dma_entry_limit, before the range is looked at', () => {
    const { map, context, client } = setUp();
    context.modules.vfio_iommu_type1.dma_entry_limit = 2;
    const second = setUp();
    second.type1.dmaAvail = 2;
    expect([second.map(0, PAGE), second.map(PAGE, PAGE), second.map(ARM_WINDOW.start, PAGE)]).toEqual([0, 0, -28]);
    expect(unmapDma(second.client, second.container, 0, PAGE)).toBe(PAGE);
    expect(second.map(0, PAGE)).toBe(0);
    expect(map(0, PAGE)).toBe(0);
    expect(client.refusal()).toBeNull();
  });

  it('EINVAL: an IOVA that is not allowed, before ENOMEM and EFAULT', () => {
    const { client, container, memory } = setUp(limited);
    expect(mapDma(client, container, ARM_WINDOW.start, NOWHERE, 0x10_0000)).toBe(-22);
    expect(mapDma(client, container, 2 ** 48 - PAGE, memory.address, 0x10_0000)).toBe(-22);
  });

  it('EFAULT: nothing there, half of it there, and writing for a read-only mapping', () => {
    const { client, container, map, domain, type1 } = setUp();
    expect(mapDma(client, container, 0, NOWHERE, PAGE)).toBe(-14);
    expect(map(0, 0x20_0000)).toBe(-14);
    const readOnly = client.process.memory.allocate(PAGE, PAGE, false);
    expect(mapDma(client, container, 0, readOnly, PAGE, WRITE)).toBe(-14);
    expect(mapDma(client, container, 0, readOnly, PAGE, READ)).toBe(0);
    expect(mapDma(client, container, PAGE, 2n ** 63n, PAGE)).toBe(-14);
    expect([domain.pages.size, type1.dmas.size, type1.dmaAvail, client.process.lockedPages]).toEqual([1, 1, 65534, 1]);
  });

  it('ENOMEM: over RLIMIT_MEMLOCK; and back under it after an unmap', () => {
    const { client, container, map, domain } = setUp(limited);
    expect(map(0, 9 * PAGE)).toBe(-12);
    expect(client.refusal()).toMatchObject({ code: 'ENOMEM', field: 'size' });
    expect(map(0, 8 * PAGE)).toBe(0);
    expect(map(0x10_0000, PAGE)).toBe(-12);
    expect(unmapDma(client, container, 0, 8 * PAGE)).toBe(8 * PAGE);
    expect([client.process.lockedPages, domain.pages.size]).toEqual([0, 0]);
    expect(map(0x10_0000, PAGE)).toBe(0);
  });

  it('ENOMEM before EFAULT when the limit comes first in the range, EFAULT when the hole does', () => {
    const { client, container } = setUp(limited);
    const nine = buffer(client, 9 * PAGE);
    expect(mapDma(client, container, 0, nine.address, 20 * PAGE)).toBe(-12);
    const eight = buffer(client, 8 * PAGE);
    expect(mapDma(client, container, 0, eight.address, 20 * PAGE)).toBe(-14);
  });

  it('is not bound by the limit with CAP_IPC_LOCK, and is charged all the same', () => {
    const { client, map } = setUp({ process: { capabilities: ['CAP_IPC_LOCK'], limits: { memlock: PAGE } } });
    expect(map(0, 16 * PAGE)).toBe(0);
    expect(client.process.lockedPages).toBe(16);
  });

  it('maps a BAR that the process has mapped, and charges nothing for it', () => {
    const { client, container, domain } = setUp(limited);
    const address = client.process.memory.mapFile(
      {
        pa: 0x1000_0000,
        length: 64 * PAGE,
        deviceMemory: true,
        open: () => {
          throw new Error('unused');
        },
        close: () => {},
      },
      true,
    );
    expect(mapDma(client, container, 0x10_0000, address, 64 * PAGE)).toBe(0);
    expect(domain.lookup(0x10_1004)).toBe(0x1000_1004);
    expect(client.process.lockedPages).toBe(0);
  });

  it('keeps frames that the process unmapped, until the mapping goes', () => {
    const { client, container, map, context } = setUp();
    const memory = buffer(client, 2 * PAGE);
    expect(map(0, 2 * PAGE, memory)).toBe(0);
    const before = context.memory.allocated;
    memory.free();
    expect(context.memory.allocated).toBe(before);
    unmapDma(client, container, 0, 2 * PAGE);
    expect(context.memory.allocated).toBe(before - 2 * PAGE);
  });

  it("rolls all domains back when one driver refuses, with the driver's errno", () => {
    const unit = () => ({ aperture: [0, 2 ** 48 - 1] as const, pageSizes: [4096], coherent: true });
    const { map, groups, type1, client } = setUp({ groups: 2, units: [unit(), unit()] });
    const [first, second] = groups.map((group) => group.domain as MapDomain);
    second.refuseMaps = -12;
    expect(map(0, 2 * PAGE)).toBe(-12);
    expect(client.refusal()).toMatchObject({ code: 'ENOMEM', request: 'VFIO_IOMMU_MAP_DMA' });
    expect([first.pages.size, first.stale, type1.dmas.size, client.process.lockedPages]).toEqual([0, 0, 0, 0]);
    second.refuseMaps = 0;
    expect(map(0, 2 * PAGE)).toBe(0);
    expect([first.pages.size, second.pages.size]).toEqual([2, 2]);
  });
});

describe('MAP_DMA with VADDR', () => {
  it('ENOENT before EINVAL: nothing there, then not an exact match of a mapping without a vaddr', () => {
    const { client, container, map, memory } = setUp();
    map(0, 2 * PAGE);
    expect(map(0x10_0000, PAGE, memory, VADDR)).toBe(-2);
    expect(map(0, 2 * PAGE, memory, VADDR)).toBe(-22);
    expect(unmapDma(client, container, 0, 2 * PAGE, uapi.VFIO_DMA_UNMAP_FLAG_VADDR)).toBe(2 * PAGE);
    expect(map(0, PAGE, memory, VADDR)).toBe(-22);
    expect(map(0, 2 * PAGE, memory, VADDR)).toBe(0);
    expect(map(0, 2 * PAGE, memory, VADDR)).toBe(-22);
  });

  it('ENOMEM: another process takes the mapping over and is charged, if its limit allows', () => {
    const { client, container, map, kernel, type1 } = setUp();
    map(0, 4 * PAGE);
    unmapDma(client, container, 0, 4 * PAGE, uapi.VFIO_DMA_UNMAP_FLAG_VADDR);
    const next = kernel.createProcess({ capabilities: [], limits: { memlock: 3 * PAGE } });
    const fd = client.process.send(container, next);
    const address = next.memory.allocate(PAGE);
    const layout = uapi.vfio_iommu_type1_dma_map;
    next.memory.copyOut(address, layout.bytes({ argsz: 32, flags: VADDR, vaddr: address, iova: 0, size: 4 * PAGE }));
    expect(kernel.syscalls.ioctl(next, fd, uapi.VFIO_IOMMU_MAP_DMA, BigInt(address))).toBe(-12);
    next.limits.memlock = 4 * PAGE;
    expect(kernel.syscalls.ioctl(next, fd, uapi.VFIO_IOMMU_MAP_DMA, BigInt(address))).toBe(0);
    expect([client.process.lockedPages, next.lockedPages, type1.vaddrInvalidCount]).toEqual([0, 4, 0]);
  });
});
