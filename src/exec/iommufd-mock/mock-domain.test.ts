import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../uapi/errno.ts';
import { MockDomain } from './mock-domain.ts';

const K = 1024;

describe('the page table of a mock device', () => {
  it('maps pages of 2 KiB, and refuses halves of them and what is mapped', () => {
    const domain = new MockDomain('unmanaged');
    expect(domain.map(0x100_0000, 0x8000, 4 * K)).toBe(0);
    expect(domain.lookup(0x100_0801)).toBe(0x8801);
    expect(domain.lookup(0x100_1000)).toBe(-1);
    expect(domain.map(0x100_0400, 0x8000, 2 * K)).toBe(-ERRNO.EINVAL);
    expect(domain.map(0x100_0800, 0x9000, 2 * K)).toBe(-ERRNO.EEXIST);
    expect(domain.map(0x100_1000, 0xf000, 2 * K)).toBe(0);
    expect(domain.lookup(0x100_1000)).toBe(0xf000);
  });

  it('unmaps over mappings and inside of them, up to the first hole', () => {
    const domain = new MockDomain('unmanaged');
    domain.map(0x100_0000, 0x8000, 8 * K);
    domain.map(0x100_2000, 0x20000, 4 * K);
    expect(domain.unmap(0x100_0800, 2 * K)).toBe(2 * K);
    expect([0x100_0000, 0x100_0800, 0x100_1000].map((iova) => domain.lookup(iova))).toEqual([0x8000, -1, 0x9000]);
    expect(domain.unmap(0x100_0000, 12 * K)).toBe(2 * K);
    expect(domain.unmap(0x100_1000, 64 * K)).toBe(8 * K);
    expect(domain.lookup(0x100_2000)).toBe(-1);
    expect(domain.unmap(0x100_0000, 64 * K)).toBe(0);
  });
});
