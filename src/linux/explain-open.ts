/** Why a file of VFIO could not be opened, and what helps: found out by looking, after the fact. */
import { existsSync, readdirSync } from 'node:fs';
import type { Refusal } from '../ports/kernel.ts';
import { ERRNO, errnoName } from '../uapi/errno.ts';

type Reason = Pick<Refusal, 'why' | 'hint'>;

/** Null for files that are not VFIO's, and where there is nothing to add. */
export function explainOpen(path: string, errno: number, look: Look = thisMachine): Refusal | null {
  if (!path.startsWith('/dev/vfio') && path !== '/dev/iommu') return null;
  const reason = reasonOf(path, errno, look);
  return reason === null
    ? null
    : { errno, code: errnoName(-errno), request: `open(${path})`, field: 'path', ...reason };
}

/** What is looked at. */
export interface Look {
  exists(path: string): boolean;
  list(path: string): readonly string[];
  user(): string;
}

const thisMachine: Look = {
  exists: existsSync,
  list: (path) => (existsSync(path) ? readdirSync(path) : []),
  user: () => `user ${process.getuid?.() ?? '?'}`,
};

function reasonOf(path: string, errno: number, look: Look): Reason | null {
  if (errno === ERRNO.EACCES || errno === ERRNO.EPERM) {
    return { why: `${look.user()} may not open ${path}`, hint: `give it the file: chown ${path}` };
  }
  if (errno === ERRNO.EBUSY)
    return { why: `${path} is open already; it has one owner`, hint: 'stop the other program' };
  if (errno !== ERRNO.ENOENT && errno !== ERRNO.ENODEV) return null;
  if (path === '/dev/iommu') {
    return {
      why: 'this kernel has no iommufd',
      hint: 'load the module iommufd; Debian builds none: use the container',
    };
  }
  if (path.startsWith('/dev/vfio/devices/')) return noCdev(path, look);
  if (path === '/dev/vfio/vfio') {
    return { why: 'VFIO is not loaded', hint: 'modprobe vfio-pci; a container needs /dev/vfio handed in' };
  }
  return noGroup(path, look);
}

function noCdev(path: string, look: Look): Reason {
  if (look.exists('/dev/vfio/devices')) return { why: `${path} does not exist`, hint: 'bind the device to vfio-pci' };
  return { why: 'this kernel has no VFIO_DEVICE_CDEV', hint: 'use the container and group instead' };
}

function noGroup(path: string, look: Look): Reason {
  const group = path.split('/').at(-1)!;
  if (look.list('/sys/kernel/iommu_groups').length === 0) {
    const hint =
      'enable it in the firmware (VT-d, AMD-Vi, SMMU); Intel: also intel_iommu=on on the kernel command line';
    return { why: 'the kernel has no IOMMU: there are no groups', hint };
  }
  const devices = look.list(`/sys/kernel/iommu_groups/${group}/devices`);
  if (devices.length === 0) return { why: `there is no IOMMU group ${group}`, hint: 'see /sys/kernel/iommu_groups' };
  const hint = `echo vfio-pci > /sys/bus/pci/devices/${devices[0]}/driver_override, unbind its driver, and write its name to drivers_probe`;
  return { why: `no device of IOMMU group ${group} (${devices.join(', ')}) is bound to vfio-pci`, hint };
}
