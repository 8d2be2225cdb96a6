/** GET_INFO, GET_REGION_INFO and GET_IRQ_INFO of a PCI device (vfio_pci_core.c). */
import {
  VFIO_DEVICE_FLAGS_CAPS,
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP,
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_INFO_MASKABLE,
  VFIO_IRQ_INFO_NORESIZE,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_NUM_IRQS,
  VFIO_PCI_NUM_REGIONS,
  VFIO_PCI_ROM_REGION_INDEX,
  VFIO_REGION_INFO_CAP_MSIX_MAPPABLE,
  VFIO_REGION_INFO_FLAG_CAPS,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfio_device_info,
  vfio_device_info_cap_pci_atomic_comp,
  vfio_info_cap_header,
  vfio_irq_info,
  vfio_region_info,
} from '../../uapi/vfio.ts';
import type { Process } from '../process.ts';
import { atomicCompletions } from './atomic-comp.ts';
import { regionOffset, romImageSize } from './regions.ts';
import type { VfioPciIrqControl } from './set-irqs.ts';
import type { VfioPciState } from './state.ts';

const NO_CAPS = new Uint8Array(0);

interface RegionInfo {
  readonly size: number;
  readonly flags: number;
  /** The capability chain as it follows the fixed struct. */
  readonly caps: Uint8Array;
}

export class VfioPciInfo {
  private readonly state: VfioPciState;
  private readonly control: VfioPciIrqControl;

  constructor(state: VfioPciState, control: VfioPciIrqControl) {
    this.state = state;
    this.control = control;
  }

  device(process: Process, argument: number): number {
    const min = vfio_device_info.endOf('num_irqs');
    const bytes = this.copyIn(process, argument, min, vfio_device_info.size, 'vfio_device_info');
    if (typeof bytes === 'number') return bytes;
    const argsz = vfio_device_info.get(bytes, 'argsz');
    const caps = this.deviceCaps();
    const flags =
      VFIO_DEVICE_FLAGS_PCI |
      (this.state.resetWorks ? VFIO_DEVICE_FLAGS_RESET : 0) |
      (caps.length > 0 ? VFIO_DEVICE_FLAGS_CAPS : 0);
    const chain = appendCaps(process, argument, argsz, vfio_device_info.size, caps);
    if (chain === null) return this.fault();
    const { argsz: needed, cap_offset } = chain;
    vfio_device_info.write(bytes, {
      argsz: needed,
      flags,
      num_regions: VFIO_PCI_NUM_REGIONS,
      num_irqs: VFIO_PCI_NUM_IRQS,
      cap_offset,
    });
    return this.copyOut(process, argument, bytes.subarray(0, Math.min(argsz, vfio_device_info.size)));
  }

  region(process: Process, argument: number): number {
    const bytes = this.copyIn(process, argument, vfio_region_info.size, vfio_region_info.size, 'vfio_region_info');
    if (typeof bytes === 'number') return bytes;
    const { argsz, index, cap_offset: given } = vfio_region_info.read(bytes);
    const info = this.describe(index);
    if (info === null) {
      const why =
        index < VFIO_PCI_NUM_REGIONS ? 'the function has no VGA region' : `regions end at ${VFIO_PCI_NUM_REGIONS - 1}`;
      return this.state.context.refusals.refuse('EINVAL', `index ${index}: ${why}`, 'index');
    }
    const chain = appendCaps(process, argument, argsz, vfio_region_info.size, info.caps);
    if (chain === null) return this.fault();
    const flags = info.flags | (info.caps.length > 0 ? VFIO_REGION_INFO_FLAG_CAPS : 0);
    // Without capabilities Linux gives cap_offset back as it came (vfio_main.c vfio_get_region_info).
    const cap_offset = info.caps.length > 0 ? chain.cap_offset : given;
    vfio_region_info.write(bytes, {
      argsz: chain.argsz,
      cap_offset,
      flags,
      index,
      size: info.size,
      offset: regionOffset(index),
    });
    return this.copyOut(process, argument, bytes);
  }

  irq(process: Process, argument: number): number {
    const { refusals } = this.state.context;
    const bytes = this.copyIn(process, argument, vfio_irq_info.size, vfio_irq_info.size, 'vfio_irq_info');
    if (typeof bytes === 'number') return bytes;
    const { argsz, index } = vfio_irq_info.read(bytes);
    if (index >= VFIO_PCI_NUM_IRQS) {
      return refusals.refuse('EINVAL', `index ${index}: PCI has ${VFIO_PCI_NUM_IRQS} interrupt indexes`, 'index');
    }
    if (index === VFIO_PCI_ERR_IRQ_INDEX && !this.state.dev.isPcie) {
      return refusals.refuse('EINVAL', `${this.state.dev.name} is not PCIe and has no error interrupt`, 'index');
    }
    const count = this.control.count(index);
    vfio_irq_info.write(bytes, { argsz, index, count, flags: this.irqFlags(index) });
    return this.copyOut(process, argument, bytes);
  }

  private irqFlags(index: number): number {
    if (index === VFIO_PCI_INTX_IRQ_INDEX)
      return VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
    const grows = index === VFIO_PCI_MSIX_IRQ_INDEX && this.state.hasDynMsix;
    return VFIO_IRQ_INFO_EVENTFD | (grows ? 0 : VFIO_IRQ_INFO_NORESIZE);
  }

  private deviceCaps(): Uint8Array {
    const flags = atomicCompletions(this.state.dev);
    if (flags === 0) return NO_CAPS;
    const header = { id: VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP, version: 1, next: 0 };
    return vfio_device_info_cap_pci_atomic_comp.bytes({ header, flags });
  }

  /** null: no such region. A BAR that the function lacks is there with size 0. */
  private describe(index: number): RegionInfo | null {
    const { state } = this;
    const both = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    if (index === VFIO_PCI_CONFIG_REGION_INDEX) return { size: state.dev.configSize, flags: both, caps: NO_CAPS };
    if (index > VFIO_PCI_CONFIG_REGION_INDEX) return null;
    const resource = state.resource(index);
    if (resource === null) return { size: 0, flags: 0, caps: NO_CAPS };
    if (index === VFIO_PCI_ROM_REGION_INDEX) {
      // Reported only when an image could be read; the size is then the BAR's.
      if (romImageSize(state) === 0) return { size: 0, flags: 0, caps: NO_CAPS };
      return { size: resource.size, flags: VFIO_REGION_INFO_FLAG_READ, caps: NO_CAPS };
    }
    if (state.mmapSupported[index] !== true) return { size: resource.size, flags: both, caps: NO_CAPS };
    const header = { id: VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, version: 1, next: 0 };
    const caps = index === state.msixBar ? vfio_info_cap_header.bytes(header) : NO_CAPS;
    return { size: resource.size, flags: both | VFIO_REGION_INFO_FLAG_MMAP, caps };
  }

  /** The first `min` bytes of a struct of `size`, its argsz checked; or -errno. */
  private copyIn(process: Process, argument: number, min: number, size: number, name: string): Uint8Array | number {
    const { refusals } = this.state.context;
    const bytes = new Uint8Array(size);
    if (!process.memory.copyIn(argument, bytes.subarray(0, min))) {
      return refusals.refuse('EFAULT', `struct ${name} is not readable`, 'argument');
    }
    const argsz = new DataView(bytes.buffer).getUint32(0, true);
    return argsz < min ? refusals.refuse('EINVAL', `argsz ${argsz} is less than ${min}`, 'argsz') : bytes;
  }

  private copyOut(process: Process, argument: number, bytes: Uint8Array): number {
    return process.memory.copyOut(argument, bytes) ? 0 : this.fault();
  }

  private fault(): number {
    return this.state.context.refusals.refuse('EFAULT', 'the struct is not writable', 'argument');
  }
}

/** Writes the chain (one capability) behind the struct when there is room; else only the argsz that would do. null: a fault. */
function appendCaps(
  process: Process,
  argument: number,
  argsz: number,
  size: number,
  caps: Uint8Array,
): { argsz: number; cap_offset: number } | null {
  if (caps.length === 0) return { argsz, cap_offset: 0 };
  if (argsz < size + caps.length) return { argsz: size + caps.length, cap_offset: 0 };
  return process.memory.copyOut(argument + size, caps) ? { argsz, cap_offset: size } : null;
}
