/** Vital product data: the kernel carries out the access and toggles F in the virtual address register (vfio_pci_config.c vfio_vpd_config_write). */
import type { ConfigChunk } from './config.ts';
import type { VfioPciState } from './state.ts';

const ADDR = 2;
const DATA = 4;
/** Bit 15 of the address: 0 asks for a read, 1 for a write; hardware inverts it when done. */
const F = 0x8000;
/** Reads of the flag before the access is given up; Linux waits 125 ms. */
const POLLS = 64;

export function vpdWrite(state: VfioPciState, chunk: ConfigChunk): void {
  const cap = chunk.pos - chunk.offset;
  // Only the byte that holds F starts something.
  if (chunk.offset > ADDR + 1 || chunk.offset + chunk.count <= ADDR + 1) return;
  const address = state.vword(cap + ADDR);
  if ((address & F) !== 0) {
    state.dev.configWrite(cap + DATA, 4, state.vdword(cap + DATA));
    if (!start(state, cap, address)) return;
  } else {
    if (!start(state, cap, address)) return;
    state.setVdword(cap + DATA, state.dev.configRead(cap + DATA, 4));
  }
  state.setVword(cap + ADDR, address ^ F);
}

/** Starts the access and waits for the flag; false when it never comes, and the user's F then stays as written. */
function start(state: VfioPciState, cap: number, address: number): boolean {
  // VPD is read and written in dwords (pci_vpd_write refuses others).
  if ((address & 3) !== 0 && (address & F) !== 0) return false;
  state.dev.configWrite(cap + ADDR, 2, address);
  for (let poll = 0; poll < POLLS; poll += 1) {
    if ((state.dev.configRead(cap + ADDR, 2) & F) !== (address & F)) return true;
  }
  return false;
}
