/** The virtual BARs: sizing as hardware would answer it, and recovery of the real ones after a reset behind the kernel's back. */
import { Bar, Header, Header0 } from '../../arch/pci/index.ts';
import type { VfioPciState } from './state.ts';

/** Offsets of BARs and ROM in the header. */
export const isBar = (offset: number): boolean =>
  (offset >= Header.BAR0 && offset < Header.BAR0 + 24) || (offset >= Header0.ROM && offset < Header0.ROM + 4);

export class BarEmulation {
  private readonly state: VfioPciState;

  constructor(state: VfioPciState) {
    this.state = state;
  }

  /** vfio_bar_fixup: before a read of a BAR that was written, bits below its size go, and the type bits come back. */
  fixup(): void {
    const { state } = this;
    if (!state.barDirty) return;
    for (let index = 0; index < 6; index += 1) {
      const offset = Header.BAR0 + 4 * index;
      const resource = state.resource(index);
      if (resource === null) {
        state.setVdword(offset, 0);
        continue;
      }
      const mask = ~(BigInt(resource.size) - 1n);
      const flags =
        resource.kind === 'io'
          ? Bar.IO
          : (resource.prefetchable ? Bar.PREFETCHABLE : 0) | (resource.is64 ? Bar.TYPE_64 : 0);
      state.setVdword(offset, ((state.vdword(offset) & lowWord(mask)) | flags) >>> 0);
      if (!resource.is64) continue;
      index += 1;
      state.setVdword(offset + 4, (state.vdword(offset + 4) & lowWord(mask >> 32n)) >>> 0);
    }
    const rom = state.resource(6);
    const mask = rom === null ? 0 : lowWord(~(BigInt(rom.size) - 1n)) | Bar.ROM_ENABLE;
    state.setVdword(Header0.ROM, (state.vdword(Header0.ROM) & mask) >>> 0);
    state.barDirty = false;
  }

  /** vfio_need_bar_restore: a base that the host assigned is no longer in the register. */
  get needsRestore(): boolean {
    const { rbar, dev } = this.state;
    if (dev.physfn !== null) return false;
    return rbar.slice(0, 6).some((value, index) => value !== 0 && dev.configRead(Header.BAR0 + 4 * index, 4) !== value);
  }

  /** vfio_bar_restore. */
  restore(): void {
    const { rbar, dev } = this.state;
    if (dev.physfn !== null) return;
    for (let index = 0; index < 6; index += 1) dev.configWrite(Header.BAR0 + 4 * index, 4, rbar[index]!);
    dev.configWrite(Header0.ROM, 4, rbar[6]!);
  }
}

const lowWord = (value: bigint): number => Number(value & 0xffff_ffffn) | 0;
