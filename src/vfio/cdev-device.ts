/** A device by its own file (`/dev/vfio/devices/vfioN`), bound to an iommufd and attached to an address space there. */
import type { Kernel, UserBuffer } from '../ports/kernel.ts';
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_ATTACH_PASID,
  VFIO_DEVICE_BIND_FLAG_TOKEN,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_PASID,
  vfio_device_attach_iommufd_pt,
  vfio_device_bind_iommufd,
  vfio_device_detach_iommufd_pt,
} from '../uapi/vfio-cdev.ts';
import { refuseArgument } from './argument.ts';
import { Device } from './device.ts';
import { cdevOf } from './device-names.ts';
import { userMemory } from './dma-memory.ts';
import { check, refused, VfioError } from './error.ts';
import { explainAttach, explainAttachPasid, explainBind, explainOpenCdev } from './explain-iommufd.ts';
import { Hwpt } from './hwpt.ts';
import { Ioas } from './ioas.ts';
import { Iommufd } from './iommufd.ts';

export interface BindOptions {
  /** The VF token of a function of SR-IOV, as a UUID. */
  readonly token?: string;
}

export interface AttachOptions {
  /**
   * The PASID, 1 to 2^20 - 1, whose requests go through the table; without it, those that have none. Its table, and that of requests without one, must be
   * made with `pasid` (Hwpt.create). MSIs have no PASID.
   */
  readonly pasid?: number;
}

/** One more than the largest PASID (PCIe 6.20). */
const PASID_END = 2 ** 20;

/**
 * @example
 * using device = CdevDevice.open(kernel, '0000:01:00.0');
 * device.bind(iommufd); // until then every other request is EINVAL
 * device.attach(ioas); // until then all DMA is blocked, and MSIs find no doorbell
 */
export class CdevDevice extends Device {
  #iommufd: Iommufd | null = null;
  #id = 0;
  #table: Ioas | Hwpt | null = null;
  readonly #pasids = new Map<number, Ioas | Hwpt>();

  /** @param name `0000:01:00.0` @throws VfioError: ENODEV when vfio-pci does not have it, or the kernel has no such files */
  static open(kernel: Kernel, name: string): CdevDevice {
    const path = cdevOf(kernel, name);
    if (path === null) {
      const request = `list(/sys/bus/pci/devices/${name}/vfio-dev)`;
      const present = kernel.list('/sys/bus/pci/devices')?.includes(name) === true;
      const why = present ? `${name} has no VFIO file of its own` : `there is no PCI device ${name}`;
      const hint = present ? 'bind it to vfio-pci; the kernel must have CONFIG_VFIO_DEVICE_CDEV' : undefined;
      throw new VfioError({ code: 'ENODEV', request, why, hint });
    }
    const fd = check(kernel, kernel.open(path), `open(${path})`, (code) => explainOpenCdev(code, name));
    return new CdevDevice(kernel, fd, name, null);
  }

  /** What it is bound to, or null. */
  get iommufd(): Iommufd | null {
    return this.#iommufd;
  }

  /** Its id in the iommufd; 0 until it is bound. */
  get id(): number {
    return this.#id;
  }

  /** What it is attached to, or null. */
  get table(): Ioas | Hwpt | null {
    return this.#table;
  }

  /** The PASIDs that have a table of their own, and which. */
  get pasids(): ReadonlyMap<number, Ioas | Hwpt> {
    return this.#pasids;
  }

  /** @throws VfioError EINVAL while it is attached to nothing */
  override get space(): Ioas {
    const table = this.#table;
    if (table !== null) return table instanceof Hwpt ? table.ioas : table;
    throw new VfioError({ code: 'EINVAL', request: 'space', why: `${this.label} is attached to no address space` });
  }

  /** Makes this process the owner of the device's DMA, until it is closed. @returns the device's id @throws VfioError */
  bind(iommufd: Iommufd, { token }: BindOptions = {}): number {
    const name = 'VFIO_DEVICE_BIND_IOMMUFD';
    this.assertOpen(name);
    if (!(iommufd instanceof Iommufd)) refuseArgument(name, 'iommufd', 'an Iommufd', iommufd);
    iommufd.assertOpen(name);
    const uuid = token === undefined ? null : this.#uuid(token);
    const bytes = vfio_device_bind_iommufd.bytes({
      argsz: vfio_device_bind_iommufd.size,
      flags: uuid === null ? 0 : VFIO_DEVICE_BIND_FLAG_TOKEN,
      iommufd: iommufd.fd,
      token_uuid_ptr: uuid?.address ?? 0,
    });
    const result = this.kernel.ioctl(this.fd, VFIO_DEVICE_BIND_IOMMUFD, bytes);
    // The kernel's reason first: freeing the token is a request too.
    const error = result < 0 ? refused(this.kernel, result, name, (code) => explainBind(code, this.groupNumber)) : null;
    uuid?.free();
    if (error !== null) throw error;
    this.#iommufd = iommufd;
    this.#id = vfio_device_bind_iommufd.get(bytes, 'out_devid');
    iommufd.deviceBound(this);
    return this.#id;
  }

  /**
   * Lets the device, or its requests with a PASID, translate through an IOAS, or through a page table made by hand.
   * @returns the id of the page table @throws VfioError: EBUSY while it is attached
   */
  attach(table: Ioas | Hwpt, { pasid }: AttachOptions = {}): number {
    const now = this.#tableOf(pasid);
    if (now === null) return this.#attach(table, pasid);
    throw new VfioError({
      code: 'EBUSY',
      request: 'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
      why: `${this.#named(pasid)} is attached to ${now.label}`,
      field: 'pt_id',
      hint: 'replace() moves it without a moment of blocked DMA',
    });
  }

  /**
   * Moves the device, or one PASID: it translates through the old or the new at every moment, and on an error stays.
   * @returns the id of the page table @throws VfioError
   */
  replace(table: Ioas | Hwpt, { pasid }: AttachOptions = {}): number {
    if (this.#tableOf(pasid) !== null) return this.#attach(table, pasid);
    const why = `${this.#named(pasid)} is attached to nothing`;
    const request = 'VFIO_DEVICE_ATTACH_IOMMUFD_PT';
    throw new VfioError({ code: 'EINVAL', request, why, field: 'pt_id', hint: 'attach() it first' });
  }

  /**
   * From now on its DMA and its MSIs are blocked, or what has this PASID. Detaching what is not attached does nothing; PASIDs stay when the device
   * itself is detached. @throws VfioError
   */
  detach({ pasid }: AttachOptions = {}): void {
    const name = 'VFIO_DEVICE_DETACH_IOMMUFD_PT';
    if (this.#tableOf(pasid, name) === null) return;
    this.assertOpen(name);
    const flags = pasid === undefined ? 0 : VFIO_DEVICE_DETACH_PASID;
    const argsz = vfio_device_detach_iommufd_pt.size;
    const bytes = vfio_device_detach_iommufd_pt.bytes({ argsz, flags, pasid: pasid ?? 0 });
    check(this.kernel, this.kernel.ioctl(this.fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, bytes), name);
    this.#set(pasid, null);
  }

  /** Does it, or one of its PASIDs, translate through this table, or through one of this IOAS? */
  uses(space: Ioas | Hwpt): boolean {
    return [this.#table, ...this.#pasids.values()].some((table) => isOf(table, space));
  }

  /** Detaches whatever translates through this table, or through one of this IOAS. @throws VfioError */
  detachFrom(space: Ioas | Hwpt): void {
    for (const [pasid, table] of [...this.#pasids]) if (isOf(table, space)) this.detach({ pasid });
    if (isOf(this.#table, space)) this.detach();
  }

  protected override smallestPage(): number {
    return this.#table === null ? 0 : (this.space.pageSizes()[0] ?? 0);
  }

  /** Closing the file silences the device, detaches and unbinds it (device_cdev.c `vfio_df_unbind_iommufd`). */
  protected override release(): void {
    super.release();
    for (const pasid of [...this.#pasids.keys()]) this.#set(pasid, null);
    this.#set(undefined, null);
    this.#iommufd?.deviceClosed(this);
  }

  #attach(table: Ioas | Hwpt, pasid: number | undefined): number {
    const name = 'VFIO_DEVICE_ATTACH_IOMMUFD_PT';
    this.assertOpen(name);
    this.#assertOwn(table, name);
    table.assertOpen(name);
    const argsz = vfio_device_attach_iommufd_pt.size;
    const flags = pasid === undefined ? 0 : VFIO_DEVICE_ATTACH_PASID;
    const bytes = vfio_device_attach_iommufd_pt.bytes({ argsz, flags, pt_id: table.id, pasid: pasid ?? 0 });
    const result = this.kernel.ioctl(this.fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, bytes);
    const ioas = table instanceof Hwpt ? table.ioas : table;
    check(this.kernel, result, name, (code) => {
      if (this.kernel.refusal() !== null) return null;
      return pasid === undefined
        ? explainAttach(code, this.groupNumber, ioas)
        : explainAttachPasid(code, this.groupNumber, pasid);
    });
    this.#set(pasid, table);
    return vfio_device_attach_iommufd_pt.get(bytes, 'pt_id');
  }

  /** Another iommufd may have an object of the same id. @throws VfioError ENOENT */
  #assertOwn(table: Ioas | Hwpt, request: string): void {
    if (!(table instanceof Ioas || table instanceof Hwpt)) refuseArgument(request, 'pt_id', 'an Ioas or a Hwpt', table);
    const { iommufd } = table instanceof Hwpt ? table.ioas : table;
    if (this.#iommufd === null || iommufd === this.#iommufd) return;
    const why = `${table.label} belongs to another iommufd than ${this.label}`;
    throw new VfioError({ code: 'ENOENT', request, why, field: 'pt_id' });
  }

  /** @throws VfioError EINVAL for what is no PASID */
  #tableOf(pasid: number | undefined, request = 'VFIO_DEVICE_ATTACH_IOMMUFD_PT'): Ioas | Hwpt | null {
    if (pasid === undefined) return this.#table;
    if (Number.isInteger(pasid) && pasid > 0 && pasid < PASID_END) return this.#pasids.get(pasid) ?? null;
    return refuseArgument(request, 'pasid', 'an integer from 1 to 2^20 - 1', pasid);
  }

  #named(pasid: number | undefined): string {
    return pasid === undefined ? this.label : `PASID ${pasid} of ${this.label}`;
  }

  #uuid(token: string): UserBuffer {
    const bytes = uuidBytes(token);
    const memory = userMemory(this.kernel, bytes.length);
    memory.bytes.set(bytes);
    return memory;
  }

  /** What it translates through is another table now, and the tables know. */
  #set(pasid: number | undefined, table: Ioas | Hwpt | null): void {
    const old = this.#tableOf(pasid);
    if (pasid === undefined) this.#table = table;
    else if (table === null) this.#pasids.delete(pasid);
    else this.#pasids.set(pasid, table);
    if (old !== null && old !== table && ![this.#table, ...this.#pasids.values()].includes(old)) old.deviceLeft(this);
    table?.deviceAttached(this);
  }
}

const isOf = (table: Ioas | Hwpt | null, space: Ioas | Hwpt): boolean =>
  table !== null && (table === space || (table instanceof Hwpt && table.ioas === space));

/** The 16 bytes of a UUID in the order of its text (lib/uuid.c `uuid_parse`). */
function uuidBytes(text: string): Uint8Array {
  const request = 'VFIO_DEVICE_BIND_IOMMUFD';
  if (typeof text !== 'string') refuseArgument(request, 'token_uuid_ptr', 'a UUID as text', text);
  const digits = text.replaceAll('-', '');
  if (/^[0-9a-f]{32}$/i.test(digits)) return Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number(`0x${pair}`));
  const why = `${JSON.stringify(text)} is no UUID`;
  throw new VfioError({ code: 'EINVAL', request, why, field: 'token_uuid_ptr' });
}
