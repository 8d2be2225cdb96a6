/** IOMMU_TEST_CMD of a kernel with CONFIG_IOMMUFD_TEST, as far as it is built: what the iommufd selftests look behind the scenes with. */
import { copyStructFromUser } from '../../kernel/copy-struct.ts';
import { attachDevice, HwptPaging, Ioas, type IommufdFile, replaceDevice } from '../../kernel/iommufd/index.ts';
import type { RefusalLog } from '../../kernel/refusal.ts';
import { copyFromUser } from '../../kernel/user-copy.ts';
import { hex } from '../../ports/address.ts';
import type { ForeignProcess } from '../foreign-process.ts';
import type { FrameWindow } from '../frame-window.ts';
import { Access, AccessFile, type Piece } from './access.ts';
import { COMMAND_SIZE, Command } from './command.ts';
import { setDirty } from './dirty-command.ts';
import type { PagePlacer } from './driver-pages.ts';
import { checkCache, checkIotlb, triggerIopf, triggerVevent } from './guest-commands.ts';
import { bindMock, MockGroup, mockDevice, release, SelftestDevice } from './mock-device.ts';
import { MOCK_PAGE_SIZE, MockDomain } from './mock-domain.ts';
import { MockOps } from './mock-ops.ts';
import { pinCounts, sameByte } from './page-identity.ts';
import { attachPasid, checkPasid, detachPasid } from './pasid-commands.ts';
import { DEVICE_NO_DIRTY, DEVICE_PASID, Op } from './structs.ts';
import { dmabufGet, dmabufRevoke } from './test-dmabuf.ts';

/** _IO(';', 0xa0). */
export const IOMMU_TEST_CMD = 0x3ba0;
/** End of the last field of the struct's first version. */
const LEAST = 68;
const PAGE = 4096n;
const MOST_BYTES = 16n * 1024n * 1024n;
const WRITE = 1;
const SLOW_PATH = 4;

export class IommufdTest {
  private readonly window: FrameWindow;
  private readonly accesses = new Set<Access>();
  private readonly ops: MockOps;
  private devices = 0;

  constructor(window: FrameWindow, refusals: RefusalLog, placer: PagePlacer) {
    this.window = window;
    this.ops = new MockOps(refusals, placer);
  }

  /** Size, minimum, and what lies behind the struct, as for every request of iommufd. */
  ioctl(file: IommufdFile, process: ForeignProcess, argument: bigint): number {
    const { refusals } = file.ctx.context;
    refusals.last = null;
    refusals.request = 'IOMMU_TEST_CMD';
    const head = copyFromUser(process, argument, 4);
    if (head === null) return refusals.refuse('EFAULT', 'the size in the first 4 bytes is not readable');
    const size = new DataView(head.buffer).getUint32(0, true);
    if (size < LEAST) return refusals.refuse('EINVAL', `size ${size} is less than ${LEAST}`, 'size');
    const bytes = copyStructFromUser(process, argument, size, COMMAND_SIZE);
    if (typeof bytes === 'string')
      return refusals.refuse(bytes, `${size} bytes are not readable, or not zero beyond ${COMMAND_SIZE}`);
    const result = this.run(new Command(file, process, argument, bytes, size));
    this.sweep();
    return result;
  }

  /** After each request: what was unmapped is let go by those who had it pinned. */
  sweep(): void {
    for (const access of this.accesses) access.sweep();
  }

  private run(cmd: Command): number {
    switch (cmd.u32(4)) {
      case Op.ADD_RESERVED:
        return this.addReserved(cmd);
      case Op.MOCK_DOMAIN:
      case Op.MOCK_DOMAIN_FLAGS:
        return this.mockDomain(cmd);
      case Op.MD_CHECK_MAP:
        return this.checkMap(cmd);
      case Op.MD_CHECK_REFS:
        return this.checkRefs(cmd);
      case Op.CREATE_ACCESS:
        return this.createAccess(cmd);
      case Op.DESTROY_ACCESS_PAGES:
        return this.destroyAccessPages(cmd);
      case Op.ACCESS_PAGES:
        return this.accessPages(cmd);
      case Op.ACCESS_RW:
        return this.accessRw(cmd);
      case Op.SET_TEMP_MEMORY_LIMIT:
        return cmd.u32(16) < 12
          ? cmd.refuse('EINVAL', `a limit of ${cmd.u32(16)} bytes is less than one element`, 'limit')
          : 0;
      case Op.MOCK_DOMAIN_REPLACE:
        return this.replace(cmd);
      case Op.ACCESS_REPLACE_IOAS:
        return this.withAccess(cmd, ({ access }) => access.use(cmd.u32(16)));
      case Op.DEV_CHECK_CACHE:
        return checkCache(cmd);
      case Op.MD_CHECK_IOTLB:
        return checkIotlb(cmd);
      case Op.TRIGGER_IOPF:
        return triggerIopf(cmd);
      case Op.TRIGGER_VEVENT:
        return triggerVevent(cmd);
      case Op.PASID_ATTACH:
      case Op.PASID_REPLACE:
        return attachPasid(cmd, cmd.u32(4) === Op.PASID_REPLACE);
      case Op.PASID_DETACH:
        return detachPasid(cmd);
      case Op.PASID_CHECK_HWPT:
        return checkPasid(cmd);
      case 22:
        return dmabufGet(cmd.file.ctx, cmd.process, cmd.u32(16), cmd.u32(20));
      case 23:
        return dmabufRevoke(cmd.file.ctx, cmd.process, cmd.u32(16) | 0, cmd.u32(20) !== 0);
      case Op.DIRTY:
        return setDirty(cmd);
      default:
        return cmd.refuse('EOPNOTSUPP', `op ${cmd.u32(4)} of IOMMU_TEST_CMD is not built`, 'op');
    }
  }

  private addReserved(cmd: Command): number {
    const [start, length] = [cmd.u64(16), cmd.u64(24)];
    if (length === 0n) return cmd.refuse('EINVAL', 'length is 0', 'length');
    if (start + length > 2n ** 64n) return cmd.refuse('EOVERFLOW', `${hex(start)} + ${hex(length)} wraps`, 'start');
    const ioas = cmd.file.ctx.objects.get(cmd.id, Ioas, 'id');
    if (typeof ioas === 'number') return ioas;
    return ioas.iopt.reserve({ start, last: start + length - 1n }, this);
  }

  private mockDomain(cmd: Command): number {
    const { ctx } = cmd.file;
    const flags = cmd.u32(4) === Op.MOCK_DOMAIN_FLAGS ? cmd.u32(28) : 0;
    if ((flags & ~(DEVICE_NO_DIRTY | DEVICE_PASID)) !== 0)
      return cmd.refuse('EINVAL', `dev_flags ${hex(flags)} has unknown bits`, 'dev_flags');
    const owner = new SelftestDevice();
    ctx.objects.add(owner);
    const group = new MockGroup(ctx.context.refusals, 1_000_000 + this.devices, this.ops, flags);
    const idev = bindMock(ctx, mockDevice(this.devices, group));
    this.devices += 1;
    if (typeof idev === 'number') {
      ctx.objects.abort(owner);
      return idev;
    }
    const hwpt = attachDevice(idev, cmd.id);
    if (hwpt < 0) {
      release(idev);
      ctx.objects.abort(owner);
      return hwpt;
    }
    owner.idev = idev;
    ctx.objects.finalize(owner);
    return cmd.respond({ 16: owner.id, 20: hwpt, 24: idev.id });
  }

  private replace(cmd: Command): number {
    const owner = cmd.file.ctx.objects.get(cmd.id, SelftestDevice, 'id');
    if (typeof owner === 'number') return owner;
    if (owner.idev === null) return cmd.refuse('EINVAL', 'the device is not bound', 'id');
    const hwpt = replaceDevice(owner.idev, cmd.u32(16));
    return hwpt < 0 ? hwpt : cmd.respond({ 16: hwpt });
  }

  private checkMap(cmd: Command): number {
    const hwpt = cmd.file.ctx.objects.get(cmd.id, HwptPaging, 'id');
    if (typeof hwpt === 'number') return hwpt;
    if (!(hwpt.domain instanceof MockDomain)) return cmd.refuse('EINVAL', `HWPT ${cmd.id} is no mock's`, 'id');
    const [iova, length, address] = [cmd.address(16), cmd.address(24), cmd.address(32)];
    const page = hwpt.domain.pageSizes[0] ?? MOCK_PAGE_SIZE;
    if ([iova, length, address].some((value) => value % page !== 0))
      return cmd.refuse('EINVAL', 'not whole mock pages');
    for (let at = 0; at < length; at += page) {
      const pa = hwpt.domain.lookup(iova + at);
      if (pa < 0 || !sameByte(this.window, cmd.process.memory, pa, address + at)) {
        return cmd.refuse('EINVAL', `iova ${hex(iova + at)} is not the page at ${hex(address + at)}`, 'iova');
      }
    }
    return 0;
  }

  private checkRefs(cmd: Command): number {
    const [length, address, refs] = [cmd.address(16), cmd.address(24), cmd.u32(32)];
    if (length % 4096 !== 0 || address % 4096 !== 0) return cmd.refuse('EINVAL', 'not whole pages', 'uptr');
    const counts = pinCounts(this.window, cmd.process.memory, address, length);
    if (counts === null) return cmd.refuse('EFAULT', `${hex(address)} + ${hex(length)} is not all mapped`, 'uptr');
    const wrong = counts.findIndex((count) => count !== refs);
    if (wrong < 0) return 0;
    return cmd.refuse(
      'EIO',
      `page ${wrong} at ${hex(address + wrong * 4096)} has ${counts[wrong]} pins, not ${refs}`,
      'refs',
    );
  }

  private createAccess(cmd: Command): number {
    const flags = cmd.u32(20);
    if ((flags & ~1) !== 0) return cmd.refuse('EOPNOTSUPP', `flags ${hex(flags)} has unknown bits`, 'flags');
    const { ctx } = cmd.file;
    const access = new Access(ctx);
    ctx.objects.add(access);
    ctx.objects.finalize(access);
    const error = access.use(cmd.id);
    const fd = error < 0 ? error : cmd.process.install(new AccessFile(ctx, access, flags === 1));
    if (error < 0) ctx.objects.putAndTryDestroy(access);
    else if (fd >= 0) this.accesses.add(access);
    return fd < 0 ? fd : cmd.respond({ 16: fd });
  }

  private accessPages(cmd: Command): number {
    const [flags, iova, length, address] = [cmd.u32(16), cmd.u64(24), cmd.u64(32), cmd.address(40)];
    if (length > MOST_BYTES) return cmd.refuse('ENOMEM', `${length} bytes at once`, 'length');
    if ((flags & ~WRITE) !== 0) return cmd.refuse('EOPNOTSUPP', `flags ${hex(flags)} has unknown bits`, 'flags');
    return this.withAccess(cmd, (file) => {
      const { access } = file;
      if (!file.pinsPages) return cmd.refuse('EOPNOTSUPP', 'the access was made without NEEDS_PIN_PAGES', 'id');
      const pieces = access.pieces(iova, length, (flags & WRITE) !== 0, true);
      if (typeof pieces === 'number') return pieces;
      const error = access.pin(pieces);
      if (error < 0) return error;
      if (address !== 0 && !this.matches(cmd, pieces, address)) {
        access.unpin(pieces);
        return cmd.refuse('EBADE', 'the pages are not those of the user address', 'uptr');
      }
      const item = { id: file.nextItem, iova, length, pieces };
      file.nextItem += 1;
      access.items.push(item);
      return cmd.respond({ 20: item.id });
    });
  }

  /** Are the pinned bytes those that the program has at `address`? */
  private matches(cmd: Command, pieces: readonly Piece[], address: number): boolean {
    let at = address;
    for (const { area, startByte, length } of pieces) {
      for (const run of area.pages.runs(startByte, length)) {
        for (let done = 0; done < run.length; done += Number(PAGE)) {
          if (!sameByte(this.window, cmd.process.memory, run.pa + done, at + done)) return false;
        }
        at += run.length;
      }
    }
    return true;
  }

  private destroyAccessPages(cmd: Command): number {
    return this.withAccess(cmd, ({ access }) => {
      const item = access.items.find(({ id }) => id === cmd.u32(16));
      if (item === undefined) return cmd.refuse('ENOENT', `no pages ${cmd.u32(16)} are pinned`, 'access_pages_id');
      access.drop(item);
      return 0;
    });
  }

  private accessRw(cmd: Command): number {
    const [iova, length, address, flags] = [cmd.u64(16), cmd.u64(24), cmd.address(32), cmd.u32(40)];
    if (length > MOST_BYTES) return cmd.refuse('ENOMEM', `${length} bytes at once`, 'length');
    if ((flags & ~(WRITE | SLOW_PATH)) !== 0)
      return cmd.refuse('EOPNOTSUPP', `flags ${hex(flags)} has unknown bits`, 'flags');
    const write = (flags & WRITE) !== 0;
    return this.withAccess(cmd, ({ access }) => {
      const bytes = new Uint8Array(Number(length));
      if (write && !cmd.process.memory.copyIn(address, bytes))
        return cmd.refuse('EFAULT', 'uptr is not readable', 'uptr');
      const pieces = access.pieces(iova, length, write, false);
      if (typeof pieces === 'number') return pieces;
      const error = access.pin(pieces);
      if (error < 0) return error;
      const done = this.copy(cmd, pieces, bytes, write);
      access.unpin(pieces);
      if (!done) return cmd.refuse('EFAULT', 'the pages cannot be reached', 'iova');
      if (write || cmd.process.memory.copyOut(address, bytes)) return 0;
      return cmd.refuse('EFAULT', 'uptr is not writable', 'uptr');
    });
  }

  private copy(cmd: Command, pieces: readonly Piece[], bytes: Uint8Array, write: boolean): boolean {
    const { memory } = cmd.file.ctx.context;
    let at = 0;
    for (const { area, startByte, length } of pieces) {
      for (const run of area.pages.runs(startByte, length)) {
        const part = bytes.subarray(at, at + run.length);
        if (!(write ? memory.write(run.pa, part) : memory.read(run.pa, part))) return false;
        at += run.length;
      }
    }
    return true;
  }

  /** The access behind a descriptor of the program, or -EBADFD. */
  private withAccess(cmd: Command, body: (file: AccessFile) => number): number {
    const file = cmd.process.file(cmd.id | 0);
    if (file instanceof AccessFile) return body(file);
    return cmd.refuse('EBADFD', `file descriptor ${cmd.id} is no access`, 'id');
  }
}
