/** How the device file's offsets name regions (vfio_pci_core.h), and which BARs can be mapped. */
import { VFIO_PCI_ROM_REGION_INDEX } from '../../uapi/vfio.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { VfioPciState } from './state.ts';

/** offset = index << 40 | position. */
export const REGION_STRIDE = 2 ** 40;

export const regionOffset = (index: number): number => index * REGION_STRIDE;
export const regionIndex = (offset: number): number => Math.floor(offset / REGION_STRIDE);
export const regionPosition = (offset: number): number => offset % REGION_STRIDE;

/** A PCI expansion ROM image begins with 55 AA (PCI 3.0 section 6.3.1.1). */
const ROM_SIGNATURE = 0xaa55;

/**
 * vfio_pci_probe_mmaps: a memory BAR of at least a page, or a smaller one at the start of a page whose rest is nobody else's. `others` are the
 * functions that might have a BAR in the same page.
 */
export function probeMmaps(state: VfioPciState, others: readonly PciDev[]): void {
  const { pageSize } = state.context;
  for (let bar = 0; bar < VFIO_PCI_ROM_REGION_INDEX; bar += 1) {
    const resource = state.resource(bar);
    if (resource === null || resource.kind !== 'memory') state.mmapSupported[bar] = false;
    else if (resource.size >= pageSize) state.mmapSupported[bar] = true;
    else state.mmapSupported[bar] = resource.base % pageSize === 0 && !sharesPage(resource, pageSize, others);
  }
}

function sharesPage(resource: { base: number; size: number }, pageSize: number, others: readonly PciDev[]): boolean {
  const start = resource.base + resource.size;
  const end = resource.base + pageSize;
  return others.some((dev) =>
    dev.resources.some(
      ({ kind, base, size }) => kind !== 'io' && size > 0 && base !== 0 && base < end && base + size > start,
    ),
  );
}

/** Bytes of the ROM image, 0 when there is none: pci_map_rom, with decoding on. */
export function romImageSize(state: VfioPciState): number {
  const rom = state.resource(6);
  if (rom === null) return 0;
  return withRom(state, () => {
    const { bus } = state.context;
    let image = 0;
    for (let images = 0; images < 64 && image + 0x1c <= rom.size; images += 1) {
      if (bus.read(rom.base + image, 2) !== ROM_SIGNATURE) break;
      const data = bus.read(rom.base + image + 0x18, 2);
      const length = bus.read(rom.base + image + data + 0x10, 2) * 512;
      if (length === 0) break;
      const last = (bus.read(rom.base + image + data + 0x15, 1) & 0x80) !== 0;
      image += length;
      if (last) break;
    }
    return Math.min(image, rom.size);
  });
}

/** Memory decoding and the ROM's own enable on while `body` runs. */
export function withRom<T>(state: VfioPciState, body: () => T): T {
  const register = state.dev.configRead(0x30, 4);
  return state.withMemory(() => {
    state.dev.configWrite(0x30, 4, register | 1);
    const result = body();
    state.dev.configWrite(0x30, 4, register);
    return result;
  });
}
