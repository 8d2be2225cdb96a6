/** The configuration space that a user sees (vfio_pci_config.c): chunks, masks, and what capabilities do beyond the masks. */
import { CapabilityId, Command, EXTENDED_CAPABILITIES, Header } from '../../arch/pci/index.ts';
import type { Process } from '../process.ts';
import { BarEmulation, isBar } from './config-bars.ts';
import { commandWrite, type IntxMasking, intxDisableWrite } from './config-command.ts';
import { afWrite, expWrite } from './config-express.ts';
import { buildConfigMap, MAP_BASIC, MAP_INVALID } from './config-map.ts';
import { msiWrite } from './config-msi.ts';
import { BASIC_PERMS, capPerms, ecapPerms, type PermBits, STD_HEADER_SIZE, UNASSIGNED_PERMS } from './config-perms.ts';
import { pmWrite } from './config-power.ts';
import { vpdWrite } from './config-vpd.ts';
import type { VfioPciState } from './state.ts';

/** One access within one dword and one capability. `offset` is relative to the capability. */
export interface ConfigChunk {
  readonly pos: number;
  readonly count: number;
  readonly offset: number;
  readonly perm: PermBits;
}

export class VfioPciConfig {
  private readonly state: VfioPciState;
  private readonly bars: BarEmulation;
  private readonly intx: IntxMasking;
  private msi: PermBits | null = null;

  constructor(state: VfioPciState, intx: IntxMasking) {
    this.state = state;
    this.bars = new BarEmulation(state);
    this.intx = intx;
  }

  /** vfio_config_init: reads the function's space as it is now. */
  init(): void {
    this.msi = buildConfigMap(this.state).msiPerms;
  }

  /** vfio_pci_config_rw. Bytes done, -EFAULT out of range or at a bad buffer. Never short. */
  transfer(process: Process, address: number, count: number, pos: number, isWrite: boolean): number {
    const { refusals } = this.state.context;
    const { configSize } = this.state.dev;
    if (pos >= configSize || pos + count > configSize) {
      const why = `configuration bytes [${pos}, ${pos + count}) reach beyond the ${configSize} that the function has`;
      return refusals.refuse('EFAULT', why, 'offset');
    }
    for (let done = 0; done < count; ) {
      const chunk = this.chunk(pos + done, count - done);
      const copied = isWrite
        ? this.writeFrom(process, address + done, chunk)
        : this.readTo(process, address + done, chunk);
      if (!copied)
        return refusals.refuse('EFAULT', `the buffer at byte ${done} of ${count} is not accessible`, 'buffer');
      done += chunk.count;
    }
    return count;
  }

  /** What a user reads at `pos`; at most what one chunk holds. */
  readChunk(chunk: ConfigChunk): number {
    const { perm, pos, count, offset } = chunk;
    switch (perm.read) {
      case 'raw':
        return this.hardware(pos, count);
      case 'direct':
        return this.directRead(chunk);
      case 'basic':
        if (isBar(offset)) this.bars.fixup();
        return (this.maskedRead(chunk) | (offset === Header.COMMAND ? this.virtualMemoryBit : 0)) >>> 0;
      default:
        return this.maskedRead(chunk);
    }
  }

  /** A virtual function has no memory enable of its own: its user sees the one it wrote, and on at first. */
  private get virtualMemoryBit(): number {
    return this.state.noCommandMemory ? this.state.vword(Header.COMMAND) & Command.MEMORY : 0;
  }

  /** What a user's write does. */
  writeChunk(chunk: ConfigChunk, value: number): void {
    switch (chunk.perm.write) {
      case 'none':
        return;
      case 'raw':
        this.state.dev.configWrite(chunk.pos, chunk.count, value);
        return;
      case 'basic':
        this.basicWrite(chunk, value);
        return;
      case 'pm':
        this.maskedWrite(chunk, value);
        pmWrite(this.state, chunk, value);
        return;
      case 'vpd':
        this.maskedWrite(chunk, value);
        vpdWrite(this.state, chunk);
        return;
      case 'exp':
        expWrite(this.state, chunk, () => this.maskedWrite(chunk, value));
        return;
      case 'af':
        this.maskedWrite(chunk, value);
        afWrite(this.state, chunk);
        return;
      case 'msi':
        this.maskedWrite(chunk, value);
        msiWrite(this.state, chunk);
        return;
      default:
        this.maskedWrite(chunk, value);
    }
  }

  /** The aligned piece at the start of [pos, pos + count): never beyond a dword, never two capabilities. */
  chunk(pos: number, count: number): ConfigChunk {
    const { map } = this.state;
    const id = map[pos]!;
    let room = 1;
    while ((pos + room) % 4 !== 0 && map[pos + room] === id) room += 1;
    const most = Math.min(count, room);
    const size = most >= 4 && pos % 4 === 0 ? 4 : most >= 2 && pos % 2 === 0 ? 2 : 1;
    const start = id === MAP_INVALID ? pos : this.capStart(pos, id);
    return { pos, count: size, offset: pos - start, perm: this.permsAt(pos, id) };
  }

  private permsAt(pos: number, id: number): PermBits {
    if (id === MAP_INVALID) return UNASSIGNED_PERMS;
    if (pos >= EXTENDED_CAPABILITIES) return ecapPerms(id);
    if (id === MAP_BASIC) return BASIC_PERMS;
    if (id === CapabilityId.MSI && this.msi !== null) return this.msi;
    return capPerms(id);
  }

  /** vfio_find_cap_start: neighbours with the same id count as one capability, as in Linux. */
  private capStart(pos: number, id: number): number {
    const base = pos >= EXTENDED_CAPABILITIES ? EXTENDED_CAPABILITIES : id === MAP_BASIC ? 0 : STD_HEADER_SIZE;
    let start = pos;
    while (start - 1 >= base && this.state.map[start - 1] === id) start -= 1;
    return start;
  }

  private readTo(process: Process, address: number, chunk: ConfigChunk): boolean {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, this.readChunk(chunk), true);
    return process.memory.copyOut(address, bytes.subarray(0, chunk.count));
  }

  /** A capability that takes no writes does not even look at the buffer. */
  private writeFrom(process: Process, address: number, chunk: ConfigChunk): boolean {
    if (chunk.perm.write === 'none') return true;
    const bytes = new Uint8Array(4);
    if (!process.memory.copyIn(address, bytes.subarray(0, chunk.count))) return false;
    this.writeChunk(chunk, new DataView(bytes.buffer).getUint32(0, true));
    return true;
  }

  private hardware(pos: number, count: number): number {
    return this.state.dev.configRead(pos, count) >>> 0;
  }

  private virtual(pos: number, count: number): number {
    return gather(this.state.vconfig, pos, count);
  }

  /** vfio_default_config_read. */
  private maskedRead({ pos, count, offset, perm }: ConfigChunk): number {
    const virt = gather(perm.virtMask, offset, count);
    const value = this.virtual(pos, count);
    const all = count === 4 ? 0xffff_ffff : 2 ** (8 * count) - 1;
    if (virt === all) return value;
    return ((this.hardware(pos, count) & ~virt) | (value & virt)) >>> 0;
  }

  /** vfio_default_config_write. */
  private maskedWrite({ pos, count, offset, perm }: ConfigChunk, value: number): void {
    const write = gather(perm.writeMask, offset, count);
    const virt = gather(perm.virtMask, offset, count);
    const kept = write & virt;
    if (kept !== 0) scatter(this.state.vconfig, pos, count, (this.virtual(pos, count) & ~kept) | (value & kept));
    const real = write & ~virt;
    if (real === 0) return;
    this.state.dev.configWrite(pos, count, ((this.hardware(pos, count) & ~real) | (value & real)) >>> 0);
  }

  /** vfio_direct_config_read: hardware, but for the links that hidden capabilities changed. */
  private directRead({ pos, count, offset }: ConfigChunk): number {
    const value = this.hardware(pos, count);
    if (pos >= EXTENDED_CAPABILITIES) return offset < 4 ? this.virtual(pos, count) : value;
    if (offset === 0 && count > 1) return ((value & ~0xffff) | this.virtual(pos, 2)) >>> 0;
    return offset === 1 ? this.virtual(pos, 1) : value;
  }

  /** vfio_basic_config_write. */
  private basicWrite(chunk: ConfigChunk, value: number): void {
    const { offset } = chunk;
    if (offset === Header.COMMAND) commandWrite(this.state, this.bars, value, () => this.maskedWrite(chunk, value));
    else this.maskedWrite(chunk, value);
    if (offset === Header.COMMAND || offset === Header.COMMAND + 1) intxDisableWrite(this.state, this.intx);
    if (isBar(offset)) this.state.barDirty = true;
  }
}

function gather(bytes: Uint8Array, at: number, count: number): number {
  let value = 0;
  for (let i = count - 1; i >= 0; i -= 1) value = ((value << 8) | (bytes[at + i] ?? 0)) >>> 0;
  return value;
}

function scatter(bytes: Uint8Array, at: number, count: number, value: number): void {
  for (let i = 0; i < count; i += 1) bytes[at + i] = (value >>> (8 * i)) & 0xff;
}
