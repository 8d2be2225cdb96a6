/**
 * Where the two kernels answer differently for a reason that is known: a device of QEMU's, a configuration of the kernel. A program with such a difference is
 * counted, and what follows in it is not compared. A reason that no program of a long run met is stale, and the run fails.
 *
 * `{ name, kernels, why, source, matches: ({ call, program, at, sim, linux }) => boolean }`
 */
import { PLATFORM_NAMES } from '../platforms.mjs';

const CONFIG = 7 * 2 ** 40;
/** Does the call read one of the bytes [from, to] of a device's configuration space? */
const reads = ({ op, fd, offset, length }, device, from, to) =>
  op === 'pread' && fd === device && offset <= CONFIG + to && offset + length > CONFIG + from;

export const KNOWN = [
  {
    name: 'PCI Express: where a function stands',
    kernels: PLATFORM_NAMES,
    why: 'the captures are of functions behind a root port; in the lab they are on the root bus, Root Complex Integrated Endpoints, and QEMU is newer (Extended Tag)',
    source: 'QEMU hw/pci/pcie.c pcie_endpoint_cap_init',
    matches: ({ call }) => reads(call, 'd-nvme', 0x82, 0x8f) || reads(call, 'd-igb', 0xa2, 0xaf),
  },
  {
    name: 'igb: SR-IOV, AER, PMCSR',
    kernels: PLATFORM_NAMES,
    why: 'the base addresses of its VFs are the host’s, and read only for the owner; ARI is on in the capture, whose port has it, and off on a root bus; the model has not all of QEMU’s masks of what can be written (AER’s masks and severities, Data_Select)',
    source: 'drivers/pci/iov.c sriov_init; QEMU hw/net/igb.c',
    matches: ({ call }) =>
      [
        [0x45, 0x45],
        [0x104, 0x11b],
        [0x168, 0x169],
        [0x184, 0x19b],
      ].some(([from, to]) => reads(call, 'd-igb', from, to)),
  },
  {
    name: 'an eventfd that the kernel listens to already',
    kernels: PLATFORM_NAMES,
    why: 'a simulated eventfd has one consumer inside the kernel',
    source: 'drivers/vfio/virqfd.c vfio_virqfd_enable',
    matches: ({ call, sim, linux }) =>
      ['VFIO_DEVICE_IOEVENTFD', 'VFIO_DEVICE_SET_IRQS'].includes(call.request) && sim === 'EBUSY' && linux === '0',
  },
];

/** The reason for a difference, or null. */
export const reasonFor = (kernel, difference) =>
  KNOWN.find(({ kernels, matches }) => kernels.includes(kernel) && matches(difference)) ?? null;
