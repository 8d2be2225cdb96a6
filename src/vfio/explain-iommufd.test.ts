import { describe, expect, it } from 'vitest';
import type { ErrnoName } from '../uapi/errno.ts';
import { CdevDevice } from './cdev-device.ts';
import { Hwpt } from './hwpt.ts';
import { Ioas } from './ioas.ts';
import { Iommufd } from './iommufd.ts';
import { caught } from './testing/caught.ts';
import { NAME } from './testing/scripted-host.ts';
import { DEVICE_FILE, scriptedIommufd } from './testing/scripted-iommufd.ts';

/** On a kernel that says only the errno. */
function message(call: () => unknown): string {
  return caught(call).message;
}

function ready() {
  const kernel = scriptedIommufd();
  const iommufd = Iommufd.open(kernel);
  const ioas = Ioas.create(iommufd);
  const device = CdevDevice.open(kernel, NAME);
  device.bind(iommufd);
  return { kernel, iommufd, ioas, device };
}

describe('why a file cannot be opened', () => {
  it.each<[ErrnoName, string]>([
    ['EACCES', 'open(/dev/iommu): EACCES: this process may not open it; give it to the user with chown'],
    ['ENOENT', 'open(/dev/iommu): ENOENT: this kernel has no iommufd; use a container: { via: "container" }'],
    ['EMFILE', 'open(/dev/iommu): EMFILE: the kernel refused it'],
  ])('/dev/iommu: %s', (code, text) => {
    expect(message(() => Iommufd.open(scriptedIommufd().file('/dev/iommu', code)))).toBe(text);
  });

  it.each<[ErrnoName, string]>([
    ['EACCES', `open(${DEVICE_FILE}): EACCES: this process may not open ${NAME}; give it to the user with chown`],
    ['ENOENT', `open(${DEVICE_FILE}): ENOENT: ${NAME} has left vfio-pci meanwhile`],
    ['ENODEV', `open(${DEVICE_FILE}): ENODEV: there is no such device, or no driver takes it`],
  ])('the device’s own file: %s', (code, text) => {
    expect(message(() => CdevDevice.open(scriptedIommufd().file(DEVICE_FILE, code), NAME))).toBe(text);
  });
});

describe('why a device is not bound', () => {
  it.each<[ErrnoName, string | undefined, string]>([
    ['EPERM', undefined, 'interrupts of group 3 are not isolated, or a host driver has one of its devices'],
    ['EBUSY', 'fd', 'group 3 is open through /dev/vfio/3, or another owner has its DMA'],
    ['EINVAL', 'fd', 'the device is bound already, here or elsewhere, or its IOMMU is not cache coherent'],
    ['ENODEV', undefined, 'no IOMMU translates for the device'],
    ['ENOMEM', undefined, 'no memory is left, or RLIMIT_MEMLOCK is reached'],
  ])('%s', (code, field, why) => {
    const kernel = scriptedIommufd().on('VFIO_DEVICE_BIND_IOMMUFD', () => code);
    const iommufd = Iommufd.open(kernel);
    const error = caught(() => CdevDevice.open(kernel, NAME).bind(iommufd));
    expect([error.code, error.field, error.why]).toEqual([code, field, why]);
  });
});

describe('why a device is not attached', () => {
  it.each<[ErrnoName, string, string]>([
    ['EINVAL', 'pt_id', 'another device of group 3 is attached to another page table, or this IOMMU cannot use it'],
    ['EADDRINUSE', 'pt_id', 'a mapping, or an allowed range, lies in what group 3 reserves'],
  ])('%s', (code, field, why) => {
    const { kernel, device, ioas } = ready();
    kernel.on('VFIO_DEVICE_ATTACH_IOMMUFD_PT', () => code);
    const error = caught(() => device.attach(ioas));
    expect([error.code, error.field, error.why]).toEqual([code, field, why]);
  });
});

describe('why there is no page table', () => {
  it.each<[ErrnoName, string, string]>([
    ['EOPNOTSUPP', 'flags', 'this IOMMU has no such page tables'],
    ['ENOENT', 'dev_id', 'the device is not bound to this iommufd'],
  ])('%s', (code, field, why) => {
    const { kernel, device, ioas } = ready();
    kernel.on('IOMMU_HWPT_ALLOC', () => code);
    const error = caught(() => Hwpt.create(device, ioas, { nestParent: true }));
    expect([error.code, error.field, error.why]).toEqual([code, field, why]);
  });
});

describe('why memory is not unmapped', () => {
  it.each<[ErrnoName, string]>([
    ['ENOENT', '0x0000_1000 + 0x0000_1000 cuts a mapping in two, or nothing is there'],
    ['EBUSY', 'a mapping in the range is in use'],
  ])('%s', (code, why) => {
    const { kernel, ioas } = ready();
    ioas.map(0x1000, 0x1000, 0x1000);
    kernel.on('IOMMU_IOAS_UNMAP', () => code);
    const error = caught(() => ioas.unmap(0x1000, 0x1000));
    expect([error.code, error.field, error.why]).toEqual([code, 'iova', why]);
  });
});
