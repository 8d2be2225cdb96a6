/** Writes of the virtual MSI control word (vfio_pci_config.c vfio_msi_config_write). */
import { Msi, MsiFlags } from '../../arch/pci/index.ts';
import { VFIO_PCI_MSI_IRQ_INDEX } from '../../uapi/vfio.ts';
import type { ConfigChunk } from './config.ts';
import type { VfioPciState } from './state.ts';

/**
 * MSI is enabled by SET_IRQS alone: until then ENABLE cannot be written. QSIZE never exceeds what was enabled. The word then goes to
 * hardware as the user sees it. (The read side shows the MMC of the time of opening: Linux's fix-up of it changes the id byte instead.)
 */
export function msiWrite(state: VfioPciState, chunk: ConfigChunk): void {
  if (chunk.offset > Msi.FLAGS || chunk.offset + chunk.count < Msi.FLAGS) return;
  const pos = chunk.pos - chunk.offset + Msi.FLAGS;
  let flags = state.vword(pos);
  if (state.irqType !== VFIO_PCI_MSI_IRQ_INDEX) flags &= ~MsiFlags.ENABLE;
  if ((flags & MsiFlags.ENABLED_MASK) >>> MsiFlags.ENABLED_SHIFT > state.msiQmax) {
    flags = (flags & ~MsiFlags.ENABLED_MASK) | (state.msiQmax << MsiFlags.ENABLED_SHIFT);
  }
  state.setVword(pos, flags);
  state.dev.configWrite(pos, 2, flags);
}
