/** The virtual doorbell: the IOVA that a device's MSIs are written to, as user space chooses it. */
import { type Iova, iova as toIova } from '../ports/address.ts';
import {
  VFIO_DEVICE_FEATURE_BELFRY_DOORBELL,
  VFIO_DEVICE_FEATURE_BELFRY_DOORBELL_ACTIVE,
  VFIO_DEVICE_FEATURE_BELFRY_DOORBELL_BYPASS,
  vfio_device_feature_belfry_doorbell,
} from '../uapi/belfry.ts';
import { VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX } from '../uapi/vfio-pci.ts';
import { encoded, oneOf, whole, wholeIova } from './argument.ts';
import { roundDown } from './choose-iova.ts';
import type { Feature } from './feature.ts';

const REQUEST = 'VFIO_DEVICE_FEATURE';
const KINDS = ['msi', 'msix'] as const;

export interface DoorbellRange {
  /** Whose vectors; left out: MSI-X. */
  readonly kind?: 'msi' | 'msix';
  /** First vector; left out: 0. */
  readonly start?: number;
  /** Vectors; 0 or left out: the default of the kind. */
  readonly count?: number;
}

export interface DoorbellChoice extends DoorbellRange {
  /** The MSI address that the guest was given, say 0x0809_0040; rounded down to the granule. */
  readonly iova: number | bigint;
  /** Bytes, a multiple of the granule; left out: one granule, enough for one doorbell page. */
  readonly size?: number;
}

export interface DoorbellState {
  /** What the vector holds: the doorbell's IOVA with the low bits of the physical doorbell. */
  readonly address: Iova;
  /** The granule in bytes. */
  readonly size: number;
  /** The vector is allocated and the doorbell is mapped. */
  readonly active: boolean;
  /** The platform does not translate the doorbell: there is nothing to choose. */
  readonly bypass: boolean;
}

/**
 * @example
 * if (device.doorbell.probe()) device.doorbell.set({ iova: 0x0809_0040 }); // the guest's GITS_TRANSLATER
 * device.msix.enable(4);
 * console.log(device.doorbell.get(0).address.toString(16)); // 8090040
 */
export class Doorbell {
  readonly #feature: Feature;
  readonly #granule: () => number;

  /** Made by {@link Device}. `granule`: the page of the kernel or of the domain, whichever is larger. */
  constructor(feature: (id: number) => Feature, granule: () => number) {
    this.#feature = feature(VFIO_DEVICE_FEATURE_BELFRY_DOORBELL);
    this.#granule = granule;
  }

  /** Does this kernel let user space choose? Linux 7.2 does not. */
  probe(): boolean {
    return this.#feature.supports();
  }

  /** Chooses. @returns the range as it was given to the kernel @throws VfioError: ENOTTY on Linux 7.2, EADDRINUSE for a range in use */
  set(choice: DoorbellChoice): { readonly iova: Iova; readonly size: number } {
    const granule = this.#granule();
    const iova = toIova(roundDown(wholeIova(choice.iova, REQUEST), granule));
    const size = whole(choice.size ?? granule, REQUEST, 'size');
    this.#feature.set(payload(choice, iova, size), explain);
    return { iova, size };
  }

  /** Ends the choice for the range of vectors. @throws VfioError */
  clear(range: DoorbellRange = {}): void {
    this.#feature.set(payload(range, 0, 0), explain);
  }

  /** What vector `start` holds. @throws VfioError */
  get(start = 0, kind: 'msi' | 'msix' = 'msix'): DoorbellState {
    const answer = this.#feature.get(payload({ kind, start }, 0, 0), explain);
    const { flags, iova, size } = vfio_device_feature_belfry_doorbell.read(answer);
    return {
      address: toIova(iova),
      size: Number(size),
      active: (flags & VFIO_DEVICE_FEATURE_BELFRY_DOORBELL_ACTIVE) !== 0,
      bypass: (flags & VFIO_DEVICE_FEATURE_BELFRY_DOORBELL_BYPASS) !== 0,
    };
  }
}

function payload(range: DoorbellRange, iova: number, size: number): Uint8Array {
  const { kind = 'msix', start = 0, count = 0 } = range;
  oneOf(kind, KINDS, REQUEST, 'kind');
  const index = kind === 'msi' ? VFIO_PCI_MSI_IRQ_INDEX : VFIO_PCI_MSIX_IRQ_INDEX;
  return encoded(vfio_device_feature_belfry_doorbell, { index, start, count, iova, size }, REQUEST);
}

function explain(code: string): { why: string; hint?: string } | null {
  if (code === 'ENOTTY') {
    return {
      why: 'this kernel does not let user space choose the doorbell',
      hint: 'it uses a window of its own, which the reserved regions of the group show',
    };
  }
  if (code === 'EADDRINUSE')
    return { why: 'the range is mapped, reserved, or partly that of another doorbell', hint: 'choose another' };
  if (code === 'EOPNOTSUPP') return { why: 'the platform does not translate the doorbell: there is nothing to choose' };
  return null;
}
