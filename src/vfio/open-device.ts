/** From a device's name to the device, with all that belongs to it. */
import type { Kernel } from '../ports/kernel.ts';
import { oneOf, refuseArgument } from './argument.ts';
import { CdevDevice } from './cdev-device.ts';
import { Container } from './container.ts';
import type { Device } from './device.ts';
import { cdevOf, groupOf } from './device-names.ts';
import { VfioError } from './error.ts';
import { Group } from './group.ts';
import { Ioas } from './ioas.ts';
import { Iommufd } from './iommufd.ts';

/** `container`: group and type1. `iommufd`: the device's own file and an IOAS. */
const VIAS = ['container', 'iommufd'] as const;
export type Via = (typeof VIAS)[number];

export interface OpenDeviceOptions {
  /** Left out: the container where the kernel offers one for the device, else iommufd. */
  readonly via?: Via;
}

/** Which ways the kernel offers to a device that is bound to vfio-pci, in the order in which `openDevice` takes them. */
export function waysTo(kernel: Kernel, name: string): readonly Via[] {
  const files = kernel.list('/dev/vfio') ?? [];
  const ways: Via[] = [];
  if (files.includes('vfio') && files.includes(String(groupOf(kernel, name)))) ways.push('container');
  if (cdevOf(kernel, name) !== null && kernel.list('/dev')?.includes('iommu') === true) ways.push('iommufd');
  return ways;
}

/**
 * Opens the device, and a new address space for it: the container of its group with the IOMMU set, or an IOAS that it is
 * attached to. Closing the device closes all of it: device, then mappings (the newest first), then what holds them. With a
 * container or an IOAS instead of options that one is used; it is the caller's, and stays.
 *
 * Without a wish it is the container as long as the kernel has it, as QEMU does: programs written for it go on working.
 * `device.space` is the same on both.
 *
 * @param name `0000:01:00.0`, for a function of SR-IOV with ` vf_token=<uuid>` behind it
 * @throws VfioError, with everything closed again that was opened here
 * @example
 * using device = openDevice(kernel, '0000:01:00.0');
 * const buffer = device.space.mapDma({ length: 4096 });
 * device.config.busMaster = true;
 */
export function openDevice(kernel: Kernel, name: string, into: Ioas | { readonly via: 'iommufd' }): CdevDevice;
export function openDevice(kernel: Kernel, name: string, into?: Container | Ioas | OpenDeviceOptions): Device;
export function openDevice(kernel: Kernel, name: string, into: Container | Ioas | OpenDeviceOptions = {}): Device {
  if (typeof name !== 'string') refuseArgument('openDevice', 'name', 'a name such as "0000:01:00.0"', name);
  if (into instanceof Container) return openInContainer(kernel, name, into);
  if (into instanceof Ioas) return openInIoas(kernel, name, into);
  if (into?.via !== undefined) oneOf(into.via, VIAS, 'openDevice', 'via');
  const via = into?.via ?? waysTo(kernel, plainName(name))[0] ?? 'container';
  if (via === 'container') return openInContainer(kernel, name, null);
  const iommufd = Iommufd.open(kernel);
  try {
    const device = openInIoas(kernel, name, Ioas.create(iommufd));
    device.thenClose(iommufd);
    return device;
  } catch (error) {
    iommufd.close();
    throw error;
  }
}

function openInContainer(kernel: Kernel, name: string, into: Container | null): Device {
  const number = groupOf(kernel, plainName(name));
  const container = into ?? Container.open(kernel);
  const known = container.groups.find((candidate) => candidate.number === number);
  let group: Group | null = null;
  try {
    group = known ?? Group.open(kernel, number);
    if (group.container === null) group.setContainer(container);
    if (container.iommu === null) container.setIommu();
    const device = group.openDevice(name);
    if (into === null) device.thenClose(container);
    return device;
  } catch (error) {
    if (known === undefined) group?.close();
    if (into === null) container.close();
    throw error;
  }
}

function openInIoas(kernel: Kernel, name: string, ioas: Ioas): CdevDevice {
  const device = CdevDevice.open(kernel, plainName(name));
  try {
    const token = tokenOf(name);
    device.bind(ioas.iommufd, token === null ? {} : { token });
    device.attach(ioas);
    return device;
  } catch (error) {
    device.close();
    throw error;
  }
}

const plainName = (name: string): string => name.split(' ')[0] ?? '';

/** Of `0000:01:10.0 vf_token=<uuid>`. @throws VfioError for other options (vfio_pci_core.c `vfio_pci_core_match`) */
function tokenOf(name: string): string | null {
  const [, ...options] = name.split(' ').filter((part) => part !== '');
  const [option] = options;
  if (option === undefined) return null;
  const token = /^vf_token=(.+)$/.exec(option)?.[1];
  if (token !== undefined && options.length === 1) return token;
  const why = `${JSON.stringify(options.join(' '))} is no option of a device`;
  throw new VfioError({
    code: 'EINVAL',
    request: 'openDevice',
    why,
    field: 'name',
    hint: 'vf_token=<uuid> is the one',
  });
}
