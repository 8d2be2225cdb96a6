/** VFIO_DEVICE_FEATURE of plain vfio-pci, by id (vfio_pci_core.c, vfio_main.c). */
import {
  VFIO_DEVICE_FEATURE_BUS_MASTER,
  VFIO_DEVICE_FEATURE_MASK,
  VFIO_DEVICE_FEATURE_PCI_VF_TOKEN,
} from '../../uapi/vfio.ts';
import type { Process } from '../process.ts';
import type { RefusalLog } from '../refusal.ts';

/** `flags` holds GET, SET and PROBE; `address` is the payload's, `size` its bytes. */
export type FeatureHandler = (process: Process, flags: number, address: number, size: number) => number;

export class FeatureTable {
  private readonly refusals: RefusalLog;
  private readonly handlers = new Map<number, FeatureHandler>();

  constructor(refusals: RefusalLog) {
    this.refusals = refusals;
  }

  set(id: number, handler: FeatureHandler | null): void {
    if (handler === null) this.handlers.delete(id);
    else this.handlers.set(id, handler);
  }

  answer(process: Process, flags: number, address: number, size: number): number {
    const id = flags & VFIO_DEVICE_FEATURE_MASK;
    const handler = this.handlers.get(id);
    return handler === undefined
      ? this.refusals.refuse('ENOTTY', why(id), 'flags')
      : handler(process, flags, address, size);
  }
}

function why(id: number): string {
  if (id === VFIO_DEVICE_FEATURE_PCI_VF_TOKEN)
    return 'the function is no SR-IOV physical function, so it takes no VF token';
  if (id === VFIO_DEVICE_FEATURE_BUS_MASTER) return 'feature 10 (BUS_MASTER) belongs to CDX devices';
  if (id >= 1 && id <= 12) return `feature ${id} belongs to migration, which plain vfio-pci does not have`;
  return `feature ${id} is unknown`;
}
