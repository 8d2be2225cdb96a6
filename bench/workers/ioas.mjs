/**
 * What requests of iommufd cost while an IOAS has 1, 1,000 or 100,000 areas: one page mapped and unmapped, a device detached and attached
 * between page tables that stand, one replaced by another, one invalidation of a guest's. Nanoseconds each, the best of some rounds.
 */

import * as uapi from '../../dist/uapi/index.js';
import { CdevDevice, Hwpt, Ioas, Iommufd } from '../../dist/vfio/index.js';
import { bootHost } from '../support/host.mjs';

const PAGE = 4096;
const NAME = '0000:01:00.0';
/** Areas lie on every other page from here on, so that none touches another. */
const FIRST = 2 ** 32;
const TLBI_NH_ALL = 0x10n;
const [rounds, operations] = process.argv.slice(2).map(Number);

function best(operation) {
  let least = Infinity;
  for (let round = 0; round < rounds; round++) {
    const before = performance.now();
    for (let n = 0; n < operations; n++) operation(n);
    least = Math.min(least, performance.now() - before);
  }
  return Math.round((least * 1e6) / operations);
}

function measure(areas) {
  const { kernel } = bootHost().process({ limits: { memlock: Infinity, nofile: 1024 } });
  const iommufd = Iommufd.open(kernel);
  const device = CdevDevice.open(kernel, NAME);
  device.bind(iommufd);
  const ioas = Ioas.create(iommufd);
  const memory = kernel.allocate(PAGE);
  if (typeof memory === 'number') throw new Error('no memory');
  for (let i = 0; i < areas; i++) ioas.map(FIRST + i * 2 * PAGE, memory.address, PAGE);
  const tables = [0, 1].map(() => Hwpt.create(device, ioas, { nestParent: true }));
  const viommu = call(kernel, iommufd, uapi.IOMMU_VIOMMU_ALLOC, uapi.iommu_viommu_alloc, {
    type: uapi.IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
    dev_id: device.id,
    hwpt_id: tables[0].id,
  });
  device.attach(tables[0]);
  new DataView(memory.bytes.buffer, memory.bytes.byteOffset).setBigUint64(0, TLBI_NH_ALL, true);
  const invalidation = {
    hwpt_id: viommu.out_viommu_id,
    data_type: uapi.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
    data_uptr: memory.address,
    entry_len: 16,
    entry_num: 1,
  };
  const hole = (n) => FIRST + ((n * 7919) % areas) * 2 * PAGE + PAGE;
  return {
    areas,
    map: best((n) => {
      ioas.map(hole(n), memory.address, PAGE);
      ioas.unmap(hole(n), PAGE);
    }),
    attach: best(() => {
      device.detach();
      device.attach(tables[0]);
    }),
    replace: best((n) => device.replace(tables[(n + 1) & 1])),
    invalidate: best(() => call(kernel, iommufd, uapi.IOMMU_HWPT_INVALIDATE, uapi.iommu_hwpt_invalidate, invalidation)),
  };
}

function call(kernel, iommufd, request, layout, fields) {
  const bytes = layout.bytes({ size: layout.size, ...fields });
  const result = kernel.ioctl(iommufd.fd, request, bytes);
  if (result !== 0) throw new Error(`request 0x${request.toString(16)}: ${result}`);
  return layout.read(bytes);
}

// The first host warms the code up.
console.log(JSON.stringify([1000, 1, 1000, 100_000].map(measure).slice(1)));
