import { describe, expect, it } from 'vitest';
import { withoutHoles } from './dma-ranges.ts';
import { guestDoorbell, guestMapProblems, q35Map, virtMap } from './guest-map.ts';
import { GuestMapError, parseGuestMap } from './guest-map-file.ts';

describe('guest maps', () => {
  it('the presets have no collisions, and their doorbells are where QEMU has them', () => {
    for (const map of [virtMap(), virtMap({ msi: 'v2m' }), virtMap({ gic: 2, msi: 'v2m' }), q35Map()]) {
      expect(guestMapProblems(map, map.architecture === 'arm64' && map.name.includes('GICv2') ? 1 : 8)).toEqual([]);
    }
    expect(guestDoorbell(virtMap())).toBe(0x0809_0040);
    expect(guestDoorbell(virtMap({ msi: 'v2m' }))).toBe(0x0802_0040);
    expect(guestDoorbell(q35Map())).toBe(0xfee0_0000);
  });

  it('collisions are named', () => {
    const map = { ...virtMap(), ram: [{ base: 0x0800_0000, size: 0x9_0000 }] };
    expect(guestMapProblems(map)).toEqual([
      'RAM 0 at 0x0800_0000 + 0x9_0000 overlaps distributor at 0x0800_0000',
      'RAM 0 at 0x0800_0000 + 0x9_0000 overlaps ITS at 0x0808_0000',
    ]);
  });

  it('a file round trip, with addresses as text', () => {
    const map = virtMap();
    expect(parseGuestMap(JSON.stringify(map))).toEqual(map);
    const text = JSON.stringify({ ...map, ram: [{ base: '0x4000_0000', size: '0x400_0000' }] });
    expect(parseGuestMap(text)).toEqual(map);
  });

  it.each([
    ['{', /no JSON/],
    ['{}', /architecture/],
    [JSON.stringify({ ...virtMap(), ram: [{ base: -1, size: 1 }] }), /ram\.0\.base/],
    [JSON.stringify({ ...virtMap(), ram: [{ base: 0x4000_0100, size: 4096 }] }), /RAM 0: .* not a multiple/],
    [JSON.stringify({ ...virtMap(), extra: 1 }), /extra/],
    [JSON.stringify({ ...virtMap(), ram: [] }), /without memory/],
    [JSON.stringify({ ...virtMap(), architecture: 'x86' }), /x86 has no controller of type gic/],
  ])('a bad file says why: %#', (text, why) => {
    expect(() => parseGuestMap(text)).toThrow(GuestMapError);
    expect(() => parseGuestMap(text)).toThrow(why);
  });
});

describe('withoutHoles', () => {
  const ram = [{ base: 0x1000, size: 0x9000 }];
  it.each([
    ['none', [], ram],
    [
      'in the middle',
      [{ start: 0x3000, end: 0x3fff }],
      [
        { base: 0x1000, size: 0x2000 },
        { base: 0x4000, size: 0x6000 },
      ],
    ],
    [
      'parts of pages',
      [{ start: 0x3800, end: 0x4000 }],
      [
        { base: 0x1000, size: 0x2000 },
        { base: 0x5000, size: 0x5000 },
      ],
    ],
    ['the beginning', [{ start: 0, end: 0x1fff }], [{ base: 0x2000, size: 0x8000 }]],
    ['the end', [{ start: 0x9000, end: 0x1_ffff }], [{ base: 0x1000, size: 0x8000 }]],
    ['all', [{ start: 0, end: 0xffff }], []],
    ['beside', [{ start: 0xa000, end: 0xafff }], ram],
  ])('%s', (_, holes, left) => expect(withoutHoles(ram, holes, 0x1000)).toEqual(left));
});
