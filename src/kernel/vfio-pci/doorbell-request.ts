/** A SET of the virtual doorbell, from bytes to checked numbers: every refusal names its field (docs/doorbell.md, rules 2 to 7, 13, 14, 19). */

import { hex, hexPlain } from '../../ports/address.ts';
import type { DoorbellPage } from '../../ports/bus.ts';
import type { IommuDomain } from '../../ports/iommu.ts';
import type { vfio_device_feature_belfry_doorbell } from '../../uapi/belfry.ts';
import type { Value } from '../../uapi/struct.ts';
import { VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX } from '../../uapi/vfio-pci.ts';
import type { KernelContext } from '../context.ts';
import { canAddress64, msiCount, msixCount } from '../irq/msi-hardware.ts';
import type { MsiMode } from '../irq/pci-irqs.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import { type DmaContext, doorbellGranule } from '../vfio/doorbell-context.ts';
import type { DoorbellTarget } from './doorbell-settings.ts';

export type DoorbellPayload = Value<typeof vfio_device_feature_belfry_doorbell>;

/** Where a device is attached: the context of its IOVAs, and the domain that translates for it. */
export interface DoorbellSite {
  readonly dma: DmaContext;
  readonly domain: IommuDomain;
}

/** Hardware's addresses end at 2^52: beyond, no aperture can be. */
const NO_APERTURE_YET = 2 ** 52 - 1;
const FOUR_GIB = 2 ** 32;
const U64 = 2n ** 64n;

/** The vectors that `index` has, and which MSI flavour it is; or -EINVAL. */
export function doorbellIndex(
  context: KernelContext,
  dev: PciDev,
  index: number,
): { mode: MsiMode; vectors: number } | number {
  const mode = index === VFIO_PCI_MSI_IRQ_INDEX ? 'msi' : index === VFIO_PCI_MSIX_IRQ_INDEX ? 'msix' : null;
  if (mode === null) {
    const why = `index ${index} has no doorbell: MSI is ${VFIO_PCI_MSI_IRQ_INDEX}, MSI-X is ${VFIO_PCI_MSIX_IRQ_INDEX}`;
    return context.refusals.refuse('EINVAL', why, 'index');
  }
  const vectors = mode === 'msi' ? msiCount(dev) : msixCount(dev);
  if (vectors > 0) return { mode, vectors };
  return context.refusals.refuse('EINVAL', `${dev.name} has no vectors of index ${index}`, 'index');
}

/** Flags, index, start and count of a SET. */
export function checkTarget(context: KernelContext, dev: PciDev, payload: DoorbellPayload): DoorbellTarget | number {
  const { refusals } = context;
  const { flags, index, start, count } = payload;
  if (flags !== 0) return refusals.refuse('EINVAL', `flags ${hexPlain(flags)}: a SET has none`, 'flags');
  const which = doorbellIndex(context, dev, index);
  if (typeof which === 'number') return which;
  const { mode, vectors } = which;
  if (count === 0 && start !== 0) {
    return refusals.refuse('EINVAL', `start ${start} with count 0: the default of an index starts at 0`, 'start');
  }
  if (start >= vectors) {
    return refusals.refuse('EINVAL', `start ${start}: index ${index} of ${dev.name} has ${vectors} vectors`, 'start');
  }
  if (start + count > vectors) {
    const why = `start ${start} + count ${count} is beyond the ${vectors} vectors of index ${index}`;
    return refusals.refuse('EINVAL', why, 'count');
  }
  if (mode === 'msi' && start !== 0) {
    return refusals.refuse('EINVAL', `start ${start}: all messages of MSI share one address`, 'start');
  }
  if (mode === 'msi' && count !== 0 && count !== vectors) {
    const why = `count ${count}: MSI has one address for all ${vectors} messages, so count is 0 or ${vectors}`;
    return refusals.refuse('EINVAL', why, 'count');
  }
  return { mode, start, count: mode === 'msi' ? 0 : count };
}

/** iova and size of a SET that gives a range. */
export function checkRange(
  context: KernelContext,
  dev: PciDev,
  site: DoorbellSite | null,
  payload: DoorbellPayload,
): { iova: number; size: number } | number {
  const { iova, size } = payload;
  if (iova + size > U64) {
    const why = `iova ${hex(iova)} + size ${hex(size)} wraps at 2^64`;
    return context.refusals.refuse('EOVERFLOW', why, 'size');
  }
  const granule = BigInt(doorbellGranule(context.pageSize, site?.domain ?? null));
  for (const [field, value] of [
    ['iova', iova],
    ['size', size],
  ] as const) {
    if (value % granule !== 0n) {
      const why = `${field} ${hex(value)} is no multiple of ${hex(granule)}, the larger of the page and the domain's smallest page`;
      return context.refusals.refuse('EINVAL', why, field, roundHint(field, value, granule));
    }
  }
  const start = BigInt(site?.domain.apertureStart ?? 0);
  const end = BigInt(site?.domain.apertureEnd ?? NO_APERTURE_YET);
  if (iova < start || iova + size - 1n > end) {
    const why = `iova ${hex(iova)} + ${hex(size)} is outside the aperture ${hex(start)} to ${hex(end)}`;
    return context.refusals.refuse('EINVAL', why, iova > end || iova < start ? 'iova' : 'size');
  }
  const range = { iova: Number(iova), size: Number(size) };
  const error = checkReach(context, dev, range);
  return error < 0 ? error : range;
}

/** What does not depend on how the numbers came: a setting is checked again when the device is attached somewhere else. */
export function recheckRange(
  context: KernelContext,
  dev: PciDev,
  site: DoorbellSite,
  range: { readonly iova: number; readonly size: number },
): number {
  const checked = checkRange(context, dev, site, {
    flags: 0,
    index: 0,
    start: 0,
    count: 0,
    iova: BigInt(range.iova),
    size: BigInt(range.size),
  });
  return typeof checked === 'number' ? checked : 0;
}

/**
 * Rule 14: the page that is mapped must hold the doorbell's frame and nothing else, or the device could write what lies beside it. 0 or -EPERM.
 */
export function checkFrames(
  context: KernelContext,
  dev: PciDev,
  site: DoorbellSite,
  frames: readonly DoorbellPage[],
): number {
  if (unsafeAllowed(context, site.dma.kind)) return 0;
  const granule = doorbellGranule(context.pageSize, site.domain);
  const shared = frames.find((frame) => !fills(frame, granule));
  if (shared === undefined) return 0;
  const why = `the doorbell frame ${hex(shared.base)} + ${hex(shared.size)} of ${dev.name} does not fill a page of ${hex(granule)}: mapping it would expose what lies beside it`;
  return context.refusals.refuse('EPERM', why, 'iova', 'set allow_unsafe_interrupts to accept that');
}

function checkReach(context: KernelContext, dev: PciDev, range: { iova: number; size: number }): number {
  if (range.iova + range.size <= FOUR_GIB || canAddress64(dev)) return 0;
  const why = `${dev.name} sends to 32-bit addresses only, and ${hex(range.iova)} + ${hex(range.size)} ends above 4 GiB`;
  return context.refusals.refuse('ERANGE', why, 'iova');
}

function fills(frame: DoorbellPage, granule: number): boolean {
  const register = frame.base + frame.register;
  const page = register - (register % granule);
  return page >= frame.base && page + granule <= frame.base + frame.size;
}

const unsafeAllowed = (context: KernelContext, kind: DmaContext['kind']): boolean =>
  kind === 'type1'
    ? context.modules.vfio_iommu_type1.allow_unsafe_interrupts
    : context.modules.iommufd.allow_unsafe_interrupts;

function roundHint(field: string, value: bigint, granule: bigint): string {
  const down = value - (value % granule);
  return field === 'iova' ? `${hex(down)} holds it` : `${hex(down + granule)} holds it`;
}
