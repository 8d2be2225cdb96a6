/** Writes of the virtual COMMAND register (vfio_pci_config.c vfio_basic_config_write). */
import { Command, Header } from '../../arch/pci/index.ts';
import type { BarEmulation } from './config-bars.ts';
import type { VfioPciState } from './state.ts';

/** Masks and unmasks INTx as the user's INTX_DISABLE bit says. */
export interface IntxMasking {
  mask(): void;
  unmask(): void;
}

/**
 * Decoding off takes the mmaps away first. A user that turns decoding on, while it thinks that it is on and hardware says off, has a function
 * that was reset behind the kernel's back: the real bases go back before `write`.
 */
export function commandWrite(state: VfioPciState, bars: BarEmulation, value: number, write: () => void): void {
  const decode = Command.MEMORY | Command.IO;
  const real = state.dev.configRead(Header.COMMAND, 2);
  const believed = state.vword(Header.COMMAND);
  if ((value & Command.MEMORY) === 0) state.zap();
  if ((value & believed & ~real & decode) !== 0 || bars.needsRestore) bars.restore();
  write();
  state.setVword(Header.COMMAND, (state.vword(Header.COMMAND) & ~decode) | (value & decode));
  state.unzap();
}

/** INTX_DISABLE is virtual: it masks through the path that the interrupt itself uses. */
export function intxDisableWrite(state: VfioPciState, intx: IntxMasking): void {
  const disabled = (state.vword(Header.COMMAND) & Command.INTX_DISABLE) !== 0;
  if (disabled === state.virqDisabled) return;
  state.virqDisabled = disabled;
  if (disabled) intx.mask();
  else intx.unmask();
}
