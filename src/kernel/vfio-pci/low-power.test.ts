/** Low power on the user's word: features 3, 4 and 5 (vfio_pci_core.c, vfio_main.c; vfio_pci_core.c vfio_pci_core_pm_entry, _pm_entry_with_wakeup, _pm_exit). */
import { describe, expect, it } from 'vitest';
import { errnoName } from '../../uapi/errno.ts';
import {
  vfio_device_low_power_entry_with_wakeup as payload,
  VFIO_DEVICE_GET_INFO,
  vfio_device_info,
} from '../../uapi/vfio.ts';
import { INTX_IRQ, Rig } from './testing/rig.ts';

const GET = 1 << 16;
const SET = 1 << 17;
const PROBE = 1 << 18;
const ENTRY = 3;
const WITH_WAKEUP = 4;
const EXIT = 5;

function setUp() {
  const rig = new Rig().open();
  const feature = (flags: number, address = 0, size = 0): string | number => {
    rig.context.refusals.last = null;
    const result = rig.core.feature(rig.process, flags, address, size);
    return result < 0 ? errnoName(result) : result;
  };
  const enterWith = (fd: number, size = 8) =>
    feature(WITH_WAKEUP | SET, rig.user(payload.bytes({ wakeup_eventfd: fd })), size);
  const anyRequest = () => rig.request(VFIO_DEVICE_GET_INFO, vfio_device_info, { argsz: 24 });
  return { rig, feature, enterWith, anyRequest, state: () => rig.dev.powerState };
}

describe('low power entry and exit', () => {
  it('sleeps when the request is over, wakes for each request, and stays awake after the exit', () => {
    const { rig, feature, anyRequest, state } = setUp();
    rig.setConfig(4, 2, 6);
    expect([feature(ENTRY | SET), state()]).toEqual([0, 3]);
    expect([anyRequest(), state()]).toEqual([0, 3]);
    // A request sees the function as it was: awake, decoding and mastering.
    expect(rig.config(rig.dev.capability(1) + 4, 2) & 3).toBe(0);
    expect([rig.config(4, 2), rig.read(0, 0, 4)]).toEqual([6, new Uint8Array(4)]);
    expect([feature(EXIT | SET), state(), anyRequest(), state()]).toEqual([0, 0, 0, 0]);
    expect(rig.dev.configRead(4, 2) & 6).toBe(6);
  });

  it('a mapping of a BAR faults from entry to exit', () => {
    const { rig, feature } = setUp();
    rig.setConfig(4, 2, 6);
    const mapping = rig.core.mmap(rig.process, 0, 0x1000, true);
    if (typeof mapping === 'number') throw new Error();
    const open = mapping.open(0);
    expect(open.read32(0)).toBe(0);
    feature(ENTRY | SET);
    expect(() => open.read32(0)).toThrow(/sleeps/);
    feature(EXIT | SET);
    expect(open.read32(0)).toBe(0);
  });

  it('EINVAL: GET, no operation, a second entry; PROBE answers 0 and enters nothing; exits without entry are no errors', () => {
    const { rig, feature, state } = setUp();
    for (const id of [ENTRY, WITH_WAKEUP, EXIT]) {
      expect([feature(id | GET), feature(id | GET | PROBE), feature(id), feature(id | SET | PROBE)]).toEqual([
        'EINVAL',
        'EINVAL',
        'EINVAL',
        0,
      ]);
    }
    expect([feature(EXIT | SET), state()]).toEqual([0, 0]);
    expect([feature(ENTRY | SET), feature(ENTRY | SET), rig.why()]).toEqual([
      0,
      'EINVAL',
      '0000:00:05.0 is in low power already',
    ]);
    expect([feature(EXIT | SET), feature(EXIT | SET), feature(ENTRY | SET)]).toEqual([0, 0, 0]);
  });

  it('PMCSR D3hot before the entry is undone: the function is saved in D0', () => {
    const { rig, feature, state } = setUp();
    rig.setConfig(rig.dev.capability(1) + 4, 2, 3);
    expect([state(), feature(ENTRY | SET), feature(EXIT | SET), state()]).toEqual([3, 0, 0, 0]);
  });

  it('INTx is masked for the sleep and unmasked after it, unless the user had masked it', () => {
    const { rig, feature } = setUp();
    const { fd, eventfd } = rig.eventfd();
    expect(rig.setIrqs(0x24, 0, 0, [fd])).toBe(0);
    feature(ENTRY | SET);
    expect(rig.core.irqControl.intx.masked).toBe(true);
    feature(EXIT | SET);
    expect(rig.core.irqControl.intx.masked).toBe(false);
    rig.setIrqs(0x09, 0, 0, 1);
    feature(ENTRY | SET);
    feature(EXIT | SET);
    expect([rig.core.irqControl.intx.masked, eventfd.drain(), INTX_IRQ]).toEqual([true, 0, rig.dev.irq]);
  });

  it('close ends it: the next owner finds a function that is awake', () => {
    const { rig, feature, enterWith, state } = setUp();
    const { fd, eventfd } = rig.eventfd();
    enterWith(fd);
    rig.core.closeDevice();
    expect(eventfd.drain()).toBe(0);
    rig.open();
    expect([state(), feature(EXIT | SET), feature(ENTRY | SET), state()]).toEqual([0, 0, 0, 3]);
  });
});

describe('low power with wakeup', () => {
  it('the first request wakes the function for good, and signals', () => {
    const { rig, enterWith, anyRequest, state, feature } = setUp();
    const { fd, eventfd } = rig.eventfd();
    expect([enterWith(fd), state(), eventfd.drain()]).toEqual([0, 3, 0]);
    expect([anyRequest(), state(), eventfd.drain()]).toEqual([0, 0, 1]);
    expect([anyRequest(), state(), eventfd.drain()]).toEqual([0, 0, 0]);
    // The exit that follows finds nothing to do, and another entry works.
    expect([feature(EXIT | SET), enterWith(fd), state()]).toEqual([0, 0, 3]);
  });

  it('EINVAL payload, EFAULT payload, EINVAL a negative descriptor, EBADF, EINVAL no eventfd, EINVAL engaged', () => {
    const { rig, feature, enterWith } = setUp();
    const { fd, eventfd } = rig.eventfd();
    expect([enterWith(-1, 7), feature(WITH_WAKEUP | SET, 8, 8), enterWith(-1), enterWith(99)]).toEqual([
      'EINVAL',
      'EFAULT',
      'EINVAL',
      'EBADF',
    ]);
    expect(feature(ENTRY | SET)).toBe(0);
    expect([enterWith(99), enterWith(fd)]).toEqual(['EBADF', 'EINVAL']);
    expect(eventfd.drain()).toBe(0);
  });
});
