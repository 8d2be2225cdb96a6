import { describe, expect, it } from 'vitest';
import { mergeRegions, resvRegionText } from './reserved.ts';

describe('reserved regions', () => {
  it('shows the lab’s window as sysfs does', () => {
    expect(resvRegionText({ start: 0x800_0000, end: 0x80f_ffff, type: 'sw-msi' })).toBe(
      '0x0000000008000000 0x00000000080fffff msi',
    );
    expect(resvRegionText({ start: 0xfee0_0000, end: 0xfeef_ffff, type: 'msi' })).toBe(
      '0x00000000fee00000 0x00000000feefffff msi',
    );
  });

  it('merges overlapping and touching regions of one type, and only those', () => {
    expect(
      mergeRegions([
        { start: 0x5000, end: 0x5fff, type: 'reserved' },
        { start: 0x1000, end: 0x1fff, type: 'reserved' },
        { start: 0x2000, end: 0x2fff, type: 'reserved' },
        { start: 0x1800, end: 0x27ff, type: 'direct' },
        { start: 0x4000, end: 0x4fff, type: 'direct' },
        { start: 0x1000, end: 0x1fff, type: 'reserved' },
      ]),
    ).toEqual([
      { start: 0x1000, end: 0x2fff, type: 'reserved' },
      { start: 0x1800, end: 0x27ff, type: 'direct' },
      { start: 0x4000, end: 0x4fff, type: 'direct' },
      { start: 0x5000, end: 0x5fff, type: 'reserved' },
    ]);
  });
});
