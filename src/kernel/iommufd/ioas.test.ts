import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/iommufd.ts';
import type { Init } from '../../uapi/struct.ts';
import { allocate, attachedHost, FIXED, type Iommufd, ioasHost, iommufdHost, READ, WRITE } from './testing.ts';

const PAGE = 4096;
const U64_MAX = 0xffff_ffff_ffff_ffffn;
/** The window of Linux's Arm drivers. */
const WINDOW = 0x800_0000;

describe('IOAS_ALLOC', () => {
  it('has no flags', () => {
    const { iommufd } = iommufdHost();
    expect(iommufd.call(uapi.IOMMU_IOAS_ALLOC, uapi.iommu_ioas_alloc, { flags: 1 }).result).toBe('EOPNOTSUPP');
  });
});

describe('IOAS_MAP, check by check', () => {
  const { iommufd, id, va } = attachedHost();
  const map = (fields: Init<typeof uapi.iommu_ioas_map>) =>
    iommufd.call(uapi.IOMMU_IOAS_MAP, uapi.iommu_ioas_map, {
      ioas_id: id,
      flags: FIXED | READ | WRITE,
      user_va: va,
      length: PAGE,
      iova: 0x10_0000,
      ...fields,
    }).result;

  it('refuses in the order of Linux', () => {
    expect(map({ flags: 8, iova: U64_MAX })).toBe('EOPNOTSUPP');
    expect(map({ __reserved: 1, iova: U64_MAX })).toBe('EOPNOTSUPP');
    expect(map({ flags: FIXED, iova: U64_MAX })).toBe('EOVERFLOW');
    expect(map({ flags: FIXED, length: U64_MAX })).toBe('EOVERFLOW');
    expect(map({ flags: FIXED, ioas_id: 99 })).toBe('EINVAL');
    expect(map({ ioas_id: 99, length: 0 })).toBe('ENOENT');
    expect(map({ ioas_id: 2, length: 0 })).toBe('ENOENT');
    expect(map({ user_va: U64_MAX - 0xfffn, length: PAGE * 2, iova: 1 })).toBe('EOVERFLOW');
    expect(map({ length: 0, iova: 1 })).toBe('EINVAL');
    expect(map({ length: 100, iova: WINDOW })).toBe('EINVAL');
    expect(map({ iova: 0x10_0001 })).toBe('EINVAL');
    expect(map({ iova: U64_MAX & ~0xfffn, length: PAGE * 2 })).toBe('EOVERFLOW');
    expect(map({ iova: WINDOW })).toBe('EINVAL');
    expect(map({ iova: WINDOW - PAGE, length: 2 * PAGE })).toBe('EINVAL');
    expect(map({ iova: WINDOW + 0x10_0000 - PAGE })).toBe('EINVAL');
    expect(map({ iova: 2 ** 48 })).toBe('EINVAL');
    expect(map({})).toBe(0);
    expect(map({ user_va: va + 1 })).toBe('EEXIST');
    expect(map({ user_va: va + 1, iova: 0x20_0000 })).toBe('EINVAL');
    expect(map({ user_va: 0x1000, iova: 0x20_0000 })).toBe('EFAULT');
    expect(map({ user_va: U64_MAX - 0xffffn, iova: 0x20_0000 })).toBe('EFAULT');
  });

  it('takes both edges of the window and of the aperture', () => {
    for (const iova of [WINDOW - PAGE, WINDOW + 0x10_0000, 0, 2 ** 48 - PAGE]) expect(map({ iova })).toBe(0);
  });
});

describe('before a domain', () => {
  it('everything but nothing may be mapped, at any alignment', () => {
    const { iommufd, id, va } = ioasHost();
    expect(iommufd.ranges(id)).toEqual({ result: 0, total: 1, alignment: 1n, list: [[0n, U64_MAX]] });
    expect(iommufd.mapAt(id, 1, va + 3, 5)).toBe(0);
    expect(iommufd.mapAt(id, 5, va, 1)).toBe('EEXIST');
    expect(iommufd.mapAt(id, 6, va, 1)).toBe(0);
    expect(iommufd.mapAt(id, U64_MAX - 1n, va, 2)).toBe(0);
    expect(iommufd.mapAt(id, 2n ** 53n - 1n, va, 2)).toBe(0);
    expect(iommufd.mapAt(id, 2n ** 53n, va, 1)).toBe('EEXIST');
    expect(iommufd.unmap(id, 2n ** 53n - 1n, 2)).toBe(2n);
    expect(iommufd.unmap(id, 0, U64_MAX)).toBe(8n);
  });

  it('no page is pinned: MAP of nothing succeeds, the attach that needs it fails', () => {
    const { iommufd, id, devices, client, groups } = ioasHost();
    expect(iommufd.mapAt(id, 0x10_0000, 0x1000, PAGE)).toBe(0);
    expect(iommufd.bind(devices[0]!)).toBe(2);
    expect(iommufd.attach(devices[0]!, id)).toBe('EFAULT');
    expect(client.process.lockedPages).toBe(0);
    expect(groups[0]!.domain).toBe(groups[0]!.blockingDomain);
    expect(iommufd.unmap(id, 0x10_0000, PAGE)).toBe(4096n);
    expect(iommufd.attach(devices[0]!, id)).toBe(3);
  });

  it('a mapping over the window makes the attach fail, not itself; ALLOW_IOVAS as well', () => {
    const { iommufd, id, va, devices } = ioasHost();
    expect(iommufd.bind(devices[0]!)).toBe(2);
    expect(iommufd.mapAt(id, WINDOW, va, PAGE)).toBe(0);
    expect(iommufd.attach(devices[0]!, id)).toBe('EADDRINUSE');
    expect(iommufd.unmap(id, WINDOW, PAGE)).toBe(4096n);
    expect(iommufd.allow(id, [[0x10_0000, WINDOW]])).toBe(0);
    expect(iommufd.attach(devices[0]!, id)).toBe('EADDRINUSE');
    expect(iommufd.allow(id, [[0x10_0000, WINDOW - 1]])).toBe(0);
    expect(iommufd.attach(devices[0]!, id)).toBe(3);
  });

  it('a mapping that is no whole page, or outside of the aperture, makes the attach fail', () => {
    const { iommufd, id, va, devices } = ioasHost();
    iommufd.bind(devices[0]!);
    expect(iommufd.mapAt(id, 0x1000, va, 8)).toBe(0);
    expect(iommufd.attach(devices[0]!, id)).toBe('EADDRINUSE');
    expect(iommufd.unmap(id, 0x1000, 8)).toBe(8n);
    expect(iommufd.mapAt(id, 0x1000, va + 8, PAGE)).toBe(0);
    expect(iommufd.attach(devices[0]!, id)).toBe('EADDRINUSE');
    expect(iommufd.unmap(id, 0, U64_MAX)).toBe(4096n);
    expect(iommufd.mapAt(id, 2 ** 48, va, PAGE)).toBe(0);
    expect(iommufd.attach(devices[0]!, id)).toBe('EADDRINUSE');
  });
});

describe('IOVA_RANGES', () => {
  it('shows what an attached device leaves, with the page of the domain', () => {
    const { iommufd, id, devices } = attachedHost();
    const list = [
      [0n, 0x7ff_ffffn],
      [0x810_0000n, 0xffff_ffff_ffffn],
    ];
    expect(iommufd.ranges(id)).toEqual({ result: 0, total: 2, alignment: 4096n, list });
    expect(iommufd.detach(devices[0]!)).toBe(0);
    expect(iommufd.ranges(id).list).toEqual([[0n, U64_MAX]]);
  });

  it('says EMSGSIZE without room for all, and writes the struct and what fits', () => {
    const { iommufd, id } = attachedHost();
    expect(iommufd.ranges(id, 1)).toEqual({
      result: 'EMSGSIZE',
      total: 2,
      alignment: 4096n,
      list: [[0n, 0x7ff_ffffn]],
    });
    const none = iommufd.call(uapi.IOMMU_IOAS_IOVA_RANGES, uapi.iommu_ioas_iova_ranges, { ioas_id: id });
    expect([none.result, none.num_iovas]).toEqual(['EMSGSIZE', 2]);
  });

  it('refuses in order', () => {
    const { iommufd, id } = attachedHost();
    const ask = (fields: Init<typeof uapi.iommu_ioas_iova_ranges>) =>
      iommufd.call(uapi.IOMMU_IOAS_IOVA_RANGES, uapi.iommu_ioas_iova_ranges, fields).result;
    expect(ask({ ioas_id: 99, __reserved: 1 })).toBe('EOPNOTSUPP');
    expect(ask({ ioas_id: 99, num_iovas: 1 })).toBe('ENOENT');
    expect(ask({ ioas_id: id, num_iovas: 1, allowed_iovas: 0x10 })).toBe('EFAULT');
  });
});

describe('ALLOW_IOVAS', () => {
  it('refuses in order, and then leaves what was', () => {
    const { iommufd, id, va } = attachedHost();
    const call = (fields: Init<typeof uapi.iommu_ioas_allow_iovas>) =>
      iommufd.call(uapi.IOMMU_IOAS_ALLOW_IOVAS, uapi.iommu_ioas_allow_iovas, fields).result;
    expect(iommufd.allow(id, [[0x20_0000, 0x2f_ffff]])).toBe(0);
    expect(call({ ioas_id: 99, __reserved: 1 })).toBe('EOPNOTSUPP');
    expect(call({ ioas_id: 99, num_iovas: 1 })).toBe('ENOENT');
    expect(call({ ioas_id: id, num_iovas: 1, allowed_iovas: 0x10 })).toBe('EFAULT');
    expect(iommufd.allow(id, [[5, 5]])).toBe('EINVAL');
    expect(
      iommufd.allow(id, [
        [0x1000, 0x1fff],
        [0x1fff, 0x2fff],
      ]),
    ).toBe('EINVAL');
    expect(
      iommufd.allow(id, [
        [0x1000, WINDOW],
        [0x1fff, 0x2fff],
      ]),
    ).toBe('EINVAL');
    expect(iommufd.allow(id, [[0x1000, WINDOW]])).toBe('EADDRINUSE');
    expect(iommufd.map(id, va, PAGE)).toBe(0x20_0000n);
  });

  it('binds the choice of the kernel, not the user', () => {
    const { iommufd, id, va } = attachedHost();
    expect(
      iommufd.allow(id, [
        [0x40_0000, 0x40_1fff],
        [0x20_0000, 0x20_0fff],
      ]),
    ).toBe(0);
    expect(iommufd.mapAt(id, 0x1000, va, PAGE)).toBe(0);
    expect([iommufd.map(id, va, PAGE), iommufd.map(id, va, PAGE), iommufd.map(id, va, PAGE)]).toEqual([
      0x20_0000n,
      0x40_0000n,
      0x40_1000n,
    ]);
    expect(iommufd.map(id, va, PAGE)).toBe('ENOSPC');
    expect(iommufd.allow(id, [])).toBe(0);
    expect(iommufd.map(id, va, PAGE)).toBe(0x2000n);
  });
});

/** io_pagetable.c iopt_alloc_iova. The buffer is aligned to its own size, 1 MiB. */
describe('the choice of an IOVA', () => {
  it('is the lowest one, and never 0', () => {
    const { iommufd, id, va } = attachedHost();
    expect(iommufd.map(id, va, PAGE)).toBe(0x1000n);
    expect(iommufd.map(id, va, PAGE)).toBe(0x2000n);
    expect(iommufd.unmap(id, 0x1000, PAGE)).toBe(4096n);
    expect(iommufd.map(id, va, PAGE)).toBe(0x1000n);
  });

  it('has the alignment of the length, as far as the address has it', () => {
    const { iommufd, id, va } = attachedHost();
    expect(iommufd.map(id, va, 3 * PAGE)).toBe(0x4000n);
    expect(iommufd.map(id, va + 0x2000, 4 * PAGE)).toBe(0x8000n);
    expect(iommufd.map(id, va + 0x2000, 2 * PAGE)).toBe(0x2000n);
    expect(iommufd.map(id, va, 0x10_0000)).toBe(0x10_0000n);
    expect(iommufd.map(id, va + 0x1000, 0x8000)).toBe(0xc000n);
  });

  it('is aligned to a huge page at most', () => {
    const { iommufd, id, client } = attachedHost();
    const large = allocate(client, 0x80_0000);
    expect(large.address % 0x80_0000).toBe(0);
    expect(iommufd.map(id, large.address, 0x80_0000)).toBe(0x20_0000n);
  });

  /** Behind the first mapping, which ends at 0x1222, there is room for the second one in the same page. */
  it('keeps the offset in the page', () => {
    const { iommufd, id, va } = ioasHost();
    expect(iommufd.map(id, va + 0x123, 0x100)).toBe(0x1123n);
    expect(iommufd.map(id, va + 0x400, 0x100)).toBe(0x1400n);
    expect(iommufd.map(id, 0, 0x100)).toBe(0x1000n);
  });

  it('steps over the window', () => {
    const { iommufd, id, va } = attachedHost();
    expect(
      iommufd.allow(id, [
        [0x7ff_f000 - 0x1000, WINDOW - 1],
        [WINDOW + 0x10_0000, WINDOW + 0x1f_ffff],
      ]),
    ).toBe(0);
    expect(iommufd.map(id, va, 2 * PAGE)).toBe(0x7ff_e000n);
    expect(iommufd.map(id, va, 2 * PAGE)).toBe(0x810_0000n);
  });

  it('refuses half of everything, and addresses that are less aligned than the domain', () => {
    const { iommufd, id, va } = attachedHost();
    expect(iommufd.map(id, 0, U64_MAX / 2n + 1n)).toBe('EOVERFLOW');
    expect(iommufd.map(id, va + 8, PAGE)).toBe('EINVAL');
  });
});

describe('IOAS_UNMAP', () => {
  it('refuses in order', () => {
    const { iommufd, id } = ioasHost();
    expect(iommufd.unmap(99, U64_MAX, 0)).toBe('ENOENT');
    expect(iommufd.unmap(id, U64_MAX, 0)).toBe('EOVERFLOW');
    expect(iommufd.unmap(id, 1, U64_MAX)).toBe('EOVERFLOW');
    expect(iommufd.unmap(id, 1, 0)).toBe('EINVAL');
    expect(iommufd.unmap(id, U64_MAX - 1n, 3)).toBe('EOVERFLOW');
    expect(iommufd.unmap(id, 0, PAGE)).toBe('ENOENT');
  });

  it('of everything succeeds with nothing there', () => {
    const { iommufd, id } = ioasHost();
    expect(iommufd.unmap(id, 0, U64_MAX)).toBe(0n);
  });

  it('takes whole mappings, and keeps what it did before one that it would cut', () => {
    const { iommufd, id, va, groups } = attachedHost();
    const domain = groups[0]!.made.at(-1)!;
    for (const iova of [0x1000, 0x3000]) expect(iommufd.mapAt(id, iova, va, 2 * PAGE)).toBe(0);
    expect(iommufd.unmap(id, 0x2000, PAGE)).toBe('ENOENT');
    expect(iommufd.unmap(id, 0x1000, PAGE)).toBe('ENOENT');
    expect(domain.pages.size).toBe(4);
    expect(iommufd.unmap(id, 0x1000, 3 * PAGE)).toBe('ENOENT');
    expect([...domain.pages.keys()]).toEqual([0x3000, 0x4000]);
    expect(iommufd.unmap(id, 0, 0x10_0000)).toBe(8192n);
    expect([domain.pages.size, domain.stale]).toEqual([0, 0]);
  });
});

describe('IOAS_COPY', () => {
  it('refuses in order', () => {
    const { iommufd, id, va } = ioasHost();
    expect(iommufd.mapAt(id, 0x1000, va, 2 * PAGE, READ)).toBe(0);
    const copy = (fields: Init<typeof uapi.iommu_ioas_copy>) =>
      iommufd.call(uapi.IOMMU_IOAS_COPY, uapi.iommu_ioas_copy, {
        flags: READ,
        src_ioas_id: id,
        dst_ioas_id: id,
        length: PAGE,
        src_iova: 0x1000,
        ...fields,
      }).result;
    expect(copy({ flags: 8, length: U64_MAX })).toBe('EOPNOTSUPP');
    expect(copy({ flags: 0, length: U64_MAX })).toBe('EOVERFLOW');
    expect(copy({ flags: 0, src_iova: U64_MAX })).toBe('EOVERFLOW');
    expect(copy({ flags: 0, dst_iova: U64_MAX })).toBe('EOVERFLOW');
    expect(copy({ flags: 0, src_ioas_id: 99 })).toBe('EINVAL');
    expect(copy({ src_ioas_id: 99, length: 0 })).toBe('ENOENT');
    expect(copy({ length: 0, src_iova: 0x9000 })).toBe('EINVAL');
    expect(copy({ src_iova: U64_MAX - 1n, length: 8 })).toBe('EOVERFLOW');
    expect(copy({ src_iova: 0x2000, length: 2 * PAGE, dst_ioas_id: 99 })).toBe('ENOENT');
    expect(copy({ dst_ioas_id: 99, flags: READ | WRITE })).toBe('ENOENT');
    expect(copy({ flags: READ | WRITE | FIXED, dst_iova: 0x1000 })).toBe('EEXIST');
    expect(copy({ flags: READ | WRITE })).toBe('EPERM');
    expect(copy({})).toBe(0);
  });

  it('maps the same frames, also after the process mapped something else there', () => {
    const { iommufd, id, va, groups, devices, client, memory } = attachedHost({ groups: 2 });
    expect(iommufd.mapAt(id, 0x1000, va, 4 * PAGE)).toBe(0);
    const first = groups[0]!.made.at(-1)!;
    const frame = first.lookup(0x2000);
    memory.free();
    const other = iommufd.ioas();
    expect(iommufd.bind(devices[1]!)).toBe(5);
    expect(iommufd.attach(devices[1]!, other)).toBe(6);
    expect(iommufd.copy(id, 0x2000, 2 * PAGE, other, 0x8000)).toBe(0x8000n);
    const second = groups[1]!.made.at(-1)!;
    expect([second.lookup(0x8000), second.lookup(0x9000)]).toEqual([frame, frame + PAGE]);
    expect(iommufd.unmap(id, 0x1000, 4 * PAGE)).toBe(16384n);
    expect(second.lookup(0x8000)).toBe(frame);
    expect(iommufd.unmap(other, 0x8000, 2 * PAGE)).toBe(8192n);
    client.kernel.exit(client.process);
    expect(groups.map((group) => group.dmaOwner)).toEqual([null, null]);
  });

  it('takes a range over several mappings, one behind the other', () => {
    const { iommufd, id, va, groups } = attachedHost();
    const domain = groups[0]!.made.at(-1)!;
    expect(iommufd.mapAt(id, 0x1000, va, PAGE)).toBe(0);
    expect(iommufd.mapAt(id, 0x2000, va + 8 * PAGE, PAGE)).toBe(0);
    expect(iommufd.copy(id, 0x1000, 2 * PAGE, id, 0x10_0000)).toBe(0x10_0000n);
    expect(domain.lookup(0x10_0000)).toBe(domain.lookup(0x1000));
    expect(domain.lookup(0x10_1000)).toBe(domain.lookup(0x2000));
    expect(iommufd.unmap(id, 0x10_0000, PAGE)).toBe(4096n);
    expect(iommufd.unmap(id, 0x10_0000, 2 * PAGE)).toBe(4096n);
  });
});

describe('OPTION', () => {
  const set = (iommufd: Iommufd, fields: Init<typeof uapi.iommu_option>) =>
    iommufd.call(uapi.IOMMU_OPTION, uapi.iommu_option, fields);

  it('RLIMIT_MODE refuses in order', () => {
    const { iommufd, client } = iommufdHost();
    const { capabilities } = client.process.credentials;
    expect(set(iommufd, { __reserved: 1, option_id: 9 }).result).toBe('EOPNOTSUPP');
    expect(set(iommufd, { option_id: 9 }).result).toBe('EOPNOTSUPP');
    expect(set(iommufd, { object_id: 1, op: 1 }).result).toBe('EOPNOTSUPP');
    expect(set(iommufd, { op: 2 }).result).toBe('EOPNOTSUPP');
    capabilities.delete('CAP_SYS_RESOURCE');
    iommufd.ioas();
    expect(set(iommufd, { val64: 2 }).result).toBe('EPERM');
    expect(set(iommufd, { op: 1 }).val64).toBe(0n);
    capabilities.add('CAP_SYS_RESOURCE');
    expect(set(iommufd, { val64: 2 }).result).toBe('EBUSY');
    expect(iommufd.destroy(1)).toBe(0);
    expect(set(iommufd, { val64: 2 }).result).toBe('EINVAL');
    expect(set(iommufd, { val64: 1 }).result).toBe(0);
    expect(set(iommufd, { op: 1 }).val64).toBe(1n);
  });

  it('HUGE_PAGES refuses in order', () => {
    const { iommufd, id, va, devices } = attachedHost();
    const huge = (fields: Init<typeof uapi.iommu_option>) => set(iommufd, { option_id: 1, ...fields });
    expect(huge({ object_id: 99, op: 9 }).result).toBe('ENOENT');
    expect(huge({ object_id: id, op: 9 }).result).toBe('EOPNOTSUPP');
    expect(huge({ object_id: id, val64: 2 }).result).toBe('EINVAL');
    expect(huge({ object_id: id, op: 1 }).val64).toBe(1n);
    iommufd.mapAt(id, 0x1000, va, PAGE);
    expect(huge({ object_id: id, val64: 0 }).result).toBe('EINVAL');
    iommufd.detach(devices[0]!);
    expect(iommufd.mapAt(id, 0x5001, va, 7)).toBe(0);
    expect(huge({ object_id: id, val64: 0 }).result).toBe('EADDRINUSE');
    expect(iommufd.unmap(id, 0x5001, 7)).toBe(7n);
    expect(huge({ object_id: id, val64: 0 }).result).toBe(0);
    expect(iommufd.ranges(id).alignment).toBe(4096n);
    expect(huge({ object_id: id, op: 1 }).val64).toBe(0n);
    expect(huge({ object_id: id, val64: 1 }).result).toBe(0);
    expect(iommufd.ranges(id).alignment).toBe(1n);
  });
});

describe('VFIO_IOAS', () => {
  it('names the IOAS that stands for a container', () => {
    const { iommufd, id } = ioasHost();
    const ask = (op: number, fields: Init<typeof uapi.iommu_vfio_ioas> = {}) =>
      iommufd.call(uapi.IOMMU_VFIO_IOAS, uapi.iommu_vfio_ioas, { op, ...fields });
    expect(ask(0, { __reserved: 1 }).result).toBe('EOPNOTSUPP');
    expect(ask(3).result).toBe('EOPNOTSUPP');
    expect(ask(0).result).toBe('ENODEV');
    expect(ask(1, { ioas_id: 99 }).result).toBe('ENOENT');
    expect(ask(1, { ioas_id: id }).result).toBe(0);
    expect(ask(0).ioas_id).toBe(id);
    expect(ask(2).result).toBe(0);
    expect(ask(0).result).toBe('ENODEV');
    ask(1, { ioas_id: id });
    expect(iommufd.destroy(id)).toBe(0);
    expect(ask(0).result).toBe('ENODEV');
  });
});
