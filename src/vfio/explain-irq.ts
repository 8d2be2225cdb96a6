/** What an errno of VFIO_DEVICE_SET_IRQS means (vfio_pci_core.c, vfio_pci_intrs.c), for a kernel that does not say. */
import type { InterruptKind } from './interrupts.ts';
import type { IrqAction } from './irq-set.ts';

type Explanation = { readonly why: string; readonly hint?: string };

export function explainIrq(code: string, kind: InterruptKind, action: IrqAction, enabled: boolean): Explanation | null {
  switch (code) {
    case 'ENOTTY':
      return {
        why: `${action} is not a thing that ${kind} can do`,
        ...(kind === 'intx' ? {} : { hint: 'mask in the device' }),
      };
    case 'EINVAL':
      return enabled
        ? {
            why: `the vectors are outside of what is enabled of ${kind}`,
            hint: 'disable it, and enable a larger number',
          }
        : { why: `the device has not so many of ${kind}, or another kind of interrupt is enabled` };
    case 'ENOSPC':
      return {
        why: `the host has no interrupts left for ${kind}, or the group has no domain that can map the doorbell`,
        hint: 'put the group into a container with an IOMMU first, or attach the device to an IOAS',
      };
    case 'EBADF':
      return { why: 'a file descriptor is not open' };
    case 'EBUSY':
      return { why: 'an eventfd is installed already' };
    case 'ERANGE':
      return { why: 'no vectors were asked for' };
    default:
      return null;
  }
}
