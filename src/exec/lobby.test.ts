import { describe, expect, it } from 'vitest';
import { mayBeSimulated } from './lobby.ts';

describe('mayBeSimulated', () => {
  it.each([
    '/dev/vfio/vfio',
    '/dev//vfio',
    '/dev/./iommu',
    '/sys/bus/pci/devices',
    '//sys/x'.slice(1),
    '/sys',
    '/sys/module/vfio_pci',
  ])('%s: the simulated host looks', (path) => expect(mayBeSimulated(path)).toBe(true));

  it.each(['/dev/null', '/dev', '/etc/ld.so.cache', '/home/vfio', '/proc/self/status', ''])('%s: it does not', (path) =>
    expect(mayBeSimulated(path)).toBe(false),
  );
});
