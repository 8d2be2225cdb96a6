import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../uapi/errno.ts';
import * as uapi from '../../uapi/iommufd.ts';
import type { Init } from '../../uapi/struct.ts';
import type { File } from '../files.ts';
import { userLockedPages } from './account.ts';
import { attachedHost, FIXED, iommufdHost, READ, WRITE } from './testing.ts';

const PAGE = 4096;
const U64_MAX = 0xffff_ffff_ffff_ffffn;

describe('what pinned pages cost', () => {
  const unlocked = {
    process: { capabilities: ['CAP_DAC_OVERRIDE', 'CAP_SYS_RESOURCE'], limits: { memlock: 8 * PAGE } },
  };

  it('is charged to the user once, however often they are copied', () => {
    const { iommufd, id, va, client, context } = attachedHost(unlocked);
    expect(iommufd.mapAt(id, 0x1000, va, 6 * PAGE)).toBe(0);
    expect(iommufd.copy(id, 0x1000, 6 * PAGE, id, 0x10_0000)).toBe(0x10_0000n);
    expect([userLockedPages(context, 0), client.process.lockedPages]).toEqual([6, 0]);
    expect(iommufd.mapAt(id, 0x20_0000, va, 3 * PAGE)).toBe('ENOMEM');
    expect(iommufd.mapAt(id, 0x20_0000, 0x1000, 30 * PAGE)).toBe('EFAULT');
    expect(iommufd.mapAt(id, 0x20_0000, va, 2 * PAGE)).toBe(0);
    expect(iommufd.unmap(id, 0x1000, 6 * PAGE)).toBe(24576n);
    expect(userLockedPages(context, 0)).toBe(8);
    expect(iommufd.unmap(id, 0x10_0000, 6 * PAGE)).toBe(24576n);
    expect(userLockedPages(context, 0)).toBe(2);
    client.kernel.exit(client.process);
    expect(userLockedPages(context, 0)).toBe(0);
  });

  it('is what the copies that are left cover', () => {
    const { iommufd, id, va, context } = attachedHost(unlocked);
    expect(iommufd.mapAt(id, 0x1000, va, 6 * PAGE)).toBe(0);
    expect(iommufd.copy(id, 0x1000, 2 * PAGE, id, 0x10_0000)).toBe(0x10_0000n);
    expect(iommufd.copy(id, 0x5000, 2 * PAGE, id, 0x20_0000)).toBe(0x20_0000n);
    expect(iommufd.unmap(id, 0x1000, 6 * PAGE)).toBe(24576n);
    expect(userLockedPages(context, 0)).toBe(4);
  });

  it('is charged to the process with RLIMIT_MODE 1', () => {
    const { iommufd, memory, devices, client, context } = iommufdHost(unlocked);
    expect(iommufd.call(uapi.IOMMU_OPTION, uapi.iommu_option, { val64: 1 }).result).toBe(0);
    const id = iommufd.ioas();
    iommufd.bind(devices[0]!);
    iommufd.attach(devices[0]!, id);
    expect(iommufd.mapAt(id, 0x1000, memory.address, 8 * PAGE)).toBe(0);
    expect([userLockedPages(context, 0), client.process.lockedPages]).toEqual([0, 8]);
    expect(iommufd.mapAt(id, 0x20_0000, memory.address, PAGE)).toBe('ENOMEM');
    iommufd.detach(devices[0]!);
    expect(client.process.lockedPages).toBe(0);
  });

  it('is nothing with CAP_IPC_LOCK, and nothing without a domain', () => {
    const { iommufd, id, va, client, context } = attachedHost({ process: { limits: { memlock: 0 } } });
    expect(iommufd.mapAt(id, 0x1000, va, 8 * PAGE)).toBe(0);
    const other = iommufd.ioas();
    client.process.credentials.capabilities.delete('CAP_IPC_LOCK');
    expect(iommufd.mapAt(other, 0x1000, va, 8 * PAGE)).toBe(0);
    expect([userLockedPages(context, 0), client.process.lockedPages]).toEqual([0, 0]);
    expect(iommufd.mapAt(id, 0x10_0000, va, PAGE)).toBe('ENOMEM');
  });
});

describe('memory that has no pages', () => {
  it('a BAR is EFAULT, where VFIO type1 takes it', () => {
    const { iommufd, id, client } = attachedHost();
    const open = () => {
      throw new Error('nobody looks');
    };
    const bar = { pa: 0x6000_0000, length: PAGE, deviceMemory: true, open, close: () => {} };
    const va = client.process.memory.mapFile(bar, true);
    expect(iommufd.mapAt(id, 0x1000, va, PAGE)).toBe('EFAULT');
  });

  it('read-only memory can be mapped for reading', () => {
    const { iommufd, id, client } = attachedHost();
    const va = client.process.memory.allocate(PAGE, PAGE, false);
    expect(iommufd.mapAt(id, 0x1000, va, PAGE, WRITE)).toBe('EFAULT');
    expect(iommufd.mapAt(id, 0x1000, va, PAGE, READ)).toBe(0);
  });
});

describe('IOAS_MAP_FILE', () => {
  const layout = uapi.iommu_ioas_map_file;
  /** 4 pages of the machine's RAM as a memfd. */
  const memfd = (pa: number, state = { pinned: 0, open: 1 }): File & { readonly state: typeof state } => ({
    name: '/memfd:test (deleted)',
    state,
    pin(offset, length) {
      if (offset + length > 4 * PAGE) return -ERRNO.EINVAL;
      state.pinned += 1;
      const release = () => {
        state.pinned -= 1;
      };
      return { runs: [{ pa: pa + offset, length }], accountedPages: length / PAGE, deviceMemory: false, release };
    },
    release() {
      state.open = 0;
    },
  });

  it('maps offsets of a file, and keeps it open', () => {
    const { iommufd, id, client, groups, context } = attachedHost();
    const pa = context.memory.allocate(4 * PAGE)!;
    const file = memfd(pa);
    const fd = client.process.install(file);
    const map = (fields: Init<typeof layout>) =>
      iommufd.call(uapi.IOMMU_IOAS_MAP_FILE, layout, {
        ioas_id: id,
        flags: READ,
        fd,
        start: 0x1000,
        length: 0x2000,
        ...fields,
      });
    expect(map({ flags: 8, fd: -1 }).result).toBe('EOPNOTSUPP');
    expect(map({ flags: FIXED, iova: U64_MAX }).result).toBe('EOVERFLOW');
    expect(map({ flags: FIXED }).result).toBe('EINVAL');
    expect(map({ ioas_id: 99, fd: -1 }).result).toBe('ENOENT');
    expect(map({ fd: -1, length: 0 }).result).toBe('EINVAL');
    expect(map({ fd: -1, start: U64_MAX }).result).toBe('EOVERFLOW');
    expect(map({ fd: -1 }).result).toBe('EBADF');
    expect(map({ start: 0x3000 }).result).toBe('EINVAL');
    expect(map({ fd: iommufd.fd }).result).toBe('EINVAL');
    expect(map({}).iova).toBe(0x1000n);
    const domain = groups[0]!.made.at(-1)!;
    expect(domain.lookup(0x1000)).toBe(pa + 0x1000);
    client.close(fd);
    expect(file.state).toEqual({ pinned: 1, open: 1 });
    expect(iommufd.unmap(id, 0x1000, 0x2000)).toBe(8192n);
    expect(file.state).toEqual({ pinned: 0, open: 0 });
  });

  it('moves the charge to the process that asks, when everything is of files', () => {
    const host = attachedHost({
      process: { capabilities: ['CAP_DAC_OVERRIDE'], euid: 0, limits: { memlock: 4 * PAGE } },
    });
    const { iommufd, id, client, kernel, context, va } = host;
    const fd = client.process.install(memfd(context.memory.allocate(4 * PAGE)!));
    const change = (fields: Init<typeof uapi.iommu_ioas_change_process>) =>
      iommufd.call(uapi.IOMMU_IOAS_CHANGE_PROCESS, uapi.iommu_ioas_change_process, fields).result;
    const mapped = iommufd.call(uapi.IOMMU_IOAS_MAP_FILE, layout, { ioas_id: id, flags: READ, fd, length: 0x3000 });
    expect(mapped.result).toBe(0);
    expect(change({ __reserved: 1 })).toBe('EOPNOTSUPP');
    expect(iommufd.mapAt(id, 0x10_0000, va, PAGE)).toBe(0);
    expect(change({})).toBe('EINVAL');
    expect(iommufd.unmap(id, 0x10_0000, PAGE)).toBe(4096n);
    const child = kernel.createProcess({ euid: 7, capabilities: [], limits: { memlock: 2 * PAGE } });
    client.process.send(iommufd.fd, child);
    const address = child.memory.allocate(PAGE);
    child.memory.copyOut(address, uapi.iommu_ioas_change_process.bytes({ size: 8 }));
    const asChild = () => kernel.syscalls.ioctl(child, 0, uapi.IOMMU_IOAS_CHANGE_PROCESS, BigInt(address));
    expect(asChild()).toBe(-ERRNO.ENOMEM);
    expect([userLockedPages(context, 0), userLockedPages(context, 7)]).toEqual([3, 0]);
    child.limits.memlock = 3 * PAGE;
    expect(asChild()).toBe(0);
    expect([userLockedPages(context, 0), userLockedPages(context, 7)]).toEqual([0, 3]);
  });
});

describe('IOAS_MAP_FILE of a memfd', () => {
  const F_ADD_SEALS = 1033;
  const F_SEAL_WRITE = 8;

  function memfdHost(length: number, options: Parameters<typeof attachedHost>[0] = {}) {
    const host = attachedHost(options);
    const { client, kernel, iommufd, id } = host;
    const fd = client.memfd('memory', length);
    const map = (fields: Init<typeof uapi.iommu_ioas_map_file> = {}) => {
      const all = { ioas_id: id, flags: READ | WRITE, fd, length: PAGE, ...fields };
      const answer = iommufd.call(uapi.IOMMU_IOAS_MAP_FILE, uapi.iommu_ioas_map_file, all);
      return answer.result === 0 ? answer.iova : answer.result;
    };
    const cut = (size: number) => kernel.syscalls.ftruncate(client.process, fd, size);
    const domain = host.groups[0]!.made.at(-1)!;
    const word = (iova: number) => host.context.memory.read32(domain.lookup(iova));
    return { ...host, fd, map, cut, domain, word };
  }

  it('EINVAL beyond the last byte of the file, also within its last page; later where there is no domain yet', () => {
    const { map, iommufd, cut, client, devices } = memfdHost(3 * PAGE - 1);
    expect([map({ start: 2 * PAGE }), map({ start: 3 * PAGE }), map({ length: 2 * PAGE })]).toEqual([
      'EINVAL',
      'EINVAL',
      0x2000n,
    ]);
    const early = iommufd.ioas();
    expect(map({ ioas_id: early, start: 64 * PAGE })).toBe(0x1000n);
    expect(iommufd.hwpt(2, early)).toBe('EINVAL');
    expect(cut(65 * PAGE)).toBe(0);
    expect(typeof iommufd.hwpt(2, early)).toBe('number');
    expect([client.close(devices[0]!), map({ fd: devices[0]! })]).toEqual([0, 'EBADF']);
  });

  it('what is pinned stays when the file is cut: the page is the device’s and the copies’, and no longer the file’s', () => {
    const { map, cut, word, domain, client, fd, iommufd, id, context } = memfdHost(2 * PAGE);
    const mapping = client.mmap(fd, 0, 2 * PAGE);
    if (typeof mapping === 'number') throw new Error();
    expect(map({ length: 2 * PAGE })).toBe(0x2000n);
    mapping.write32(PAGE, 0x1111);
    expect(word(0x3000)).toBe(0x1111);
    expect([cut(PAGE), cut(2 * PAGE)]).toEqual([0, 0]);
    mapping.write32(PAGE, 0x2222);
    expect(word(0x3000)).toBe(0x1111);
    expect(iommufd.copy(id, 0x3000, PAGE, id, 0x10_0000)).toBe(0x10_0000n);
    expect(domain.lookup(0x10_0000)).toBe(domain.lookup(0x3000));
    expect(map({ start: PAGE })).toBe(0x1000n);
    expect(word(0x1000)).toBe(0x2222);
    const pinned = context.memory.allocated;
    mapping.unmap();
    client.close(fd);
    expect(iommufd.unmap(id, 0, U64_MAX)).toBe(BigInt(4 * PAGE));
    expect(pinned - context.memory.allocated).toBe(3 * PAGE);
  });

  it('a device’s page keeps F_SEAL_WRITE off; sealed files are mapped all the same, writable too', () => {
    const { map, client, kernel, iommufd, id, fd } = memfdHost(2 * PAGE);
    const seal = () => kernel.syscalls.fcntl(client.process, fd, F_ADD_SEALS, F_SEAL_WRITE);
    expect([map(), seal()]).toEqual([0x1000n, -ERRNO.EBUSY]);
    expect([iommufd.unmap(id, 0x1000, PAGE), seal(), map()]).toEqual([4096n, 0, 0x1000n]);
  });

  it('is charged by pages, and moves with CHANGE_PROCESS', () => {
    const { map, context, client, kernel, iommufd, fd } = memfdHost(8 * PAGE, {
      process: { capabilities: ['CAP_DAC_OVERRIDE'], limits: { memlock: 4 * PAGE } },
    });
    expect([map({ length: 5 * PAGE }), map({ length: 3 * PAGE }), map({ start: PAGE, length: PAGE + 1 })]).toEqual([
      'ENOMEM',
      0x4000n,
      'EINVAL',
    ]);
    expect(userLockedPages(context, 0)).toBe(3);
    const child = kernel.createProcess({ euid: 5, capabilities: [], limits: { memlock: 3 * PAGE } });
    client.process.send(iommufd.fd, child);
    const address = child.memory.allocate(PAGE);
    child.memory.copyOut(address, uapi.iommu_ioas_change_process.bytes({ size: 8 }));
    expect(kernel.syscalls.ioctl(child, 0, uapi.IOMMU_IOAS_CHANGE_PROCESS, BigInt(address))).toBe(0);
    client.close(fd);
    expect([userLockedPages(context, 0), userLockedPages(context, 5)]).toEqual([0, 3]);
    // With its last program the device leaves the IOAS, and nothing needs the pages.
    kernel.exit(client.process);
    expect(userLockedPages(context, 5)).toBe(0);
  });
});
