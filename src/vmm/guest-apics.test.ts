import { describe, expect, it } from 'vitest';
import type { GuestCpu } from '../ports/guest.ts';
import { GuestApics } from './guest-apics.ts';
import { GuestError } from './guest-error.ts';

const cpu = (): GuestCpu => ({
  mmioRead: () => 0,
  mmioWrite: () => true,
  acknowledge: () => 1023,
  pending: false,
  endOfInterrupt: () => {},
  detach: () => {},
});
const controller = (cpus: number): GuestApics => new GuestApics(Array.from({ length: cpus }, cpu));
/** 0x30 to 0xfe. */
const VECTORS = 207;

describe('vectors of a guest with local APICs', () => {
  it('MSI-X spreads over the CPUs', () => {
    expect(
      controller(4)
        .allocateMsis(8, 5)
        .map((interrupt) => interrupt.cpu),
    ).toEqual([0, 1, 2, 3, 0]);
  });

  it('several messages of MSI follow each other on one CPU, from an aligned one, since the device writes data | number', () => {
    const apics = controller(4);
    apics.allocateMsis(8, 1);
    const block = apics.allocateMsis(16, 32, true);
    const [first] = block;
    expect(first!.message.data % 32).toBe(0);
    for (const [i, { cpu, intid, message }] of block.entries()) {
      expect({ cpu, intid, address: message.address }).toEqual({
        cpu: first!.cpu,
        intid: first!.message.data | i,
        address: first!.message.address,
      });
    }
  });

  it('more than there are: an error of the guest, and nothing is taken', () => {
    const apics = controller(4);
    expect(() => apics.allocateMsis(8, 4 * VECTORS + 1)).toThrow(GuestError);
    expect(() => apics.allocateMsis(8, 2048)).toThrow("the guest's 4 CPUs have 828 free vectors, not 2048");
    expect(apics.allocateMsis(8, 4 * VECTORS)).toHaveLength(828);
    expect(() => apics.allocateMsis(8, 1)).toThrow(GuestError);
  });

  it('no row of free vectors is left: an error of the guest', () => {
    const apics = controller(1);
    apics.allocateMsis(8, 190);
    expect(() => apics.allocateMsis(16, 16, true)).toThrow('no CPU of the guest has 16 free vectors in a row');
  });
});
