/**
 * What Linux 7.2 answers to iommufd and to a device's own character device, as a list: each errno of each request, and each rule that a program can
 * see, has a test of that name. errno-inventory.test.ts does the same for what VFIO had before.
 *
 * Sources of the rows: drivers/iommu/iommufd, drivers/vfio (device_cdev.c, iommufd.c, vfio_main.c), drivers/vfio/pci (vfio_pci_core.c, vfio_pci_dmabuf.c).
 */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { ERRNO } from '../src/uapi/errno.ts';
import { HWPT_ROWS } from './support/errno-rows/hwpt.ts';
import { IOAS_ROWS } from './support/errno-rows/ioas.ts';
import { VFIO_ROWS } from './support/errno-rows/vfio.ts';
import { testTitles } from './support/titles.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const all = testTitles(root, ['src', 'test']);
const ROWS = { ...IOAS_ROWS, ...HWPT_ROWS, ...VFIO_ROWS };

/** Rules and errno whose tests have titles of their own: what it is, and words that one title has. */
const ELSEWHERE: readonly (readonly [what: string, ...words: string[]])[] = [
  ['ids are the lowest free ones from 1 up', 'objects >', 'lowest free id'],
  ['objects are those of one open file', 'not there for another file'],
  ['a request that fails leaves no object', 'gone again when the answer cannot be written'],
  ['numbers outside of 0x80 to 0x94 are VFIO’s', 'hands the others to the VFIO compatibility'],
  ['a vDEVICE goes with its device and leaves its id taken', 'goes with its device, and leaves its id taken'],
  ['automatic IOVA: the lowest, and never 0', 'the choice of an IOVA', 'never 0'],
  [
    'automatic IOVA: aligned as the length, as far as the address is',
    'the choice of an IOVA',
    'alignment of the length',
  ],
  ['automatic IOVA: aligned to a huge page at most', 'the choice of an IOVA', 'huge page at most'],
  ['automatic IOVA: the offset in the page is kept', 'the choice of an IOVA', 'offset in the page'],
  ['automatic IOVA: steps over the window', 'the choice of an IOVA', 'steps over the window'],
  ['automatic IOVA: within ALLOW_IOVAS', 'ALLOW_IOVAS', 'binds the choice of the kernel'],
  ['MAP: without a page table nothing is pinned', 'before a domain', 'no page is pinned'],
  ['MAP: EFAULT a BAR', 'a BAR is EFAULT'],
  ['MAP: what is charged to the user', 'is charged to the user once'],
  ['MAP: what is charged to the process', 'charged to the process with RLIMIT_MODE 1'],
  ['MAP: CAP_IPC_LOCK is charged nothing', 'is nothing with CAP_IPC_LOCK'],
  [
    'MAP_FILE: EINVAL, ENODEV, EOPNOTSUPP of a dma-buf, in order',
    'checks of MAP_FILE',
    'end of the dma-buf, attach, exporter',
  ],
  ['MAP_FILE: EOPNOTSUPP a dma-buf without the exporter’s hook', 'EOPNOTSUPP for an exporter'],
  ['UNMAP_DMA v1: EOPNOTSUPP a cut of a dma-buf', 'VFIO type1 v1 cannot cut it: EOPNOTSUPP'],
  ['COPY: the same frames', 'maps the same frames'],
  ['CHANGE_PROCESS: the charge moves', 'moves with CHANGE_PROCESS'],
  ['UNMAP_DMA v1: areas are cut', 'the first version cuts, page by page'],
  ['HWPT_ALLOC: a page table of its own stays without devices', 'HWPT_ALLOC >', 'holds it, and goes when it is told'],
  ['attach: an automatic page table is shared, and goes with its last device', 'takes it away with the last'],
  ['attach: all devices of a group go through one page table', 'translate through one page table, and move as one'],
  ['attach: direct-relaxable regions stay usable', 'leaves direct-relaxable regions usable'],
  ['replace: the mappings stand before the switch', 'has the mappings in the new table before the switch'],
  ['replace: the same page table changes nothing', 'with the same table changes nothing'],
  ['doorbells: ENOSPC without an attach', 'G9: interrupts before the attach are ENOSPC'],
  ['doorbells: one IOVA for each page and file', 'have one IOVA for each page and file'],
  ['doorbells: EOVERFLOW the 65th', 'the 65th is EOVERFLOW'],
  ['doorbells: what the group needs is in the new page table first', 'G10: after a replace the message is what it was'],
  ['doorbells: unmapped with the page table', 'stay mapped until the page table goes'],
  ['doorbells: none where there is no software window', 'G15: x86 passes MSIs untranslated'],
  ['nested: the stage 2 holds the doorbell', 'has the MSI only when the guest maps the window’s page'],
  ['PASID: EFAULT, EINVAL, ENOSPC, ENOENT of ATTACH and DETACH', 'with a PASID', 'ATTACH: ENOSPC of 2^31 before pt_id'],
  [
    'PASID: EINVAL a page table that is not for PASIDs',
    'with a PASID',
    'not made for PASIDs, before a PASID that is too large',
  ],
  ['PASID: EINVAL beside another kind of page table', 'with a PASID', 'another kind without a PASID'],
  ['PASID: EINVAL another kind beside PASIDs', 'with a PASID', 'none for PASIDs beside PASIDs'],
  ['PASID: EBUSY', 'with a PASID', 'EBUSY: PASID 0'],
  ['PASID: EFAULT of the answer', 'with a PASID', 'EFAULT of the answer'],
  ['OPTION: SW_MSI_START and _SIZE with abi linux-7.2: EOPNOTSUPP', 'EOPNOTSUPP with abi linux-7.2, as any option'],
  [
    'OPTION: SW_MSI_START and _SIZE as posted',
    'OPTION SW_MSI',
    '__reserved, ENOENT, EBUSY, op, EINVAL, EOVERFLOW, EADDRINUSE',
  ],
  ['OPTION: SW_MSI_SIZE without a start', 'START comes first: SIZE without it is EINVAL'],
  ['SET_IRQS: PREPARE and DATA_MSI_IOVA with abi linux-7.2: EINVAL', 'PREPARE', 'EINVAL with abi linux-7.2'],
  ['SET_IRQS: PREPARE as posted', 'PREPARE', 'refuses in order: size, ENOTTY, EOPNOTSUPP without nesting'],
  ['SET_IRQS: PREPARE while other interrupts are on', 'PREPARE', 'EINVAL while another kind of interrupt'],
  ['SET_IRQS: DATA_MSI_IOVA with another action', 'DATA_MSI_IOVA goes with no other action'],
  ['FEATURE 0xBE11 with abi linux-7.2: ENOTTY', 'with abi linux-7.2: ENOTTY'],
  ['FEATURE: EFAULT and EINVAL of the header', 'VFIO_DEVICE_FEATURE', 'EFAULT before EINVAL: the header'],
  ['FEATURE: ENOTTY what nobody knows, and migration', 'VFIO_DEVICE_FEATURE', 'ENOTTY: features of migration'],
  ['FEATURE: EINVAL pre-copy', 'VFIO_DEVICE_FEATURE', 'EINVAL: MIG_PRECOPY_INFOv2'],
  ['FEATURE: EINVAL an operation that the feature has not, before PROBE', 'EINVAL before the probe'],
  ['FEATURE VF_TOKEN: ENOTTY, EINVAL, EFAULT', 'VF tokens', 'feature 0 sets it: ENOTTY for a VF, EINVAL GET'],
  [
    'FEATURE LOW_POWER_ENTRY and _EXIT: EINVAL',
    'low power entry and exit',
    'EINVAL: GET, no operation, a second entry',
  ],
  ['FEATURE LOW_POWER_ENTRY_WITH_WAKEUP: EINVAL, EFAULT, EBADF', 'low power with wakeup', 'EBADF, EINVAL no eventfd'],
  ['FEATURE DMA_BUF: EINVAL, EFAULT, ENODEV', 'EINVAL operation, 0 for a probe, EINVAL size, EFAULT'],
  ['FEATURE DMA_BUF: ENODEV no such BAR', 'ENODEV without such a BAR'],
  ['FEATURE DMA_BUF: ENOMEM and EFAULT of the list', 'ENOMEM for a list that no kmalloc holds'],
  ['FEATURE DMA_BUF: EINVAL and EOVERFLOW of the ranges', 'then EOVERFLOW and EINVAL against the BAR'],
  ['token: EINVAL where there is no SR-IOV', 'VF tokens', 'EINVAL: a token where the PF is not vfio-pci’s'],
  ['token: EACCES of a VF', 'VF tokens', 'EACCES without a token, and with another'],
  ['token: EACCES of a PF whose VFs are in use', 'VF tokens', 'while a VF is open the PF needs the token too'],
  ['token: the same at BIND_IOMMUFD', 'the same rules for whoever binds a device to an iommufd'],
  [
    'hot reset: EFAULT, EINVAL, ENODEV, ENOSPC of what is asked',
    'GET_PCI_HOT_RESET_INFO',
    'EFAULT, EINVAL argsz, ENODEV, ENOSPC',
  ],
  ['hot reset: EFAULT the list of what is asked', 'GET_PCI_HOT_RESET_INFO', 'EFAULT the list cannot be written'],
  ['hot reset: ids of an iommufd', 'GET_PCI_HOT_RESET_INFO', 'ids of its iommufd, OWNED'],
  [
    'hot reset: EINVAL a count on the cdev path, and a device of somebody else',
    'PCI_HOT_RESET',
    'open by itself: count must be 0',
  ],
];

/** What Linux can answer and this kernel cannot, and why. */
const ABSENT: readonly (readonly [row: string, errno: keyof typeof ERRNO, why: string])[] = [
  ['any request: an allocation of the kernel fails', 'ENOMEM', 'the simulated kernel does not run out of memory'],
  ['IOMMU_IOAS_MAP, IOAS_UNMAP: races with another thread', 'EBUSY', 'requests are done one after the other'],
  ['IOMMU_IOAS_CHANGE_PROCESS: a mapping is being made', 'EBUSY', 'requests are done one after the other'],
  ['IOMMU_VDEVICE_ALLOC: the device is being destroyed', 'ENOENT', 'requests are done one after the other'],
  ['IOMMU_DESTROY: 60 seconds of waiting for another thread', 'EBUSY', 'requests are done one after the other'],
  ['IOMMU_IOAS_UNMAP: a driver of the kernel does not let go of its access', 'EDEADLOCK', 'no mediated devices'],
  ['attach: a device that is being reset', 'EBUSY', 'a reset is over when its call returns'],
  ['attach: a nested page table of another SMMU', 'EINVAL', 'a machine has one IOMMU'],
  ['attach: a fault queue and a VF with PRI', 'EINVAL', 'no function has PRI'],
  [
    'VFIO_DEVICE_BIND_IOMMUFD: a device without an IOMMU group',
    'ENODEV',
    'VFIO registers none, and its DMA is not coherent',
  ],
  ['VFIO_SET_IOMMU: no-IOMMU without CAP_SYS_RAWIO', 'EPERM', 'there is no no-IOMMU mode'],
  ['VFIO_DEVICE_ATTACH_IOMMUFD_PT: the driver has no operation for PASIDs', 'EOPNOTSUPP', 'vfio-pci has one'],
];

/** `request: row` is a test, or the row of a table. */
const isNamed = (name: string): boolean =>
  all.some(({ title }) => title.endsWith(` > ${name}`) || title.includes(`'${name}'`));

describe('the inventory of what Linux 7.2 answers to iommufd', () => {
  it.each(Object.entries(ROWS))('%s: each row has a test of its name', (request, rows) => {
    expect(rows.filter((row) => !isNamed(`${request}: ${row}`))).toEqual([]);
    expect(new Set(rows).size).toBe(rows.length);
  });

  it('what has a title of its own is there too', () => {
    const missing = ELSEWHERE.filter(
      ([, ...words]) => !all.some(({ title }) => words.every((word) => title.includes(word))),
    );
    expect(missing).toEqual([]);
  });

  it('a test of the errno suites is a row', () => {
    const known = new Set(Object.entries(ROWS).flatMap(([request, rows]) => rows.map((row) => `${request}: ${row}`)));
    const suites = all.filter(({ file }) => /\/errno-[a-z-]+\.test\.ts$/.test(file) && file.startsWith('src/'));
    const names = suites.flatMap(({ title }) => {
      const table = [...title.matchAll(/'([A-Za-z_ ]+: [^']+)'/g)].map(([, name]) => name!);
      const own = title.split(' > ').at(-1)!;
      return own.startsWith('%s') ? table : [own];
    });
    expect(names.length).toBeGreaterThan(300);
    expect(names.filter((name) => !known.has(name))).toEqual([]);
  });

  it('what cannot be had is no row, and has its reason', () => {
    expect(ABSENT.filter(([row]) => isNamed(row))).toEqual([]);
    for (const [row, errno, why] of ABSENT) expect([row, ERRNO[errno] > 0, why.length > 10]).toEqual([row, true, true]);
  });

  /** The errno of each request, from the sources alone. */
  it.each([
    ['iommufd', 'E2BIG EFAULT EINVAL ENOTTY'],
    ['IOMMU_DESTROY', 'EBUSY ENOENT'],
    ['IOMMU_IOAS_ALLOC', 'EFAULT EOPNOTSUPP'],
    ['IOMMU_IOAS_IOVA_RANGES', 'EFAULT EMSGSIZE ENOENT EOPNOTSUPP'],
    ['IOMMU_IOAS_ALLOW_IOVAS', 'EADDRINUSE EFAULT EINVAL ENOENT EOPNOTSUPP'],
    ['IOMMU_IOAS_MAP', 'EEXIST EFAULT EINVAL ENOENT ENOMEM ENOSPC EOPNOTSUPP EOVERFLOW'],
    ['IOMMU_IOAS_MAP_FILE', 'EBADF EEXIST EFAULT EINVAL ENOENT ENOMEM EOPNOTSUPP EOVERFLOW'],
    ['IOMMU_IOAS_COPY', 'EEXIST EFAULT EINVAL ENOENT EOPNOTSUPP EOVERFLOW EPERM'],
    ['IOMMU_IOAS_UNMAP', 'EBUSY EFAULT EINVAL ENOENT EOVERFLOW'],
    ['IOMMU_IOAS_CHANGE_PROCESS', 'EINVAL ENOMEM EOPNOTSUPP'],
    ['IOMMU_OPTION', 'EADDRINUSE EBUSY EFAULT EINVAL ENOENT EOPNOTSUPP EPERM'],
    ['IOMMU_VFIO_IOAS', 'EFAULT ENODEV ENOENT EOPNOTSUPP'],
    ['IOMMU_HWPT_ALLOC', 'EADDRINUSE EFAULT EINVAL EIO ENOENT EOPNOTSUPP'],
    ['IOMMU_GET_HW_INFO', 'EFAULT ENOENT EOPNOTSUPP'],
    ['IOMMU_HWPT_SET_DIRTY_TRACKING', 'ENOENT EOPNOTSUPP'],
    ['IOMMU_HWPT_GET_DIRTY_BITMAP', 'EINVAL ENOENT EOPNOTSUPP EOVERFLOW'],
    ['IOMMU_HWPT_INVALIDATE', 'E2BIG EFAULT EINVAL EIO ENOENT EOPNOTSUPP'],
    ['IOMMU_FAULT_QUEUE_ALLOC', 'EFAULT EMFILE EOPNOTSUPP'],
    ['fault read', 'EFAULT EINVAL ESPIPE'],
    ['fault write', 'EFAULT EINVAL ESPIPE'],
    ['IOMMU_VIOMMU_ALLOC', 'EFAULT EINVAL ENOENT EOPNOTSUPP'],
    ['IOMMU_VDEVICE_ALLOC', 'EEXIST EFAULT EINVAL ENOENT EOPNOTSUPP'],
    ['IOMMU_VEVENTQ_ALLOC', 'EEXIST EFAULT EINVAL EMFILE ENOENT EOPNOTSUPP'],
    ['vEVENTQ read', 'EFAULT EINVAL ESPIPE'],
    ['vEVENTQ write', 'EINVAL'],
    ['IOMMU_HW_QUEUE_ALLOC', 'EFAULT EINVAL ENOENT ENOMEM EOPNOTSUPP EOVERFLOW ERANGE'],
    ['mmap', 'EINVAL ENXIO EPERM'],
    ['VFIO_DEVICE_BIND_IOMMUFD', 'E2BIG EACCES EBADF EBADFD EBUSY EFAULT EINVAL EPERM'],
    ['VFIO_DEVICE_ATTACH_IOMMUFD_PT', 'EFAULT EINVAL ENOENT ENOTTY'],
    ['VFIO_DEVICE_DETACH_IOMMUFD_PT', 'EFAULT EINVAL'],
    ['attach', 'EADDRINUSE EFAULT EINVAL ENOENT ENOMEM'],
    ['VFIO_CHECK_EXTENSION', 'ENODEV'],
    ['VFIO_SET_IOMMU', 'EADDRINUSE EINVAL ENODEV'],
    ['VFIO_IOMMU_GET_INFO', 'EFAULT EINVAL ENODEV'],
    ['VFIO_IOMMU_MAP_DMA', 'EEXIST EFAULT EINVAL ENODEV EOVERFLOW'],
    ['VFIO_IOMMU_UNMAP_DMA', 'EFAULT EINVAL ENODEV ENOENT EOVERFLOW'],
    ['VFIO_IOMMU_DIRTY_PAGES', 'ENOTTY'],
  ])('%s: %s', (request, errnos) => {
    // What comes behind `before` is the next check's.
    const said = (ROWS[request] ?? []).map((row) => row.replace(/ (before|behind) .*/, ''));
    const named = said.flatMap((row) => row.match(/\bE[A-Z0-9]{2,}\b/g) ?? []);
    const seen = new Set(named.filter((name) => name in ERRNO));
    expect(errnos.split(' ').filter((errno) => !seen.has(errno))).toEqual([]);
  });
});
