/**
 * What Linux 7.2 refuses, as a list: each errno of each call has a test whose title names both, so that none disappears unseen.
 * A row that has no test says why, and docs/conformance.md says it too.
 *
 * Sources of the rows: drivers/vfio (container.c, group.c, vfio_iommu_type1.c, vfio_main.c), drivers/vfio/pci (vfio_pci_core.c,
 * vfio_pci_intrs.c, vfio_pci_rdwr.c), drivers/pci/msi.
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { ERRNO } from '../src/uapi/errno.ts';
import { testTitles, titlesIn } from './support/titles.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const titles = testTitles(root, ['src', 'test']);
const conformance = readFileSync(join(root, 'docs/conformance.md'), 'utf8');

/** Where Linux says it, what it says, in which case; then the words that the title of its test has, or the phrase that says why none is. */
type Row = readonly [
  source: string,
  errno: keyof typeof ERRNO,
  what: string,
  words: readonly string[] | { readonly absent: string },
];

const LEGACY: readonly Row[] = [
  ['vfio_pci_core_match', 'EACCES', 'a token that does not match', ['GET_DEVICE_FD', 'token']],
  ['vfio_iommu_type1_dirty_pages', 'EACCES', 'DIRTY_PAGES with v1', ['DIRTY_PAGES', 'v1']],
  ['iommu_group_store_type', 'EACCES', 'type of a group without capabilities', ['before EINVAL before EPERM']],
  ['vfio_pci_core_enable', 'EAGAIN', 'the reset lock at open', ['open and close', 'lock']],
  ['vfio_pci_ioctl_reset', 'EAGAIN', 'the reset lock at RESET', ['RESET >', 'lock']],
  ['vfio_pci_ioctl_pci_hot_reset', 'EAGAIN', 'the lock of a function at a hot reset', ['PCI_HOT_RESET', 'lock']],
  ['vfio_group_ioctl_set_container', 'EBADF', 'SET_CONTAINER with no descriptor', ['SET_CONTAINER']],
  ['vfio_group_ioctl_set_container', 'EBADFD', 'SET_CONTAINER with another file', ['SET_CONTAINER']],
  ['vfio_group_fops_open', 'EBUSY', 'a group that is open', ['single opener']],
  ['vfio_device_block_group', 'EBUSY', 'a group whose device is open as a character device', ['character device']],
  ['vfio_group_detach_container', 'EBUSY', 'UNSET_CONTAINER with an open device', ['UNSET_CONTAINER', 'open device']],
  [
    'vfio_iommu_type1_attach_group',
    'EBUSY',
    'attaching while a vaddr is invalid',
    ['attaching a group', 'vaddr is invalid'],
  ],
  ['__iommu_attach_group', 'EBUSY', 'attaching a group that is not in its default domain', ['attach', 'default']],
  [
    '__iommu_attach_group',
    'EBUSY',
    'attaching a device that is being reset',
    { absent: 'a device that is being reset' },
  ],
  ['vfio_virqfd_enable', 'EBUSY', 'an unmask eventfd that is armed', ['virqfd']],
  ['vfio_pci_dev_set_hot_reset', 'EBUSY', 'the memory lock at a hot reset', { absent: 'memory lock' }],
  ['vfio_dma_do_map', 'EEXIST', 'MAP over a mapping', ['MAP_DMA', 'overlap']],
  ['vfio_pci_ioeventfd', 'EEXIST', 'the same ioeventfd again', ['IOEVENTFD']],
  ['vfio_iommu_type1_map_dma', 'EFAULT', 'the argument of MAP', ['MAP_DMA', 'the argument']],
  ['vfio_iommu_type1_unmap_dma', 'EFAULT', 'the argument of UNMAP', ['UNMAP_DMA', 'the argument']],
  ['vfio_iommu_type1_get_info', 'EFAULT', 'the argument of GET_INFO', ['IOMMU_GET_INFO', 'the argument']],
  ['vfio_iommu_type1_dirty_pages', 'EFAULT', 'the argument of DIRTY_PAGES', ['DIRTY_PAGES', 'the argument']],
  ['vfio_group_ioctl_get_status', 'EFAULT', 'the argument of GET_STATUS', ['GET_STATUS']],
  ['vfio_group_ioctl_get_device_fd', 'EFAULT', 'the name of GET_DEVICE_FD', ['GET_DEVICE_FD']],
  ['vfio_pci_ioctl_get_info', 'EFAULT', 'the argument of GET_INFO of a device', ['GET_INFO', 'argsz']],
  ['vfio_ioctl_device_feature', 'EFAULT', 'the header of FEATURE', ['VFIO_DEVICE_FEATURE', 'the header']],
  ['vfio_pci_config_rw', 'EFAULT', 'configuration space out of range', ['configuration', 'out of range']],
  ['vaddr_get_pfns', 'EFAULT', 'MAP of a vaddr that cannot be pinned', ['MAP_DMA', 'nothing there']],
  ['vfio_pci_core_do_io_rw', 'EIO', 'a BAR while memory decoding is off', ['memory decoding is off']],
  ['vfio_pci_rw', 'EIO', 'a device that does not wake up', { absent: 'runtime power management' }],
  ['vfio_group_ioctl_get_device_fd', 'ENODEV', 'no device of that name', ['GET_DEVICE_FD', 'the name']],
  ['vfio_ioctl_set_iommu', 'ENODEV', 'an IOMMU that nobody knows', ['SET_IOMMU']],
  ['vfio_intx_enable', 'ENODEV', 'INTx without an irq', ['INTx', 'descriptor']],
  ['vfio_pci_ioeventfd', 'ENODEV', 'removing an ioeventfd that is not there', ['IOEVENTFD']],
  ['vfio_pci_ioctl_get_pci_hot_reset_info', 'ENODEV', 'a bus that cannot be reset', ['GET_PCI_HOT_RESET_INFO']],
  ['vfio_pci_ioctl_pci_hot_reset', 'ENODEV', 'a bus that cannot be reset', ['PCI_HOT_RESET', 'root bus']],
  ['vfio_dma_do_map', 'ENOENT', 'MAP with VADDR on nothing', ['MAP_DMA with VADDR']],
  ['vfio_lock_acct', 'ENOMEM', 'MAP over RLIMIT_MEMLOCK', ['MAP_DMA', 'RLIMIT_MEMLOCK']],
  ['vfio_dma_do_map', 'ENOSPC', 'more mappings than dma_entry_limit', ['MAP_DMA', 'dma_entry_limit']],
  ['vfio_pci_ioctl_get_pci_hot_reset_info', 'ENOSPC', 'an array that is too short', ['GET_PCI_HOT_RESET_INFO']],
  ['vfio_pci_ioeventfd', 'ENOSPC', 'more than 1,000 ioeventfds', ['IOEVENTFD', '1,000']],
  ['msi_handle_pci_fail', 'ENOSPC', 'no vector can be had', ['first vector', 'whatever was behind it']],
  ['vfio_group_fops_unl_ioctl', 'ENOTTY', 'an unknown request of a group', ['group', 'unknown request']],
  ['vfio_fops_unl_ioctl', 'ENOTTY', 'an unknown request of a container', ['container', 'unknown request']],
  ['vfio_pci_core_ioctl', 'ENOTTY', 'an unknown request of a device', ['unknown requests']],
  ['vfio_pci_core_ioctl_feature', 'ENOTTY', 'a feature that is not there', ['feature of Linux']],
  ['vfio_dma_do_map', 'EOVERFLOW', 'MAP that wraps', ['MAP_DMA', 'wraps']],
  ['vfio_dma_do_unmap', 'EOVERFLOW', 'UNMAP that wraps', ['UNMAP_DMA', 'wrap']],
  ['vfio_iommu_type1_dirty_pages', 'EOVERFLOW', 'GET_BITMAP of a range that wraps', ['GET_BITMAP']],
  ['vfio_iommu_type1_attach_group', 'EPERM', 'a group whose MSIs are not isolated', ['interrupts are not isolated']],
  ['iommu_group_claim_dma_owner', 'EPERM', 'a group that somebody owns', ['somebody owns']],
  ['vfio_noiommu_attach_group', 'EPERM', 'no-IOMMU without its capability', { absent: 'no-IOMMU mode' }],
  ['pci_alloc_irq_vectors', 'ERANGE', 'SET_IRQS that enables 0 vectors', ['0 vectors']],
];

const SET_IRQS: readonly Row[] = [
  ['step 1', 'EFAULT', 'the header', ['SET_IRQS', 'step 1']],
  ['step 2', 'EINVAL', 'argsz', ['SET_IRQS', 'argsz before index']],
  ['step 2', 'EINVAL', 'index', ['SET_IRQS', 'index before wrap']],
  ['step 2', 'EINVAL', 'start + count wraps', ['SET_IRQS', 'wrap before flags']],
  ['step 2', 'EINVAL', 'flags', ['SET_IRQS', 'flags before range']],
  ['step 3', 'EINVAL', 'start beyond the index', ['SET_IRQS', 'range (start)']],
  ['step 3', 'EINVAL', 'count beyond the index', ['SET_IRQS', 'range (count)']],
  ['step 4', 'EINVAL', 'not exactly one kind of data', ['SET_IRQS', 'data flags before size']],
  ['step 4', 'EINVAL', 'no kind of data', ['SET_IRQS', 'no data flag']],
  ['step 5', 'EINVAL', 'argsz without room for the data', ['SET_IRQS', 'size before action']],
  ['step 6', 'EFAULT', 'the data', ['SET_IRQS', 'step 6', 'payload']],
  ['step 7', 'ENOTTY', 'no action', ['SET_IRQS', 'step 7', 'no action']],
  ['step 7', 'ENOTTY', 'several actions', ['SET_IRQS', 'step 7', 'two actions']],
  ['step 7', 'ENOTTY', 'MSI-X mask and unmask', ['SET_IRQS', 'step 7', 'MSI-X mask', 'MSI-X unmask']],
  ['step 7', 'ENOTTY', 'ERR and REQ mask and unmask', ['SET_IRQS', 'step 7', 'ERR mask', 'REQ unmask']],
];

const TRIGGER: readonly Row[] = [
  [
    'vfio_pci_set_msi_trigger',
    'EINVAL',
    'a second disable, and a trigger with nothing active',
    ['second disable', 'nothing is active'],
  ],
  ['vfio_pci_set_msi_trigger', 'EINVAL', 'another index is active', ['another index active']],
  ['vfio_msi_enable', 'ERANGE', 'no vectors', ['0 vectors']],
  ['vfio_msi_enable', 'ENOSPC', 'the errno of the allocation', ['allocation errno']],
  ['vfio_msi_set_vector_signal', 'EINVAL', 'a vector beyond the allocated ones', ['beyond the allocated ones']],
  ['vfio_msi_alloc_irq', 'EBADF', 'behind the errno of an added vector', ['dynamic MSI-X', 'its errno']],
  ['vfio_msi_set_vector_signal', 'EBADF', 'no descriptor', ['EINVAL of a file that is no eventfd']],
  ['vfio_msi_set_vector_signal', 'EINVAL', 'a descriptor that is no eventfd', ['of a file that is no eventfd']],
];

/** Answers that are no errors, and what an error leaves. */
const OUTCOMES: readonly (readonly [what: string, words: readonly string[]])[] = [
  ['fewer vectors than asked for: their positive number', ['fewer vectors than asked', 'positive number']],
  ['EVENTFD enables start + count vectors and programs the block', ['enables start + count vectors']],
  ['the same index active: the block alone is programmed', ['swapping an eventfd']],
  ['count 0 with EVENTFD needs no data', ['EVENTFD with count 0']],
  ['NONE and BOOL are loopback', ['loopback']],
  ['fd -1 keeps the vector', ['fd -1 everywhere']],
  ['a failure in a block tears down up to the failing vector', ['tears the block down']],
  ['a failure of the enabling call disables everything', ['failure of the enabling call']],
];

const found = (words: readonly string[]): string | undefined =>
  titles.find(({ title }) => words.every((word) => title.includes(word)))?.title;

describe('the inventory of what Linux 7.2 refuses', () => {
  it.each([
    ['the errno table of VFIO', LEGACY],
    ['the validation of SET_IRQS, step by step', SET_IRQS],
    ['MSI and MSI-X triggers', TRIGGER],
  ] as const)('%s: each has a test that names it, or a reason in docs/conformance.md', (_table, rows) => {
    const missing = rows.filter(([, errno, , words]) =>
      'absent' in words ? !conformance.includes(words.absent) : found([errno, ...words]) === undefined,
    );
    expect(missing).toEqual([]);
  });

  it('what is answered without an error has a test too', () => {
    expect(OUTCOMES.filter(([, words]) => found(words) === undefined)).toEqual([]);
  });

  it('every errno of the table is in it', () => {
    const names = new Set(LEGACY.map(([, errno]) => errno));
    const table =
      'EACCES EAGAIN EBADF EBADFD EBUSY EEXIST EFAULT EIO ENODEV ENOENT ENOMEM ENOSPC ENOTTY EOVERFLOW EPERM ERANGE';
    expect([...names].sort()).toEqual(table.split(' '));
    for (const name of names) expect(ERRNO[name]).toBeGreaterThan(0);
  });
});

describe('reading titles', () => {
  it('knows nesting, tables, quotes and what is no test', () => {
    const source = `
      describe('outer (', () => {
        it("isn't \\"this\\"", () => call('it('));
        it.each([['a)', 1]])('row %s', () => {}); // it('no')
        it.each<[name: string, Init<typeof x>]>([['b', {}]])('typed %s', () => {});
      });
      it(\`alone\`, () => {});
      const unit = submit('none');`;
    expect(titlesIn(source)).toEqual([
      'outer ( > isn\'t "this"',
      "outer ( > row %s [[['a)', 1]]]",
      "outer ( > typed %s [[['b', {}]]]",
      'alone',
    ]);
  });
});
