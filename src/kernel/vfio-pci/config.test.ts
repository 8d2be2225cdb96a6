/** The permission model of vfio_pci_config.c, byte by byte, on a function with every kind of capability. */
import { describe, expect, it } from 'vitest';
import { FixtureConfig, FixtureFunction } from '../pci/config-fixture.ts';
import { enumeratePci } from '../pci/enumerate.ts';
import type { PciDevice } from '../pci/pci-device.ts';
import { testContext } from '../test-context.ts';
import { VfioPciConfig } from './config.ts';
import { VfioPciState } from './state.ts';
import { FakeIrqs } from './testing/fake-irqs.ts';

const PM = 0x40;
const MSI = 0x48;
const VENDOR = 0x60;
const MSIX = 0x70;
const AF = 0x7c;
const VPD = 0x84;
const EXP = 0x90;
const SSVID = 0xc0;
const RAW = 0xc8;
const PASID = 0x100;
const AER = 0x140;
const EXT_VENDOR = 0x180;
const POWER = 0x1a0;
const DPC = 0x1c0;
const ACS = 0x1e0;
const EXT_RAW = 0x300;

function build(): FixtureFunction {
  const fn = new FixtureFunction(0x8086, 0x10c9);
  for (let at = 0x40; at < 4096; at += 1) fn.bytes[at] = (at * 7 + (at >> 8)) & 0xff;
  fn.put(0x04, 2, 0x0006).put(0x06, 2, 0x0010).put(0x08, 4, 0x0200_0001).put(0x2c, 4, 0x1234_5678).put(0x3d, 1, 1);
  fn.bar(0, 0x1000_0000, 0x4000).bar(2, 0x60_0000_0000, 0x10_0000, 0xc).rom(0x1100_0000, 0x1_0000);
  fn.capability(0x34, PM, 0x01)
    .put(PM + 2, 2, 0xfe03)
    .put(PM + 4, 4, 0x0000_8108);
  fn.capability(PM + 1, MSI, 0x05)
    .put(MSI + 2, 2, 0x0186)
    .put(MSI + 4, 20, 0);
  fn.capability(MSI + 1, VENDOR, 0x09).put(VENDOR + 2, 1, 0x10);
  fn.capability(VENDOR + 1, MSIX, 0x11)
    .put(MSIX + 2, 2, 7)
    .put(MSIX + 4, 8, 0);
  fn.capability(MSIX + 1, AF, 0x13)
    .put(AF + 2, 2, 0x0306)
    .put(AF + 4, 2, 0);
  fn.capability(AF + 1, VPD, 0x03);
  fn.capability(VPD + 1, EXP, 0x10)
    .put(EXP + 2, 2, 2)
    .put(EXP + 4, 4, 0x1000_0000)
    .put(EXP + 8, 2, 0x2050);
  fn.capability(EXP + 1, SSVID, 0x0d).put(SSVID + 1, 1, 0);
  fn.extended(PASID, 0x1b, AER).extended(AER, 0x01, EXT_VENDOR).extended(EXT_VENDOR, 0x0b, POWER);
  fn.put(EXT_VENDOR + 4, 4, 0x0200_0000 * 1)
    .extended(POWER, 0x04, DPC)
    .extended(DPC, 0x1d, ACS)
    .extended(ACS, 0x0d, 0);
  return fn.put(ACS + 4, 4, 0);
}

function open(fn = build()): {
  fn: FixtureFunction;
  dev: PciDevice;
  state: VfioPciState;
  config: VfioPciConfig;
  intx: string[];
} {
  const access = new FixtureConfig();
  access.add(0x28, fn);
  const [dev] = enumeratePci(access, 0) as [PciDevice];
  dev.irq = 40;
  const state = new VfioPciState(testContext(), dev, new FakeIrqs());
  const intx: string[] = [];
  const config = new VfioPciConfig(state, { mask: () => intx.push('mask'), unmask: () => intx.push('unmask') });
  config.init();
  return { fn, dev, state, config, intx };
}

const read = (config: VfioPciConfig, pos: number, size: number): number => {
  let value = 0;
  for (let done = 0; done < size; ) {
    const chunk = config.chunk(pos + done, size - done);
    value += config.readChunk(chunk) * 2 ** (8 * done);
    done += chunk.count;
  }
  return value;
};

const write = (config: VfioPciConfig, pos: number, size: number, value: number): void => {
  for (let done = 0; done < size; ) {
    const chunk = config.chunk(pos + done, size - done);
    config.writeChunk(chunk, Math.floor(value / 2 ** (8 * done)) % 2 ** (8 * chunk.count));
    done += chunk.count;
  }
};

/** [offset, size, virtual bits, writable bits]; later rows win. Written from vfio_pci_config.c and the PCI layouts. */
const F32 = 0xffff_ffff;
const EXPECTED: readonly (readonly [number, number, number, number])[] = [
  [0x00, 4, F32, 0],
  [0x04, 4, 0x0010_0400, 0x0000_ffff],
  [0x0c, 2, 0, 0xffff],
  [0x0f, 1, 0, 0xff],
  ...[0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30].map((bar) => [bar, 4, F32, F32] as const),
  [0x34, 1, 0xff, 0],
  [0x3c, 1, 0xff, 0xff],
  [0x3d, 1, 0xff, 0],
  ...[PM, MSI, VENDOR, MSIX, AF, VPD, EXP].map((cap) => [cap + 1, 1, 0xff, 0] as const),
  [PM + 2, 2, 0xf800, 0],
  [PM + 4, 4, 0x0000_8100, 0xffff_7efc],
  [MSI + 2, 2, 0x00ff, 0x00ff],
  [MSI + 4, 4, F32, F32],
  [MSI + 8, 4, F32, F32],
  [MSI + 12, 2, 0xffff, 0xffff],
  [MSI + 16, 4, 0, F32],
  [MSI + 20, 4, 0, F32],
  // The link of a vendor's capability is virtual to read, while a write goes to hardware raw.
  [VENDOR, 0x10, 0, F32],
  [AF + 4, 1, 0x01, 0x01],
  [VPD + 2, 2, 0xffff, 0xffff],
  [VPD + 4, 4, F32, F32],
  [EXP + 8, 2, 0xf0e0, 0xfdff],
  [EXP + 0x28, 2, 0, 0xffdf],
  // What no capability owns: behind AF, VPD and PCIe, and from the hidden SSVID on.
  [AF + 6, 2, 0, F32],
  [VPD + 8, 4, 0, F32],
  [EXP + 44, 4, 0, F32],
  [SSVID, 0x40, 0, F32],
  [PASID, 4, F32, 0],
  [PASID + 4, AER - PASID - 4, 0, F32],
  [AER, 4, F32, 0],
  ...[4, 8, 12].map((at) => [AER + at, 4, 0, 0x03ff_f031] as const),
  ...[16, 20].map((at) => [AER + at, 4, 0, 0x0000_f1c1] as const),
  [AER + 24, 4, 0, 0x0000_0140],
  [AER + 0x2c, EXT_VENDOR - AER - 0x2c, 0, F32],
  [EXT_VENDOR, 0x20, 0, F32],
  [POWER, 4, F32, 0],
  [POWER + 8, 1, 0, 0xff],
  [POWER + 16, ACS - POWER - 16, 0, F32],
  [ACS, 4, F32, 0],
  [ACS + 8, 4096 - ACS - 8, 0, F32],
];

function expectedMasks(): { virt: Uint8Array; write: Uint8Array } {
  const virt = new Uint8Array(4096);
  const writable = new Uint8Array(4096);
  for (const [offset, size, v, w] of EXPECTED) {
    for (let i = 0; i < size; i += 1) {
      virt[offset + i] = (v >>> (8 * (i % 4))) & 0xff;
      writable[offset + i] = (w >>> (8 * (i % 4))) & 0xff;
    }
  }
  // Links that are read virtually although writes go to hardware.
  virt[VENDOR + 1] = 0xff;
  virt.fill(0xff, EXT_VENDOR, EXT_VENDOR + 4);
  return { virt, write: writable };
}

/** Bytes whose writes do more than the masks say; they have cases of their own below. */
const SPECIAL = new Set([
  0x04,
  0x05,
  0x10,
  0x14,
  0x18,
  0x1c,
  0x20,
  0x24,
  0x30,
  PM + 4,
  MSI,
  MSI + 1,
  MSI + 2,
  AF + 4,
  VPD + 3,
  EXP + 8,
  EXP + 9,
]);
const isBarByte = (at: number): boolean => (at >= 0x10 && at < 0x28) || (at >= 0x30 && at < 0x34);

describe('permissions, byte by byte', () => {
  it('reads vconfig where virtual and hardware elsewhere, for all 4096 bytes', () => {
    const { fn, config, state } = open();
    const { virt } = expectedMasks();
    const atOpen = state.vconfig.slice();
    for (let at = 0; at < 4096; at += 1) {
      if (isBarByte(at)) continue;
      const hardware = fn.bytes[at]! ^ 0xff;
      fn.bytes[at] = hardware;
      const got = read(config, at, 1);
      expect(`${at.toString(16)}: ${got}`).toBe(
        `${at.toString(16)}: ${(hardware & ~virt[at]!) | (atOpen[at]! & virt[at]!)}`,
      );
      fn.bytes[at] = hardware ^ 0xff;
    }
  });

  it('writes vconfig where virtual and writable, hardware where only writable, and nothing elsewhere', () => {
    const masks = expectedMasks();
    for (let at = 0; at < 4096; at += at < 0x320 ? 1 : 97) {
      if (SPECIAL.has(at) || isBarByte(at)) continue;
      const { fn, config, state } = opened();
      for (const value of [0xa5, 0x5a]) {
        const virtual = state.vconfig[at]!;
        const hardware = fn.bytes[at]!;
        write(config, at, 1, value);
        const writable = masks.write[at]!;
        const raw =
          state.map[at] === 0xff ||
          (at >= VENDOR && at < VENDOR + 0x10) ||
          (at >= EXT_VENDOR && at < EXT_VENDOR + 0x20);
        const virt = raw ? 0 : masks.virt[at]!;
        expect([at, state.vconfig[at]]).toEqual([at, (virtual & ~(writable & virt)) | (value & writable & virt)]);
        const real = writable & ~virt;
        expect([at, fn.bytes[at]]).toEqual([at, (hardware & ~real) | (value & real)]);
      }
    }
  });

  it('the chains without the hidden: SSVID and DPC skipped, PASID a placeholder', () => {
    const { config } = open();
    const ids: number[] = [];
    for (let at = read(config, 0x34, 1); at !== 0; at = read(config, at + 1, 1)) ids.push(read(config, at, 1));
    expect(ids).toEqual([0x01, 0x05, 0x09, 0x11, 0x13, 0x03, 0x10]);
    const extended: [number, number][] = [];
    for (let at = 0x100; at !== 0; at = read(config, at, 4) >>> 20) extended.push([at, read(config, at, 4) & 0xffff]);
    expect(extended).toEqual([
      [PASID, 0],
      [AER, 1],
      [EXT_VENDOR, 0x0b],
      [POWER, 4],
      [ACS, 0x0d],
    ]);
    // The second byte of the list is hardware's again: the hidden capability can still be reached by those who know where it is.
    expect(read(config, SSVID, 1)).toBe(0x0d);
  });

  it('a function whose capabilities are all hidden shows none', () => {
    const fn = new FixtureFunction(1, 2).capability(0x34, 0x40, 0x0d);
    const { config } = open(fn);
    expect(read(config, 0x06, 2) & 0x10).toBe(0);
    expect(read(config, 0x34, 1)).toBe(0);
  });

  it('a chain that loops ends', () => {
    const fn = new FixtureFunction(1, 2).capability(0x34, 0x40, 0x09).put(0x42, 1, 8).put(0x41, 1, 0x40);
    expect(read(open(fn).config, 0x40, 1)).toBe(0x09);
  });
});

/** Opened, with every bit of hardware writable from then on. */
function opened(): ReturnType<typeof open> {
  const made = open();
  made.fn.writable.fill(0xff);
  return made;
}

describe('chunks', () => {
  it('end at dwords and at the borders of capabilities', () => {
    const { config } = open();
    const sizes = (pos: number, count: number): number[] => {
      const found: number[] = [];
      for (let at = pos; at < pos + count; at += found.at(-1)!) found.push(config.chunk(at, pos + count - at).count);
      return found;
    };
    expect(sizes(0, 8)).toEqual([4, 4]);
    expect(sizes(1, 7)).toEqual([1, 2, 4]);
    // AF has 6 bytes; the 2 behind it are nobody's.
    expect(sizes(AF, 8)).toEqual([4, 2, 2]);
    expect(sizes(AF + 3, 4)).toEqual([1, 2, 1]);
  });
});

describe('COMMAND and BARs', () => {
  it('sizes as hardware would, and forgets nothing of the real registers', () => {
    const { fn, config } = opened();
    const real = fn.bytes.slice(0x10, 0x34);
    for (const bar of [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30]) write(config, bar, 4, 0xffff_ffff);
    expect([0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30].map((bar) => read(config, bar, 4))).toEqual([
      0xffff_c000, 0, 0xfff0_000c, 0xffff_ffff, 0, 0, 0xffff_0001,
    ]);
    expect(fn.bytes.slice(0x10, 0x34)).toEqual(real);
    write(config, 0x10, 4, 0x8000_0000);
    expect(read(config, 0x10, 4)).toBe(0x8000_0000);
  });

  it('MEM and IO go to hardware and are remembered; clearing MEM takes the mmaps away', () => {
    const { fn, config, state } = opened();
    write(config, 4, 2, 0x0007);
    expect([fn.read(4, 2), state.memoryEnabled, state.zaps]).toEqual([7, true, 0]);
    write(config, 4, 2, 0x0000);
    expect([fn.read(4, 2), state.memoryEnabled, state.zaps]).toEqual([0, false, 1]);
  });

  it('after a backdoor reset the real BARs come back with the next enable', () => {
    const { fn, config } = opened();
    const bar = fn.read(0x10, 4);
    write(config, 4, 2, 0x0002);
    fn.put(0x10, 4, 0).put(0x1c, 4, 0).put(4, 2, 0);
    write(config, 4, 2, 0x0002);
    expect([fn.read(0x10, 4), fn.read(0x1c, 4), fn.read(4, 2)]).toEqual([bar, 0x60, 2]);
  });

  it('a COMMAND that lost MEM is enough for that, and so is a base that changed', () => {
    const { fn, config } = opened();
    write(config, 4, 2, 0x0002);
    fn.put(4, 2, 0);
    fn.writes.length = 0;
    write(config, 4, 2, 0x0002);
    expect(fn.writes.map(({ offset }) => offset)).toEqual([0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30, 4]);
    const bar = fn.read(0x10, 4);
    fn.put(0x10, 4, 0x2000_0000);
    write(config, 4, 2, 0x0002);
    expect(fn.read(0x10, 4)).toBe(bar);
    fn.writes.length = 0;
    write(config, 4, 2, 0x0002);
    expect(fn.writes.map(({ offset }) => offset)).toEqual([4]);
  });

  it('INTX_DISABLE is virtual and masks; the high byte alone works too', () => {
    const { fn, config, intx } = opened();
    write(config, 4, 2, 0x0406);
    write(config, 4, 2, 0x0406);
    write(config, 5, 1, 0);
    expect([fn.read(4, 2) & 0x400, intx]).toEqual([0, ['mask', 'unmask']]);
  });
});

describe('MSI', () => {
  it('cannot be enabled by writing, only remembered; the address never reaches hardware', () => {
    const { fn, config } = opened();
    write(config, MSI + 4, 4, 0xfee0_0000);
    write(config, MSI + 2, 2, 0x0187);
    expect([read(config, MSI + 2, 2) & 1, fn.read(MSI + 2, 2) & 1, fn.read(MSI + 4, 4)]).toEqual([0, 0, 0]);
    expect(read(config, MSI + 4, 4)).toBe(0xfee0_0000);
  });

  it('QSIZE never exceeds what was enabled, and the word reaches hardware', () => {
    const { fn, config, state } = opened();
    state.irqType = 1;
    state.msiQmax = 1;
    write(config, MSI + 2, 2, 0x01b7);
    expect(read(config, MSI + 2, 1)).toBe(0x97);
    expect(fn.read(MSI + 2, 2) & 0xff).toBe(0x97);
  });

  it('MMC is what it was when the device was opened, and the id byte is hardware’s', () => {
    const { config, state } = open();
    state.msiQmax = 0;
    expect(read(config, MSI, 4)).toBe(0x0186_6005);
  });

  it('mask and pending dwords go to hardware', () => {
    const { fn, config } = opened();
    write(config, MSI + 16, 4, 0x5);
    expect(fn.read(MSI + 16, 4)).toBe(5);
  });
});

describe('MSI-X', () => {
  it('is read from hardware, and writes are dropped', () => {
    const { fn, config } = opened();
    fn.put(MSIX + 2, 2, 0x8007);
    expect(read(config, MSIX + 2, 2)).toBe(0x8007);
    write(config, MSIX, 12, 0);
    expect(fn.read(MSIX + 2, 2)).toBe(0x8007);
  });
});

describe('power management', () => {
  it('hides PME, and a write of the state makes the transition', () => {
    const { config, dev, state } = opened();
    expect(read(config, PM + 2, 2)).toBe(0x0603);
    expect(read(config, PM + 4, 2)).toBe(0x0008);
    write(config, PM + 4, 2, 3);
    expect([dev.powerState, state.memoryEnabled, state.zaps, read(config, PM + 4, 2) & 3]).toEqual([3, false, 1, 3]);
    write(config, PM + 4, 2, 0);
    expect([dev.powerState, state.memoryEnabled]).toEqual([0, true]);
  });

  it('what D3hot forgets comes back with D0', () => {
    const fn = build().put(PM + 4, 4, 0);
    const { config, dev } = open(fn);
    fn.writable.fill(0xff);
    fn.seal();
    dev.configWrite(0x0c, 1, 0x10);
    dev.configWrite(4, 2, 6);
    let state = 0;
    fn.onWrite = (offset, _size, value) => {
      if (offset !== PM + 4) return;
      if (state === 3 && (value & 3) === 0) {
        fn.reset();
        fn.put(4, 2, 0);
      }
      state = value & 3;
    };
    write(config, PM + 4, 2, 3);
    write(config, PM + 4, 2, 0);
    expect([dev.configRead(0x0c, 1), dev.configRead(4, 2)]).toEqual([0x10, 6]);
  });
});

describe('PCIe and AF', () => {
  it('FLR resets through the kernel and reads 0', () => {
    const { fn, config, state } = opened();
    write(config, EXP + 8, 2, 0xa050);
    expect(fn.writes.filter(({ offset, value }) => offset === EXP + 8 && (value & 0x8000) !== 0)).toHaveLength(1);
    expect([read(config, EXP + 8, 2) & 0x8000, state.zaps]).toEqual([0, 1]);
  });

  it('a held lock makes the reset nothing, and the write still succeeds', () => {
    const { fn, config, dev } = opened();
    dev.locked = true;
    write(config, EXP + 8, 2, 0xa050);
    expect(fn.writes.some(({ offset, value }) => offset === EXP + 8 && (value & 0x8000) !== 0)).toBe(false);
  });

  it('MPS stays the host’s; MRRS reaches hardware but never below it', () => {
    const { fn, config } = opened();
    // The real MPS is 512 bytes (code 2).
    write(config, EXP + 8, 2, 0x0000);
    expect(fn.read(EXP + 8, 2) & 0x70e0).toBe(0x2040);
    write(config, EXP + 8, 2, 0x5000);
    expect(fn.read(EXP + 8, 2) & 0x70e0).toBe(0x5040);
    expect(read(config, EXP + 8, 2) & 0x70e0).toBe(0x5000);
    write(config, EXP + 8, 2, 0x1000);
    expect(fn.read(EXP + 8, 2) & 0x70e0).toBe(0x2040);
  });

  it('AF FLR resets and reads 0', () => {
    const { config, state } = opened();
    write(config, AF + 4, 1, 1);
    expect([read(config, AF + 4, 1) & 1, state.zaps]).toEqual([0, 1]);
  });
});

describe('VPD', () => {
  it('reads through hardware when the address is written, and toggles F', () => {
    const { fn, config } = opened();
    fn.onWrite = (offset, _size, value) => {
      if (offset === VPD + 2 && (value & 0x8000) === 0) fn.put(VPD + 4, 4, 0xcafe_f00d).put(VPD + 2, 2, value | 0x8000);
    };
    write(config, VPD + 2, 2, 0x0010);
    expect([read(config, VPD + 2, 2), read(config, VPD + 4, 4)]).toEqual([0x8010, 0xcafe_f00d]);
  });

  it('leaves F as written when hardware never answers', () => {
    const { config } = opened();
    write(config, VPD + 2, 2, 0x0010);
    expect(read(config, VPD + 2, 2)).toBe(0x0010);
  });
});

describe('raw gaps', () => {
  it('are hardware’s, both ways, in both halves of the space', () => {
    const { fn, config } = opened();
    for (const at of [RAW, EXT_RAW]) {
      write(config, at, 4, 0x1234_5678);
      expect([fn.read(at, 4), read(config, at, 4)]).toEqual([0x1234_5678, 0x1234_5678]);
    }
  });
});
