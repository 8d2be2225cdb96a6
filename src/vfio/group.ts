/** A group (`/dev/vfio/<number>`): the devices that the IOMMU cannot tell apart, and that are handed over together. */
import type { Kernel } from '../ports/kernel.ts';
import {
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  vfio_group_status,
} from '../uapi/vfio-group.ts';
import type { Container } from './container.ts';
import { Device } from './device.ts';
import { check } from './error.ts';
import { type GroupReservedRegion, reservedRegions } from './reserved-regions.ts';
import { Resource } from './resource.ts';

/**
 * @example
 * using container = Container.open(kernel);
 * using group = Group.open(kernel, 3);
 * if (!group.viable) throw new Error(`host drivers hold ${group.heldBy().join(', ')}`);
 * group.setContainer(container);
 * container.setIommu();
 * using device = group.openDevice('0000:01:00.0');
 */
export class Group extends Resource {
  readonly kernel: Kernel;
  readonly number: number;
  readonly fd: number;
  #container: Container | null = null;

  private constructor(kernel: Kernel, number: number, fd: number) {
    super();
    this.kernel = kernel;
    this.number = number;
    this.fd = fd;
  }

  /** @throws VfioError: ENOENT or ENODEV without a device of vfio-pci in the group, EBUSY when it is open already */
  static open(kernel: Kernel, number: number): Group {
    const path = `/dev/vfio/${number}`;
    const fd = check(kernel, kernel.open(path), `open(${path})`, (code) => explainOpen(code, number));
    return new Group(kernel, number, fd);
  }

  get label(): string {
    return `group ${this.number}`;
  }

  get container(): Container | null {
    return this.#container;
  }

  /** False when a host driver holds one of the group's devices. @throws VfioError */
  get viable(): boolean {
    return (this.#status() & VFIO_GROUP_FLAGS_VIABLE) !== 0;
  }

  get containerSet(): boolean {
    return (this.#status() & VFIO_GROUP_FLAGS_CONTAINER_SET) !== 0;
  }

  /** Names of all devices of the group, whoever drives them. */
  get deviceNames(): readonly string[] {
    return this.kernel.list(`/sys/kernel/iommu_groups/${this.number}/devices`) ?? [];
  }

  /** Ranges that cannot be mapped for this group; empty when sysfs does not say. */
  get reservedRegions(): readonly GroupReservedRegion[] {
    return reservedRegions(this.kernel, this.number) ?? [];
  }

  /** `0000:01:00.1 (e1000e)` for each device that a driver other than VFIO's holds. */
  heldBy(): readonly string[] {
    return this.deviceNames.flatMap((name) => {
      const driver = this.kernel.readLink(`/sys/bus/pci/devices/${name}/driver`)?.split('/').at(-1);
      const harmless = driver === undefined || driver.startsWith('vfio') || ['pci-stub', 'pcieport'].includes(driver);
      return harmless ? [] : [`${name} (${driver})`];
    });
  }

  /** Puts the group into `container`, which from then on closes it. @throws VfioError: EPERM when it is not viable */
  setContainer(container: Container): void {
    this.assertOpen('VFIO_GROUP_SET_CONTAINER');
    container.assertOpen('VFIO_GROUP_SET_CONTAINER');
    const result = this.kernel.ioctl(this.fd, VFIO_GROUP_SET_CONTAINER, s32Bytes(container.fd));
    check(this.kernel, result, 'VFIO_GROUP_SET_CONTAINER', (code) => this.#explainSetContainer(code));
    this.#container = container;
    container.groupAttached(this);
  }

  /** Takes the group out again; its devices must be closed. @throws VfioError */
  unsetContainer(): void {
    this.#call(VFIO_GROUP_UNSET_CONTAINER, 'VFIO_GROUP_UNSET_CONTAINER', 0);
    this.#container?.groupLeft(this);
    this.#container = null;
  }

  /**
   * @param name `0000:01:00.0`, for a function of SR-IOV with ` vf_token=<uuid>` behind it
   * @throws VfioError
   */
  openDevice(name: string): Device {
    const text = new TextEncoder().encode(`${name}\0`);
    this.assertOpen('VFIO_GROUP_GET_DEVICE_FD');
    const result = this.kernel.ioctl(this.fd, VFIO_GROUP_GET_DEVICE_FD, text);
    const fd = check(this.kernel, result, 'VFIO_GROUP_GET_DEVICE_FD', (code) => this.#explainOpenDevice(code, name));
    return this.adopt(new Device(this.kernel, fd, name.split(' ')[0]!, this));
  }

  closeDevices(): void {
    this.closeChildren();
  }

  protected override release(): void {
    this.kernel.close(this.fd);
    this.#container?.groupLeft(this);
  }

  #status(): number {
    const bytes = vfio_group_status.bytes({ argsz: vfio_group_status.size });
    this.#call(VFIO_GROUP_GET_STATUS, 'VFIO_GROUP_GET_STATUS', bytes);
    return vfio_group_status.get(bytes, 'flags');
  }

  #call(request: number, name: string, argument: Uint8Array | number): number {
    this.assertOpen(name);
    return check(this.kernel, this.kernel.ioctl(this.fd, request, argument), name);
  }

  #explainSetContainer(code: string): { why: string; hint?: string } | null {
    if (code === 'EINVAL') return { why: `group ${this.number} is in a container already, or does not fit this one` };
    if (code !== 'EPERM') return null;
    const held = this.heldBy();
    if (held.length === 0)
      return { why: `interrupts of group ${this.number} are not isolated, or somebody else owns it` };
    return { why: `group ${this.number} is not viable: ${held.join(', ')}`, hint: 'bind these to vfio-pci too' };
  }

  #explainOpenDevice(code: string, name: string): { why: string; field?: string } | null {
    if (code === 'ENODEV') {
      return {
        why: `group ${this.number} has no device ${name} of vfio-pci, it has ${this.deviceNames.join(', ') || 'none'}`,
      };
    }
    if (code === 'EINVAL' && this.#container?.iommu == null) return { why: 'the group has no container with an IOMMU' };
    return null;
  }
}

function s32Bytes(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setInt32(0, value, true);
  return bytes;
}

function explainOpen(code: string, number: number): { why: string; hint?: string } | null {
  if (code === 'ENOENT' || code === 'ENODEV') {
    const why = `no device of IOMMU group ${number} is bound to vfio-pci`;
    return { why, hint: 'bind one: driver_override, then bind' };
  }
  if (code === 'EBUSY') return { why: `group ${number} is open already; it has one owner` };
  if (code === 'EACCES')
    return { why: `this process may not open group ${number}`, hint: 'give it to the user with chown' };
  return null;
}
