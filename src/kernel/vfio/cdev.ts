/** A device's own character device and iommufd (device_cdev.c, iommufd.c): BIND_IOMMUFD, ATTACH and DETACH. */
import { hex } from '../../ports/address.ts';
import type { Fields, Struct } from '../../uapi/struct.ts';
import * as uapi from '../../uapi/vfio.ts';
import type { KernelContext } from '../context.ts';
import { copyStructFromUser } from '../copy-struct.ts';
import { type File, fget, fput } from '../files.ts';
import { attachDevice, detachDevice, replaceDevice } from '../iommufd/attach.ts';
import type { IommufdContext } from '../iommufd/context.ts';
import { IommufdDevice } from '../iommufd/device.ts';
import { IommufdFile } from '../iommufd/file.ts';
import { compatIoas } from '../iommufd/vfio-compat.ts';
import type { Process } from '../process.ts';
import { copyFromUser, copyToUser } from '../user-copy.ts';
import type { VfioDevice, VfioDeviceCdev, VfioDeviceFile, VfioGroupIommufd } from './device.ts';

/** What a bound device has: vdev->iommufd_device and iommufd_attached. */
interface Bound {
  readonly device: IommufdDevice;
  attached: boolean;
  /** vdev->pasids: attached with the PASID flag. 0 may be among them, and is then what goes without a PASID. */
  readonly pasids: Set<number>;
}

/** The kernel's allocator of PASIDs counts in signed numbers (lib/idr.c ida_alloc_range). */
const PASID_END = 2 ** 31;
/** -EINVAL as a PASID: what ida_exists answers for it is the number itself, so that it counts as attached. */
const IDA_EINVAL = 2 ** 32 - 22;

export class IommufdCdev implements VfioDeviceCdev {
  private readonly context: KernelContext;
  private readonly bound = new Map<VfioDevice, Bound>();

  constructor(context: KernelContext) {
    this.context = context;
  }

  /** vfio_df_ioctl_bind_iommufd. */
  bind(file: VfioDeviceFile, process: Process, argument: bigint): number {
    const { refusals } = this.context;
    const request = this.readBind(process, argument);
    if (typeof request === 'number') return request;
    if (file.group !== null) {
      return refusals.refuse('EINVAL', 'the device was opened from its group', 'fd', 'open /dev/vfio/devices/vfioN');
    }
    const { device } = file;
    if (device.group.openedFile !== null) {
      return refusals.refuse('EBUSY', `group ${device.group.id} is open through /dev/vfio/${device.group.id}`, 'fd');
    }
    if (file.accessGranted) return refusals.refuse('EINVAL', 'this file is bound already', 'fd');
    const token = this.checkToken(device, process, request);
    if (token < 0) return token;
    const iommufd = process.file(request.iommufd);
    if (iommufd === null) {
      return refusals.refuse('EBADF', `file descriptor ${request.iommufd} is not open`, 'iommufd');
    }
    if (!(iommufd instanceof IommufdFile)) {
      return refusals.refuse('EBADFD', `file descriptor ${request.iommufd} (${iommufd.name}) is no iommufd`, 'iommufd');
    }
    if (device.openCount !== 0) {
      return refusals.refuse('EINVAL', `${device.ops.name} is bound through another open file`, 'fd');
    }
    const id = this.open(device, iommufd.ctx, process);
    if (id < 0) return id;
    device.openCount = 1;
    device.cdevOpened = true;
    device.iommufd = { context: iommufd.ctx, deviceId: id };
    const out = new Uint8Array(Uint32Array.of(id).buffer);
    if (!copyToUser(process, argument, out, uapi.vfio_device_bind_iommufd.offsetOf('out_devid'))) {
      device.openCount = 0;
      this.close(device);
      return refusals.refuse('EFAULT', 'out_devid is not writable', 'argument');
    }
    device.group.cdevOpenCount += 1;
    file.accessGranted = true;
    return 0;
  }

  /** vfio_df_ioctl_attach_pt: attach, or replace of what is attached; pt_id becomes the page table's id. */
  attach(file: VfioDeviceFile, process: Process, argument: bigint): number {
    const { refusals } = this.context;
    const layout = uapi.vfio_device_attach_iommufd_pt;
    const request = this.readPt(process, argument, layout, 'pt_id');
    if (typeof request === 'number') return request;
    const { flags, pt_id, pasid } = request;
    const named = (flags & uapi.VFIO_DEVICE_ATTACH_PASID) !== 0;
    const id = named ? this.attachPasid(file.device, pt_id, pasid) : this.attachPt(file.device, pt_id);
    if (id < 0) return id;
    const out = new Uint8Array(Uint32Array.of(id).buffer);
    if (copyToUser(process, argument, out, layout.offsetOf('pt_id'))) return 0;
    // Also after a PASID, which stays attached: so does Linux 7.2.
    this.detachPt(file.device);
    return refusals.refuse('EFAULT', 'pt_id is not writable', 'argument');
  }

  /** vfio_df_ioctl_detach_pt: of what is not attached it does nothing. */
  detach(file: VfioDeviceFile, process: Process, argument: bigint): number {
    const request = this.readPt(process, argument, uapi.vfio_device_detach_iommufd_pt, 'flags');
    if (typeof request === 'number') return request;
    const { flags, pasid } = request;
    if ((flags & uapi.VFIO_DEVICE_DETACH_PASID) !== 0) this.detachPasid(file.device, pasid);
    else this.detachPt(file.device);
    return 0;
  }

  /** vfio_device_fops_release: the device is silenced and its vectors are freed, then it leaves its page table, then its owner. */
  release(file: VfioDeviceFile): void {
    if (!file.accessGranted) return;
    file.accessGranted = false;
    file.device.openCount = 0;
    this.close(file.device);
    file.device.group.cdevOpenCount -= 1;
  }

  /** iommufd_vfio_compat_ioas_create: the file's IOAS stands for the container from now on. */
  container(file: File): VfioGroupIommufd | null {
    if (!(file instanceof IommufdFile)) return null;
    const { ctx } = file;
    compatIoas(ctx);
    fget(file);
    return {
      open: (device, process) => this.openInContainer(device, ctx, process),
      close: (device) => this.close(device),
      put: () => fput(file),
    };
  }

  /** vfio_df_group_open with an iommufd: the device is attached at once (vfio_iommufd_compat_attach_ioas). */
  private openInContainer(device: VfioDevice, ctx: IommufdContext, process: Process): number {
    const id = this.open(device, ctx, process);
    if (id < 0) return id;
    const { refusals } = this.context;
    const attached =
      ctx.vfioIoas === null
        ? refusals.refuse('ENODEV', 'no IOAS stands for the container any more', 'fd')
        : this.attachPt(device, ctx.vfioIoas.id);
    if (attached < 0) this.close(device);
    return Math.min(attached, 0);
  }

  private readBind(process: Process, argument: bigint) {
    const { refusals } = this.context;
    const layout = uapi.vfio_device_bind_iommufd;
    const head = copyFromUser(process, argument, 4);
    if (head === null) return refusals.refuse('EFAULT', 'argsz is not readable', 'argument');
    const argsz = new DataView(head.buffer).getUint32(0, true);
    const minimum = layout.endOf('out_devid');
    if (argsz < minimum) return refusals.refuse('EINVAL', `argsz ${argsz} is less than ${minimum}`, 'argsz');
    const bytes = copyStructFromUser(process, argument, argsz, layout.size);
    if (bytes === 'EFAULT') return refusals.refuse('EFAULT', `not all of ${argsz} bytes are readable`, 'argument');
    if (bytes === 'E2BIG') {
      return refusals.refuse('E2BIG', `argsz ${argsz}: something behind ${layout.size} bytes is not 0`, 'argsz');
    }
    const request = layout.read(bytes);
    if (request.iommufd < 0) return refusals.refuse('EINVAL', `iommufd is ${request.iommufd}`, 'iommufd');
    if ((request.flags & ~uapi.VFIO_DEVICE_BIND_FLAG_TOKEN) !== 0) {
      return refusals.refuse('EINVAL', `flags ${hex(request.flags)} has unknown bits`, 'flags');
    }
    return request;
  }

  /** vfio_df_check_token: what the driver makes of the token, or of none. */
  private checkToken(
    device: VfioDevice,
    process: Process,
    { flags, token_uuid_ptr }: { readonly flags: number; readonly token_uuid_ptr: bigint },
  ): number {
    const { refusals } = this.context;
    if ((flags & uapi.VFIO_DEVICE_BIND_FLAG_TOKEN) === 0) return Math.min(device.ops.match(device.ops.name), 0);
    const uuid = copyFromUser(process, token_uuid_ptr, 16);
    if (uuid === null)
      return refusals.refuse('EFAULT', 'the 16 bytes at token_uuid_ptr are not readable', 'token_uuid_ptr');
    const answer = device.ops.match(`${device.ops.name} vf_token=${uuidText(uuid)}`);
    return Math.min(answer, 0);
  }

  /** vfio_df_device_first_open: bound, then opened. The id in the iommufd, or -errno. */
  private open(device: VfioDevice, ctx: IommufdContext, process: Process): number {
    const made = IommufdDevice.bindTo(ctx, device.dev);
    if (typeof made === 'number') return made;
    const error = device.ops.openDevice(process);
    if (error < 0) {
      made.unbind();
      return this.context.refusals.passOn(error, `${device.ops.name} could not be opened`);
    }
    fget(ctx.file);
    this.bound.set(device, { device: made, attached: false, pasids: new Set() });
    return made.id;
  }

  /** vfio_device_last_close, then iommufd_ctx_put. */
  private close(device: VfioDevice): void {
    const state = this.bound.get(device);
    if (state === undefined) return;
    device.ops.closeDevice();
    for (const pasid of [...state.pasids].sort((a, b) => a - b)) this.detachPasid(device, pasid);
    this.detachPt(device);
    this.bound.delete(device);
    device.cdevOpened = false;
    device.iommufd = null;
    state.device.unbind();
    fput(state.device.ctx.file);
  }

  /** vfio_iommufd_physical_attach_ioas. */
  private attachPt(device: VfioDevice, ptId: number): number {
    const state = this.bound.get(device);
    if (state === undefined) return this.context.refusals.refuse('EINVAL', 'the device is not bound', 'fd');
    const id = state.attached ? replaceDevice(state.device, ptId) : attachDevice(state.device, ptId);
    if (id > 0) state.attached = true;
    return id;
  }

  private detachPt(device: VfioDevice): void {
    const state = this.bound.get(device);
    if (!state?.attached) return;
    detachDevice(state.device);
    state.attached = false;
  }

  /**
   * vfio_iommufd_physical_pasid_attach_ioas: -ENOSPC for what is no signed number. PASID 0 is not told apart from none: it attaches what goes
   * without a PASID, once.
   */
  private attachPasid(device: VfioDevice, ptId: number, pasid: number): number {
    const { refusals } = this.context;
    const state = this.bound.get(device);
    if (state === undefined) return refusals.refuse('EINVAL', 'the device is not bound', 'fd');
    if (state.pasids.has(pasid) || pasid === IDA_EINVAL) return replaceDevice(state.device, ptId, pasid);
    if (pasid >= PASID_END) return refusals.refuse('ENOSPC', `PASID ${pasid} is not below 2^31`, 'pasid');
    const id = attachDevice(state.device, ptId, pasid);
    if (id > 0) state.pasids.add(pasid);
    return id;
  }

  private detachPasid(device: VfioDevice, pasid: number): void {
    const state = this.bound.get(device);
    if (!state?.pasids.delete(pasid)) return;
    detachDevice(state.device, pasid);
  }

  /** The struct of ATTACH or DETACH, whose PASID flag has the same bit and whose PASID is read only with it; or -errno. */
  private readPt<F extends Fields>(process: Process, argument: bigint, layout: Struct<F>, last: keyof F & string) {
    const { refusals } = this.context;
    const minimum = layout.endOf(last);
    const head = copyFromUser(process, argument, minimum);
    if (head === null) return refusals.refuse('EFAULT', `${minimum} bytes are not readable`, 'argument');
    const [argsz, flags] = new Uint32Array(head.slice(0, 8).buffer);
    if (argsz < minimum) return refusals.refuse('EINVAL', `argsz ${argsz} is less than ${minimum}`, 'argsz');
    if ((flags & ~uapi.VFIO_DEVICE_ATTACH_PASID) !== 0) {
      return refusals.refuse('EINVAL', `flags ${hex(flags)} has unknown bits`, 'flags');
    }
    if (flags === 0) return layout.readShort(head);
    if (argsz < layout.size) return refusals.refuse('EINVAL', `argsz ${argsz} is less than ${layout.size}`, 'argsz');
    const bytes = copyFromUser(process, argument, layout.size);
    return bytes === null ? refusals.refuse('EFAULT', 'pasid is not readable', 'argument') : layout.read(bytes);
  }
}

function uuidText(bytes: Uint8Array): string {
  const text = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return text.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
