/** Limits that only many requests reach (vfio_pci_core.h). */
import { describe, expect, it } from 'vitest';
import { VFIO_DEVICE_IOEVENTFD, vfio_device_ioeventfd } from '../../uapi/vfio.ts';
import { regionOffset } from './regions.ts';
import { ENDPOINT, Rig } from './testing/rig.ts';

describe('IOEVENTFD', () => {
  it('ENOSPC: more than 1,000, behind EEXIST and before EBADF; one that goes makes room', () => {
    const bars = [
      ENDPOINT.bars![0]!,
      null,
      { type: 'memory32' as const, size: 0x1000, ranges: [{ kind: 'memory' as const, offset: 0, size: 0x1000 }] },
      null,
      null,
      null,
    ];
    const rig = new Rig({ ...ENDPOINT, bars }).open();
    rig.process.limits.nofile = 4096;
    const set = (data: number, fd: number): string | number =>
      rig.request(VFIO_DEVICE_IOEVENTFD, vfio_device_ioeventfd, {
        argsz: 32,
        flags: 4,
        offset: regionOffset(2),
        data: BigInt(data),
        fd,
      });
    for (let i = 0; i < 1000; i++) expect(set(i, rig.eventfd().fd)).toBe(0);
    const { fd } = rig.eventfd();
    expect(set(999, fd)).toBe('EEXIST');
    expect(set(1000, 9999)).toBe('ENOSPC');
    expect(set(1000, -1)).toBe('ENODEV');
    expect(set(0, -1)).toBe(0);
    expect(set(1000, fd)).toBe(0);
  });
});
