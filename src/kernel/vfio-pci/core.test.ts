/** What vfio-pci says about a device (expected values: vfio_pci_core.c, and what real Linux showed for edu and nvme), opening and closing. */
import { describe, expect, it } from 'vitest';
import { errnoName } from '../../uapi/errno.ts';
import {
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_IOEVENTFD,
  VFIO_DEVICE_RESET,
  vfio_device_info,
  vfio_device_ioeventfd,
  vfio_irq_info,
  vfio_region_info,
} from '../../uapi/vfio.ts';
import type { BarMapping } from './bar-mapping.ts';
import { BusError } from './bar-mapping.ts';
import { regionOffset } from './regions.ts';
import { EDU, ENDPOINT, named, Rig } from './testing/rig.ts';

const TRIGGER_EVENTFD = 0x24;
const MSIX = 2;
const READ_WRITE = 3;
const MMAP = 4;
const CAPS = 8;

function region(
  rig: Rig,
  index: number,
  argsz = 32,
): {
  result: string | number;
  flags: number;
  size: bigint;
  offset: bigint;
  argsz: number;
  cap_offset: number;
  bytes: Uint8Array;
} {
  const bytes = new Uint8Array(Math.max(argsz, 32));
  vfio_region_info.write(bytes, { argsz, index });
  const back = rig.ioctl(VFIO_DEVICE_GET_REGION_INFO, bytes);
  return { ...vfio_region_info.read(back.bytes), result: back.result, bytes: back.bytes };
}

function irq(rig: Rig, index: number): string | [flags: number, count: number] {
  const { result, bytes } = rig.ioctl(VFIO_DEVICE_GET_IRQ_INFO, vfio_irq_info.bytes({ argsz: 16, index }));
  if (result !== 0) return String(result);
  const { flags, count } = vfio_irq_info.read(bytes);
  return [flags, count];
}

describe('GET_INFO', () => {
  it('nvme: PCI and RESET, 9 regions, 5 interrupts', () => {
    const { result, bytes } = new Rig().open().ioctl(VFIO_DEVICE_GET_INFO, vfio_device_info.bytes({ argsz: 24 }));
    expect(result).toBe(0);
    expect(vfio_device_info.read(bytes)).toEqual({
      argsz: 24,
      flags: 3,
      num_regions: 9,
      num_irqs: 5,
      cap_offset: 0,
      pad: 0,
    });
  });

  it('edu: no RESET; an argsz of 16 writes 16 bytes', () => {
    const bytes = new Uint8Array(24).fill(0xee);
    vfio_device_info.patch(bytes, { argsz: 16 });
    const back = new Rig(EDU).open().ioctl(VFIO_DEVICE_GET_INFO, bytes);
    expect(back.result).toBe(0);
    expect(vfio_device_info.read(back.bytes)).toMatchObject({ flags: 2, num_irqs: 5, cap_offset: 0xeeee_eeee });
  });

  it('EFAULT before EINVAL of argsz', () => {
    const rig = new Rig().open();
    expect(rig.core.ioctl(rig.process, VFIO_DEVICE_GET_INFO, 8n)).toBe(-14);
    expect(rig.ioctl(VFIO_DEVICE_GET_INFO, vfio_device_info.bytes({ argsz: 15 })).result).toBe('EINVAL');
  });
});

describe('GET_REGION_INFO', () => {
  it('nvme: BAR 0 is mappable and holds the MSI-X table', () => {
    const rig = new Rig().open();
    const short = region(rig, 0);
    expect(short).toMatchObject({
      result: 0,
      flags: READ_WRITE | MMAP | CAPS,
      size: 0x4000n,
      offset: 0n,
      argsz: 40,
      cap_offset: 0,
    });
    const whole = region(rig, 0, 40);
    expect(whole).toMatchObject({ result: 0, flags: READ_WRITE | MMAP | CAPS, argsz: 40, cap_offset: 32 });
    expect([...whole.bytes.subarray(32)]).toEqual([3, 0, 1, 0, 0, 0, 0, 0]);
  });

  it('other BARs, the upper half of a 64-bit one, ROM, configuration, VGA, and beyond', () => {
    const rig = new Rig().open();
    expect(region(rig, 1)).toMatchObject({ result: 0, flags: 0, size: 0n, offset: 1n << 40n });
    expect(region(rig, 2)).toMatchObject({
      result: 0,
      flags: READ_WRITE | MMAP,
      size: 0x1000n,
      offset: 2n << 40n,
      cap_offset: 0,
    });
    expect(region(rig, 6)).toMatchObject({ result: 0, flags: 0, size: 0n });
    expect(region(rig, 7)).toMatchObject({ result: 0, flags: READ_WRITE, size: 4096n, offset: 7n << 40n });
    expect(region(rig, 8).result).toBe('EINVAL');
    expect(region(rig, 9).result).toBe('EINVAL');
    expect(region(new Rig(EDU).open(), 7).size).toBe(256n);
  });

  it('argsz before index', () => {
    const rig = new Rig().open();
    expect(region(rig, 9, 31).result).toBe('EINVAL');
    expect(rig.why()).toMatch(/argsz 31/);
  });

  it('a BAR smaller than a page is mappable when it has its page to itself', () => {
    const bars = [{ type: 'memory32', size: 0x100 }, null, null, null, null, null] as const;
    expect(region(new Rig({ bars }).open(), 0).flags).toBe(READ_WRITE | MMAP);
  });

  it('an I/O BAR is read and written at the host bridge’s ports, never mapped, and memory decoding does not matter', () => {
    const ports = new Uint8Array(0x20);
    const registers = {
      read: (offset: number, size: number) => (size === 1 ? ports[offset]! : 0xdead),
      write: (offset: number, _size: number, value: number) => {
        ports[offset] = value;
      },
    };
    const ranges = [{ kind: 'registers' as const, offset: 0, size: 0x20, registers }];
    const rig = new Rig({ bars: [{ type: 'io', size: 0x20, ranges }, null, null, null, null, null] }).open();
    expect(region(rig, 0)).toMatchObject({ flags: READ_WRITE, size: 0x20n });
    expect(rig.write(0, 3, [0x5a])).toBe(1);
    expect(rig.read(0, 3, 1)).toEqual(Uint8Array.from([0x5a]));
    expect(rig.core.state.memoryEnabled).toBe(false);
    expect(named(rig.core.mmap(rig.process, 0, 0x1000, true) as number)).toBe('EINVAL');
  });

  it('a ROM is reported only with a valid image, and then with the size of its BAR', () => {
    const image = new Uint8Array(0x800);
    image.set([0x55, 0xaa], 0);
    image[0x18] = 0x1c;
    image[0x1c + 0x10] = 2;
    image[0x1c + 0x15] = 0x80;
    const rig = new Rig({ ...ENDPOINT, rom: { size: 0x1000, image } }).open();
    expect(region(rig, 6)).toMatchObject({ flags: 1, size: 0x1000n });
    const bytes = rig.read(6, 0, 0x600) as Uint8Array;
    expect([bytes[0], bytes[1], bytes[0x3ff], bytes[0x400], bytes[0x5ff]]).toEqual([0x55, 0xaa, 0, 0xff, 0xff]);
    expect(rig.write(6, 0, [1])).toBe('EINVAL');
    expect(region(new Rig({ rom: { size: 0x1000, image: new Uint8Array(16) } }).open(), 6)).toMatchObject({
      flags: 0,
      size: 0n,
    });
  });
});

describe('GET_IRQ_INFO, as real Linux answered', () => {
  it('edu: INTX 7/1, MSI 9/1, MSIX 9/0, ERR fails, REQ 9/1', () => {
    const rig = new Rig(EDU).open();
    expect([0, 1, 2, 3, 4, 5].map((index) => irq(rig, index))).toEqual([
      [7, 1],
      [9, 1],
      [9, 0],
      'EINVAL',
      [9, 1],
      'EINVAL',
    ]);
  });

  it('nvme on Arm: MSI-X is NORESIZE; ERR exists', () => {
    const rig = new Rig().open();
    expect([1, 2, 3].map((index) => irq(rig, index))).toEqual([
      [9, 0],
      [9, 8],
      [9, 1],
    ]);
  });

  it('nvme on x86: MSI-X can grow', () => {
    const rig = new Rig();
    rig.irqs.dynamic = true;
    expect(irq(rig.open(), 2)).toEqual([1, 8]);
  });
});

describe('open and close', () => {
  it('open: bus master off, reset, then decoding as the host had it', () => {
    const rig = new Rig();
    rig.dev.setMaster();
    rig.model.resets = 0;
    rig.open();
    expect(rig.model.resets).toBe(1);
    expect(rig.config(4, 2)).toBe(0x0002);
  });

  it('EAGAIN while the lock is held, and nothing stays enabled', () => {
    const rig = new Rig();
    rig.dev.locked = true;
    expect(named(rig.core.openDevice(rig.process))).toBe('EAGAIN');
    rig.dev.locked = false;
    expect(rig.core.openDevice(rig.process)).toBe(0);
  });

  it('close: bus master off before the vectors go, before the reset, before the function sleeps', () => {
    const rig = new Rig().open();
    rig.setConfig(4, 2, 0x0006);
    const { fd, eventfd } = rig.eventfd();
    rig.setIrqs(TRIGGER_EVENTFD, MSIX, 0, [fd]);
    const order: string[] = [];
    const free = rig.irqs.freeIrqVectors.bind(rig.irqs);
    rig.irqs.freeIrqVectors = () => {
      order.push(`vectors, command ${rig.dev.configRead(4, 2)}`);
      free();
    };
    rig.model.reset = () => order.push('reset');
    rig.core.closeDevice();
    expect(order[0]).toBe('vectors, command 2');
    expect(order[1]).toBe('reset');
    expect(rig.irqs.handlers.size).toBe(0);
    expect(rig.dev.powerState).toBe(3);
    expect(rig.dev.configRead(4, 2) & 4).toBe(0);
    eventfd.signal();
    expect(rig.open().config(4, 2)).toBe(0x0002);
    expect(rig.dev.powerState).toBe(0);
  });

  it('disable_idle_d3 keeps a closed function awake', () => {
    const rig = new Rig();
    rig.context.modules.vfio_pci.disable_idle_d3 = true;
    rig.open().core.closeDevice();
    expect(rig.dev.powerState).toBe(0);
  });
});

describe('RESET', () => {
  it('EINVAL without a method, EAGAIN while the lock is held, else 0 with the configuration kept', () => {
    const edu = new Rig(EDU).open();
    expect(named(edu.core.ioctl(edu.process, VFIO_DEVICE_RESET, 0n))).toBe('EINVAL');
    const rig = new Rig().open();
    rig.setConfig(4, 2, 0x0006);
    rig.dev.locked = true;
    expect(named(rig.core.ioctl(rig.process, VFIO_DEVICE_RESET, 0n))).toBe('EAGAIN');
    rig.dev.locked = false;
    rig.model.resets = 0;
    expect(rig.core.ioctl(rig.process, VFIO_DEVICE_RESET, 0n)).toBe(0);
    expect([rig.model.resets, rig.dev.configRead(4, 2)]).toEqual([1, 6]);
  });
});

describe('read, write, mmap', () => {
  const memory = {
    ...ENDPOINT,
    bars: [
      ENDPOINT.bars![0]!,
      null,
      { type: 'memory32' as const, size: 0x1000, ranges: [{ kind: 'memory' as const, offset: 0, size: 0x1000 }] },
      null,
      null,
      null,
    ],
  };

  it('splits into aligned elements, and truncates at the end of the BAR', () => {
    const rig = new Rig(memory).open();
    const bytes = Array.from({ length: 13 }, (_, at) => at + 1);
    expect(rig.write(2, 3, bytes)).toBe(13);
    expect([...(rig.read(2, 3, 13) as Uint8Array)]).toEqual(bytes);
    expect((rig.read(2, 0xffe, 8) as Uint8Array).length).toBe(2);
    expect(rig.read(2, 0x1000, 1)).toBe('EINVAL');
    expect(rig.read(1, 0, 1)).toBe('EINVAL');
    expect(rig.read(9, 0, 1)).toBe('EINVAL');
    expect(rig.read(8, 0xa0000, 1)).toBe('EINVAL');
    expect(rig.read(9, 0, 0)).toEqual(new Uint8Array(0));
  });

  it('the MSI-X table reads ones and takes nothing; the PBA is readable', () => {
    const rig = new Rig().open();
    expect(rig.write(0, 0x1ffc, new Uint8Array(16).fill(0))).toBe(16);
    expect([...(rig.read(0, 0x2000, 0x80) as Uint8Array)].every((byte) => byte === 0xff)).toBe(true);
    expect([...(rig.read(0, 0x207c, 8) as Uint8Array)].slice(0, 4)).toEqual([255, 255, 255, 255]);
    expect([...(rig.read(0, 0x3000, 8) as Uint8Array)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    const table = rig.dev.resources[0]!.base + 0x2000;
    expect(rig.context.bus.read32(table + 12)).toBe(1);
  });

  it('EIO while memory decoding is off, also for what was done before; the MSI-X window alone still reads', () => {
    const rig = new Rig(memory).open();
    rig.setConfig(4, 2, 0);
    expect(rig.read(2, 0, 4)).toBe('EIO');
    expect(rig.write(2, 0, [1])).toBe('EIO');
    expect(rig.read(0, 0x2000, 8)).toEqual(new Uint8Array(8).fill(0xff));
    expect(rig.read(0, 0x2078, 16)).toBe('EIO');
    rig.setConfig(4, 2, 2);
    expect(rig.write(2, 0, [1])).toBe(1);
  });

  it('a write looks at the buffer before the device: EFAULT before EIO; a read the other way', () => {
    const rig = new Rig(memory).open();
    rig.setConfig(4, 2, 0);
    expect(named(rig.core.write(rig.process, 8, 4, regionOffset(2)))).toBe('EFAULT');
    expect(named(rig.core.read(rig.process, 8, 4, regionOffset(2)))).toBe('EIO');
  });

  it('configuration: EFAULT when any byte is out of range, and nothing is done then', () => {
    const rig = new Rig().open();
    expect(rig.read(7, 4095, 2)).toBe('EFAULT');
    expect(rig.read(7, 4096, 1)).toBe('EFAULT');
    expect(rig.write(7, 0x3c, new Uint8Array(4096))).toBe('EFAULT');
    expect(new Rig(EDU).open().read(7, 256, 4)).toBe('EFAULT');
    expect(rig.read(7, 0, 4)).toEqual(Uint8Array.from([0x36, 0x1b, 0x10, 0x00]));
  });

  it('mmap shows the real MSI-X table, and faults while decoding is off', () => {
    const rig = new Rig().open();
    const mapping = rig.core.mmap(rig.process, 0x2000, 0x1000, true) as BarMapping;
    const opened = mapping.open(0x7000_0000);
    expect(opened.read32(12)).toBe(1);
    opened.write32(0, 0x0800_0040);
    expect(rig.context.bus.read32(mapping.pa) >>> 0).toBe(0x0800_0040);
    rig.setConfig(4, 2, 0);
    expect(mapping.revoked).toBe(true);
    expect(() => opened.read32(0)).toThrow(BusError);
    expect(() => opened.write32(0, 1)).toThrow(/decoding is off/);
    rig.setConfig(4, 2, 2);
    expect(opened.read32(0)).toBe(0x0800_0040);
    expect(() => opened.read32(0x1000)).toThrow(RangeError);
    opened.unmap();
    expect(() => opened.read32(0)).toThrow(/unmapped/);
  });

  it('mmap refusals: no BAR, not mappable, beyond the end', () => {
    const rig = new Rig().open();
    const tries = [regionOffset(7), regionOffset(6), regionOffset(12), regionOffset(1)];
    expect(tries.map((offset) => named(rig.core.mmap(rig.process, offset, 0x1000, true) as number))).toEqual(
      Array(4).fill('EINVAL'),
    );
    expect(named(rig.core.mmap(rig.process, 0x3000, 0x2000, true) as number)).toBe('EINVAL');
  });

  it('D3hot takes memory away, and D0 brings it back', () => {
    const rig = new Rig(memory).open();
    const pm = rig.dev.capability(1);
    rig.setConfig(pm + 4, 2, 3);
    expect(rig.read(2, 0, 4)).toBe('EIO');
    rig.setConfig(pm + 4, 2, 0);
    expect(rig.read(2, 0, 4)).toEqual(new Uint8Array(4));
  });
});

describe('IOEVENTFD', () => {
  const bars = [
    ENDPOINT.bars![0]!,
    null,
    { type: 'memory32' as const, size: 0x1000, ranges: [{ kind: 'memory' as const, offset: 0, size: 0x1000 }] },
    null,
    null,
    null,
  ];
  const set = (
    rig: Rig,
    value: { argsz?: number; flags?: number; offset?: number; data?: bigint; fd?: number },
  ): string | number =>
    rig.request(VFIO_DEVICE_IOEVENTFD, vfio_device_ioeventfd, {
      argsz: 32,
      flags: 4,
      offset: regionOffset(2),
      data: 7n,
      fd: -1,
      ...value,
    });

  it.each([
    ['argsz before flags', { argsz: 27, flags: 0x10 }, /argsz 27/],
    ['flags before fd', { flags: 3, fd: -2 }, /exactly one size/],
    ['unknown flag', { flags: 0x14 }, /exactly one size/],
    ['fd before region', { fd: -2, offset: regionOffset(7) }, /fd -2/],
    ['region before size', { offset: regionOffset(7) + 0x1ffc }, /is no BAR/],
    ['end of the BAR before 8 bytes', { offset: regionOffset(2) + 0xffc, flags: 8 }, /end beyond/],
    ['MSI-X table before 8 bytes', { offset: 0x2000, flags: 8 }, /MSI-X table/],
    ['8 bytes before a missing entry', { flags: 8 }, /8 bytes/],
  ])('EINVAL: %s', (_name, value, why) => {
    const rig = new Rig({ ...ENDPOINT, bars }).open();
    expect(set(rig, value)).toBe('EINVAL');
    expect(rig.why()).toMatch(why);
  });

  it('ENODEV, EEXIST, EBADF, the write, and the removal', () => {
    const rig = new Rig({ ...ENDPOINT, bars }).open();
    const { fd, eventfd } = rig.eventfd();
    expect(set(rig, {})).toBe('ENODEV');
    expect(set(rig, { fd: 9999 })).toBe('EBADF');
    expect(set(rig, { fd, data: 0x1_0000_0007n })).toBe(0);
    expect(set(rig, { fd: 9999, data: 0x1_0000_0007n })).toBe('EEXIST');
    eventfd.signal();
    expect(rig.read(2, 0, 4)).toEqual(Uint8Array.from([7, 0, 0, 0]));
    rig.write(2, 0, [0, 0, 0, 0]);
    expect(set(rig, { data: 0x1_0000_0007n })).toBe(0);
    eventfd.signal();
    expect(rig.read(2, 0, 4)).toEqual(new Uint8Array(4));
  });

  it('dropped while memory decoding is off, and gone after close', () => {
    const rig = new Rig({ ...ENDPOINT, bars }).open();
    const { fd, eventfd } = rig.eventfd();
    set(rig, { fd });
    rig.setConfig(4, 2, 0);
    eventfd.signal();
    rig.setConfig(4, 2, 2);
    expect(rig.read(2, 0, 4)).toEqual(new Uint8Array(4));
    rig.core.closeDevice();
    expect(eventfd.setConsumer({ signalled: () => {} })).toBe(true);
  });
});

describe('features, names, and what is not there', () => {
  it('ENOTTY with its reason for every feature of Linux; a handler takes an id over', () => {
    const rig = new Rig().open();
    for (const [id, why] of [
      [0, /VF token/],
      [1, /migration/],
      [10, /CDX/],
      [9, /migration/],
      [99, /unknown/],
    ] as const) {
      rig.context.refusals.last = null;
      expect(errnoName(rig.core.feature(rig.process, id | 0x1_0000, 0, 0))).toBe('ENOTTY');
      expect(rig.why()).toMatch(why);
    }
    rig.core.setFeatureHandler(0xbe11, (_process, flags, address, size) => flags + address + size);
    expect(rig.core.feature(rig.process, 0xbe11, 1, 2)).toBe(0xbe14);
  });

  it('unknown requests: ENOTTY', () => {
    const rig = new Rig().open();
    expect(named(rig.core.ioctl(rig.process, 0x3b99, 0n))).toBe('ENOTTY');
  });

  it('names: exact, other, malformed, and a token where none applies', () => {
    const { core } = new Rig();
    const uuid = '83d8f4f2-509f-382f-3c1e-e6bfe0fa1001';
    expect([
      core.match('0000:00:05.0'),
      core.match('0000:00:06.0'),
      core.match('0000:00:05.01'),
      core.match('0000:00:05.0 '),
      core.match(`0000:00:05.0 vf_token=${uuid}`),
      core.match('0000:00:05.0 vf_token=83d8'),
      core.match(`0000:00:05.0 vf_token=${uuid} vf_token=${uuid}`),
      core.match('0000:00:05.0 other=1'),
    ]).toEqual([1, 0, 0, 1, -22, -22, -22, -22]);
  });
});
