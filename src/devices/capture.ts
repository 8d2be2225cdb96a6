/**
 * A real function's configuration space, as `lspci -xxxx -vv` or sysfs shows it, and what is to be known of its BARs. The bytes are the
 * truth; what the text says beside them is compared with them, and adds the sizes, which the bytes do not hold.
 */
import {
  Bar,
  CapabilityId,
  CONFIG_SIZE,
  EXTENDED_CONFIG_SIZE,
  findCapability,
  Header,
  HeaderType,
  MSIX_BAR_MASK,
  Msix,
  msixPbaSize,
  msixTableSize,
  msixVectors,
} from '../arch/pci/index.ts';
import type { BarSpec, MsixSpec } from '../ports/pci.ts';
import { CaptureError } from './capture-error.ts';

/** One captured function. */
export interface Capture {
  /** `01:00.0`, as lspci had it; empty for raw bytes. */
  readonly slot: string;
  /** lspci's words for it, or `vendor:device` in hexadecimal. */
  readonly title: string;
  /** 256 or 4,096 bytes. */
  readonly config: Uint8Array;
  /** Index 0 to 5; a 64-bit BAR takes two. */
  readonly bars: readonly (BarSpec | null)[];
  /** Bytes of the expansion ROM, 0 without one. Its contents are not captured. */
  readonly romSize: number;
  /** Sentences about what was not seen but concluded. */
  readonly notes: readonly string[];
}

/** What some other source says of a BAR. `line` is where. */
export interface BarClaim {
  readonly line: number;
  readonly type: BarSpec['type'];
  readonly prefetchable: boolean;
  readonly size: number;
}

/** What text says beside the bytes. */
export interface Claims {
  readonly slot: string;
  readonly title: string;
  /** Line where the device begins, 0 without text. */
  readonly line: number;
  readonly bars: ReadonlyMap<number, BarClaim>;
  readonly romSize: number;
  readonly msix?: { readonly line: number; readonly vectors: number; readonly table?: Place; readonly pba?: Place };
}

export interface Place {
  readonly line: number;
  readonly bar: number;
  readonly offset: number;
}

/** Nothing in a real BAR is smaller than this in memory, as far as a mapping is concerned. */
const PAGE = 4096;
/** I/O BARs are at most 256 bytes (PCI 3.0, 6.2.5.1); this many are assumed where nothing tells. */
const PORTS = 32;

/** @throws CaptureError */
export function buildCapture(config: Uint8Array, claims: Claims): Capture {
  if (config.length !== CONFIG_SIZE && config.length !== EXTENDED_CONFIG_SIZE) {
    const hint = config.length === 64 ? '; without root only the first 64 can be read' : '';
    throw new CaptureError(claims.line, 'config', `expected 256 or 4096 bytes, got ${config.length}${hint}`);
  }
  const read = reader(config);
  const id = read(Header.VENDOR_ID, 4);
  if (id === 0xffff_ffff) {
    // A virtual function's ids read as all ones (SR-IOV 1.1, 3.4.1.1); of a device that does not answer every byte does.
    const silent = config.every((byte) => byte === 0xff);
    const why = silent
      ? 'no device answered'
      : "a virtual function, whose ids are its physical function's; capture that one";
    throw new CaptureError(claims.line, 'vendor id', `all ones: ${why}`);
  }
  const layout = read(Header.HEADER_TYPE, 1) & HeaderType.LAYOUT_MASK;
  if (layout !== HeaderType.ENDPOINT) {
    throw new CaptureError(
      claims.line,
      'header type',
      `${layout} is a bridge's; only endpoints (type 0) can be carried`,
    );
  }
  if (read(Header.INTERRUPT_PIN, 1) > 4) {
    throw new CaptureError(claims.line, 'interrupt pin', `expected 0 to 4, got ${read(Header.INTERRUPT_PIN, 1)}`);
  }
  const notes: string[] = [];
  const msix = msixOf(read, claims);
  const bars = barsOf(read, claims, msix, notes);
  if (msix !== null) checkMsix(msix, bars, claims.line);
  const hex = (value: number): string => value.toString(16).padStart(4, '0');
  const title = claims.title || `${hex(id & 0xffff)}:${hex(id >>> 16)}`;
  return { slot: claims.slot, title, config, bars, romSize: claims.romSize, notes };
}

/** Reads of a captured space; what lies beyond it reads as all ones. */
export function reader(config: Uint8Array): (offset: number, size: number) => number {
  return (offset, size) => {
    let value = 0;
    for (let lane = size - 1; lane >= 0; lane--) value = value * 256 + (config[offset + lane] ?? 0xff);
    return value;
  };
}

/** The MSI-X capability of the bytes, compared with what the text says of it. */
function msixOf(read: (offset: number, size: number) => number, claims: Claims): MsixSpec | null {
  const at = findCapability(read, CapabilityId.MSIX);
  const said = claims.msix;
  if (at === 0) {
    if (said !== undefined) throw new CaptureError(said.line, 'MSI-X', 'the text has it, the hex dump does not');
    return null;
  }
  const vectors = msixVectors(read(at + Msix.FLAGS, 2));
  const place = (register: number): { bar: number; offset: number } => ({
    bar: register & MSIX_BAR_MASK,
    offset: (register & ~MSIX_BAR_MASK) >>> 0,
  });
  const table = place(read(at + Msix.TABLE, 4));
  const pba = place(read(at + Msix.PBA, 4));
  if (said !== undefined && said.vectors !== vectors) {
    throw new CaptureError(said.line, 'MSI-X Count', `the text says ${said.vectors}, the hex dump ${vectors}`);
  }
  for (const [field, text, bytes] of [
    ['MSI-X table', said?.table, table],
    ['MSI-X PBA', said?.pba, pba],
  ] as const) {
    if (text !== undefined && (text.bar !== bytes.bar || text.offset !== bytes.offset)) {
      throw new CaptureError(
        text.line,
        field,
        `the text says BAR=${text.bar} offset=${text.offset.toString(16)}, the hex dump BAR=${bytes.bar} offset=${bytes.offset.toString(16)}`,
      );
    }
  }
  return { vectors, table, pba };
}

function barsOf(
  read: (offset: number, size: number) => number,
  claims: Claims,
  msix: MsixSpec | null,
  notes: string[],
): (BarSpec | null)[] {
  const bars: (BarSpec | null)[] = [];
  for (let index = 0; index < 6; index++) {
    const bar = barOf(read, index, claims, msix, notes);
    bars[index] = bar;
    if (bar?.type !== 'memory64') continue;
    const line = claims.bars.get(index)?.line ?? claims.line;
    if (index === 5)
      throw new CaptureError(line, 'Region 5', 'a 64-bit BAR takes two registers, and there is none after the last');
    index++;
    bars[index] = null;
    const next = claims.bars.get(index);
    if (next !== undefined)
      throw new CaptureError(next.line, `Region ${index}`, `is the upper half of the 64-bit region ${index - 1}`);
  }
  return bars;
}

function barOf(
  read: (offset: number, size: number) => number,
  index: number,
  claims: Claims,
  msix: MsixSpec | null,
  notes: string[],
): BarSpec | null {
  const low = read(Header.BAR0 + index * 4, 4);
  const said = claims.bars.get(index);
  const needed = tableEnd(msix, index);
  if (low === 0 && said === undefined && needed === 0) return null;
  const shown = low === 0 ? null : shownBar(low, index, claims.line);
  if (said !== undefined) return agreedBar(index, said, shown);
  const type = shown?.type ?? 'memory32';
  const high = type === 'memory64' && index < 5 ? read(Header.BAR0 + index * 4 + 4, 4) : 0;
  const size = leastSize(type, low, high, needed);
  notes.push(
    needed > 0
      ? `BAR ${index}: its size is not in the configuration space; ${size} bytes are what the MSI-X table and pending bits in it need`
      : `BAR ${index}: its size is not in the configuration space; ${size} bytes are assumed`,
  );
  return { type, prefetchable: shown?.prefetchable ?? false, size };
}

/** What the register's type bits say. */
function shownBar(low: number, index: number, line: number): { type: BarSpec['type']; prefetchable: boolean } {
  if ((low & Bar.IO) !== 0) return { type: 'io', prefetchable: false };
  const width = low & Bar.TYPE_MASK;
  if (width !== 0 && width !== Bar.TYPE_64) {
    throw new CaptureError(line, `BAR ${index}`, `type bits ${(width >> 1).toString(2)} are reserved`);
  }
  return { type: width === Bar.TYPE_64 ? 'memory64' : 'memory32', prefetchable: (low & Bar.PREFETCHABLE) !== 0 };
}

function agreedBar(
  index: number,
  said: BarClaim,
  shown: { type: BarSpec['type']; prefetchable: boolean } | null,
): BarSpec {
  const { type, prefetchable, size, line } = said;
  const least = type === 'io' ? 4 : 16;
  const most = type === 'io' ? 2 ** 16 : type === 'memory32' ? 2 ** 31 : 2 ** 43;
  if (!Number.isInteger(Math.log2(size)) || size < least || size > most) {
    throw new CaptureError(
      line,
      `Region ${index} size`,
      `expected a power of two from ${least} to ${most}, got ${size}`,
    );
  }
  if (shown !== null && (shown.type !== type || shown.prefetchable !== prefetchable)) {
    const name = (bar: { type: string; prefetchable: boolean }): string =>
      `${bar.type}${bar.prefetchable ? ', prefetchable' : ''}`;
    throw new CaptureError(line, `Region ${index}`, `the text says ${name(said)}, the register ${name(shown)}`);
  }
  return { type, prefetchable, size };
}

/** End of what MSI-X has in this BAR, 0 for nothing. */
function tableEnd(msix: MsixSpec | null, index: number): number {
  if (msix === null) return 0;
  const table = msix.table.bar === index ? msix.table.offset + msixTableSize(msix.vectors) : 0;
  const pba = msix.pba.bar === index ? msix.pba.offset + msixPbaSize(msix.vectors) : 0;
  return Math.max(table, pba);
}

/** The least that fits: what MSI-X needs, else a page or some ports, but no more than the address is aligned to. */
function leastSize(type: BarSpec['type'], low: number, high: number, needed: number): number {
  if (needed > 0) return 2 ** Math.ceil(Math.log2(Math.max(needed, PAGE)));
  const address = high * 2 ** 32 + ((low & (type === 'io' ? Bar.IO_MASK : Bar.MEMORY_MASK)) >>> 0);
  const usual = type === 'io' ? PORTS : PAGE;
  let size = type === 'io' ? 4 : 16;
  while (size < usual && address % (size * 2) === 0) size *= 2;
  return size;
}

function checkMsix(msix: MsixSpec, bars: readonly (BarSpec | null)[], line: number): void {
  const parts = [
    { field: 'MSI-X table', at: msix.table, size: msixTableSize(msix.vectors) },
    { field: 'MSI-X PBA', at: msix.pba, size: msixPbaSize(msix.vectors) },
  ];
  for (const { field, at, size } of parts) {
    const bar = bars[at.bar] ?? null;
    if (bar === null || bar.type === 'io')
      throw new CaptureError(line, field, `is in BAR ${at.bar}, which is no memory BAR`);
    const most = bar.type === 'memory32' ? 2 ** 31 : 2 ** 43;
    if (at.offset + size > bar.size || bar.size > most) {
      throw new CaptureError(line, field, `ends at ${at.offset + size}, beyond the ${bar.size} bytes of BAR ${at.bar}`);
    }
  }
  const [table, pba] = parts;
  const overlap =
    table.at.bar === pba.at.bar &&
    pba.at.offset < table.at.offset + table.size &&
    table.at.offset < pba.at.offset + pba.size;
  if (overlap)
    throw new CaptureError(line, 'MSI-X PBA', `at ${pba.at.offset} overlaps the table at ${table.at.offset}`);
}
