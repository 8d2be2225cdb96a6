import { describe, expect, it } from 'vitest';
import { chooseDoorbell, type DoorbellQuestion } from './doorbell-rule.ts';

const WINDOW = { start: 0x0800_0000, end: 0x080f_ffff, type: 'msi' };
/** QEMU's virt on a host with Linux's window: the vITS's doorbell page lies inside of the window. */
const base: DoorbellQuestion = {
  policy: 'auto',
  guestAddress: 0x0809_0040,
  granule: 4096,
  address64: true,
  canChoose: true,
  bypass: false,
  mapped: [{ start: 0x4000_0000, end: 0x7fff_ffff }],
  reserved: [WINDOW],
  aperture: { start: 0, end: 2 ** 48 - 1 },
};

describe('an address that cannot be has the errno of the kernel’s request', () => {
  it.each<[string, Partial<DoorbellQuestion>, string | undefined]>([
    ['EINVAL outside of the aperture', { policy: 2 ** 48 }, 'EINVAL'],
    ['ERANGE for 32-bit messages and an end above 4 GiB', { policy: 2 ** 32, address64: false }, 'ERANGE'],
    ['EADDRINUSE over a mapping', { policy: 0x4000_0000 }, 'EADDRINUSE'],
    ['none for one that can be', { policy: 0x9000_0000 }, undefined],
  ])('%s', (_, change, code) => {
    expect(chooseDoorbell({ ...base, ...change }).code).toBe(code);
  });
});

describe('the seed’s rule', () => {
  it.each<[string, Partial<DoorbellQuestion>, string, number | null, RegExp]>([
    ['the guest’s page, inside the group’s own window', {}, 'guest', 0x0809_0000, /which is free/],
    ['with 64 KiB pages', { granule: 0x1_0000 }, 'guest', 0x0809_0000, /free/],
    [
      'with 16 KiB pages it is rounded down',
      { granule: 0x4000, guestAddress: 0x0802_7040 },
      'guest',
      0x0802_4000,
      /free/,
    ],
    ['a v2m frame', { guestAddress: 0x0802_0040 }, 'guest', 0x0802_0000, /free/],
    [
      'guest RAM is there: the window',
      { guestAddress: 0x4000_1040 },
      'window',
      0x0800_0000,
      /guest memory at 0x4000_0000/,
    ],
    [
      'guest RAM is there and over the window: the lowest free page',
      { guestAddress: 0x0809_0040, mapped: [{ start: 0, end: 0x3fff_ffff }] },
      'user',
      0x4000_0000,
      /guest memory.*lowest free page/,
    ],
    [
      'the host reserves it',
      { reserved: [WINDOW, { start: 0x900_0000, end: 0x9ff_ffff, type: 'reserved' }], guestAddress: 0x900_0040 },
      'window',
      0x800_0000,
      /host reserves 0x0900_0000.*\(reserved\)/,
    ],
    [
      'direct is in the way',
      { reserved: [{ start: 0x808_0000, end: 0x809_ffff, type: 'direct' }] },
      'user',
      0x1000,
      /\(direct\)/,
    ],
    [
      'direct-relaxable is not',
      { reserved: [{ start: 0x808_0000, end: 0x809_ffff, type: 'direct-relaxable' }] },
      'guest',
      0x809_0000,
      /free/,
    ],
    [
      'outside of the aperture',
      { aperture: { start: 0x1000_0000, end: 2 ** 39 - 1 }, reserved: [] },
      'user',
      0x1000_0000,
      /outside of what the IOMMU translates/,
    ],
    [
      '32-bit messages, above 4 GiB',
      { address64: false, guestAddress: 2 ** 33 + 0x40 },
      'window',
      0x800_0000,
      /32-bit MSI addresses/,
    ],
    ['64-bit messages, above 4 GiB', { guestAddress: 2 ** 33 + 0x40 }, 'guest', 2 ** 33, /free/],
    ['the kernel does not let us', { canChoose: false }, 'window', 0x800_0000, /does not let user space choose/],
    ['the guest has no MSI address', { guestAddress: null }, 'window', 0x800_0000, /no MSI address/],
    ['bypass comes before all', { bypass: true, policy: 0x1234_0000 }, 'bypass', null, /before translation/],
    ['none', { policy: 'none' }, 'none', null, /asked for/],
    ['window', { policy: 'window' }, 'window', 0x800_0000, /asked for; the kernel's window is/],
    ['window without one', { policy: 'window', reserved: [] }, 'window', null, /shows no window/],
    ['an address', { policy: 0x2000_0040 }, 'user', 0x2000_0000, /asked for 0x2000_0040/],
  ])('%s', (_, change, rule, iova, why) => {
    const choice = chooseDoorbell({ ...base, ...change });
    expect(choice).toMatchObject({ rule, iova, refused: null });
    expect(choice.why).toMatch(why);
  });

  it.each<[string, Partial<DoorbellQuestion>, RegExp]>([
    ['guest memory', { policy: 0x4000_0000 }, /guest memory/],
    [
      'a reserved range',
      { policy: 0x900_0000, reserved: [{ start: 0x900_0000, end: 0x9ff_ffff, type: 'reserved' }] },
      /reserves/,
    ],
    ['4 GiB', { policy: 2 ** 32, address64: false }, /32-bit/],
    ['a kernel that does not listen', { policy: 0x2000_0000, canChoose: false }, /does not let/],
  ])('an address that was asked for and cannot be is refused, not replaced: %s', (_, change, why) => {
    expect(chooseDoorbell({ ...base, ...change }).refused).toMatch(why);
  });
});
