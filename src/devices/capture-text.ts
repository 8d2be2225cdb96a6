/** Reads captures: `lspci -xxxx -vv` text of one or several devices, or sysfs's raw `config` with, if there, its `resource` text. */
import { EXTENDED_CONFIG_SIZE } from '../arch/pci/index.ts';
import type { BarSpec } from '../ports/pci.ts';
import { type BarClaim, buildCapture, type Capture, type Claims, type Place } from './capture.ts';
import { CaptureError } from './capture-error.ts';

/** `01:00.0 Non-Volatile memory controller: …`, with or without a domain. */
const DEVICE = /^((?:[0-9a-f]{4,}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) (.*)$/i;
const HEX_ROW = /^([0-9a-f]{2,3}): ((?:[0-9a-f]{2} ?)+)\s*$/i;
/** One tab: the regions of a function. Two tabs are those of its virtual functions. */
const REGION = /^\tRegion (\d): (?:\[virtual\] )?(Memory|I\/O ports) at \S+(?: \(([^)]*)\))?(.*)$/;
const ROM = /^\t(?:\[virtual\] )?Expansion ROM at /;
const SIZE = /\[size=(\d+)([KMGT]?)\]/;
const MSIX = /^\tCapabilities: \[[0-9a-f]+\] MSI-X: .*Count=(\d+)/;
const MSIX_PLACE = /^\t\t(Vector table|PBA): BAR=(\d+) offset=([0-9a-f]+)/;
const SCALE: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** A text longer than this is no capture of devices. */
const MAX_TEXT = 64 * 2 ** 20;

/**
 * Every device in `lspci -xxxx -vv` output. Lines that begin with `#` are comments.
 *
 * @throws CaptureError naming line and field, for text that has no device, a device without hex dump, or a text that contradicts it.
 */
export function parseLspci(text: string): Capture[] {
  if (text.length > MAX_TEXT) throw new CaptureError(0, 'text', `is longer than ${MAX_TEXT} characters`);
  const captures: Capture[] = [];
  let device: DeviceText | null = null;
  const lines = text.split(/\r?\n/);
  lines.forEach((line, at) => {
    if (line.startsWith('#')) return;
    const header = DEVICE.exec(line);
    if (header !== null) {
      if (device !== null) captures.push(device.finish());
      device = new DeviceText(at + 1, header[1], header[2].trim());
    } else if (device !== null) {
      device.line(at + 1, line);
    } else if (line.trim() !== '') {
      throw new CaptureError(
        at + 1,
        'device',
        `expected a line such as "01:00.0 Ethernet controller: …", got ${JSON.stringify(line.slice(0, 60))}`,
      );
    }
  });
  if (device !== null) captures.push((device as DeviceText).finish());
  if (captures.length === 0)
    throw new CaptureError(1, 'device', 'the text has none; expected the output of lspci -xxxx -vv');
  return captures;
}

/**
 * A device from sysfs: the bytes of `config`, and the text of `resource` where there is one. Without it BAR sizes are the least that
 * MSI-X needs, and `notes` say so.
 *
 * @throws CaptureError naming the field.
 */
export function parseSysfs(config: Uint8Array, resource?: string): Capture {
  const { bars, romSize } =
    resource === undefined ? { bars: new Map<number, BarClaim>(), romSize: 0 } : parseResource(resource);
  return buildCapture(config.slice(), { slot: '', title: '', line: 0, bars, romSize });
}

/** The lines of one device, as far as they were read. */
class DeviceText {
  private readonly start: number;
  private readonly slot: string;
  private readonly title: string;
  private readonly bytes: number[] = [];
  private readonly bars = new Map<number, BarClaim>();
  private romSize = 0;
  private msix: { line: number; vectors: number; table?: Place; pba?: Place } | null = null;
  /** Between the MSI-X line and the next capability. */
  private inMsix = false;

  constructor(start: number, slot: string, title: string) {
    this.start = start;
    this.slot = slot;
    this.title = title;
  }

  line(number: number, line: string): void {
    const row = HEX_ROW.exec(line);
    if (row !== null) this.hexRow(number, row[1], row[2]);
    else if (line.startsWith('\tRegion ')) this.region(number, line);
    else if (ROM.test(line)) this.romSize = sizeIn(number, 'Expansion ROM size', line) ?? 0;
    else if (line.startsWith('\tCapabilities: ')) this.capability(number, line);
    else if (this.inMsix) this.msixPlace(number, line);
  }

  finish(): Capture {
    if (this.bytes.length === 0) {
      throw new CaptureError(this.start, 'config', `${this.slot} has no hex dump; run lspci with -xxxx, as root`);
    }
    const claims: Claims = {
      slot: this.slot,
      title: this.title,
      line: this.start,
      bars: this.bars,
      romSize: this.romSize,
    };
    return buildCapture(Uint8Array.from(this.bytes), this.msix === null ? claims : { ...claims, msix: this.msix });
  }

  private hexRow(line: number, offset: string, text: string): void {
    const at = Number.parseInt(offset, 16);
    const { bytes } = this;
    if (at !== bytes.length) {
      throw new CaptureError(
        line,
        'config',
        `expected the bytes at ${bytes.length.toString(16)}, got those at ${offset}`,
      );
    }
    const row = text.trim().split(/\s+/);
    if (row.length !== 16) throw new CaptureError(line, 'config', `expected 16 bytes, got ${row.length}`);
    if (at + 16 > EXTENDED_CONFIG_SIZE) throw new CaptureError(line, 'config', 'more than 4096 bytes');
    for (const byte of row) bytes.push(Number.parseInt(byte, 16));
  }

  private region(line: number, text: string): void {
    const match = REGION.exec(text);
    if (match === null)
      throw new CaptureError(line, 'Region', `cannot be read: ${JSON.stringify(text.trim().slice(0, 80))}`);
    const index = Number(match[1]);
    const field = `Region ${index}`;
    if (index > 5) throw new CaptureError(line, field, 'a function has regions 0 to 5');
    if (this.bars.has(index)) throw new CaptureError(line, field, 'is there twice');
    const size = sizeIn(line, `${field} size`, match[4]);
    // A region without a size is one that the kernel disabled: the bytes decide what it is.
    if (size === null) return;
    const words = (match[3] ?? '').split(', ');
    const type: BarSpec['type'] = match[2] === 'I/O ports' ? 'io' : words.includes('64-bit') ? 'memory64' : 'memory32';
    this.bars.set(index, { line, type, prefetchable: words.includes('prefetchable'), size });
  }

  private capability(line: number, text: string): void {
    const match = MSIX.exec(text);
    this.inMsix = match !== null;
    if (match !== null) this.msix = { line, vectors: Number(match[1]) };
  }

  private msixPlace(line: number, text: string): void {
    const match = MSIX_PLACE.exec(text);
    if (match === null || this.msix === null) return;
    const place: Place = { line, bar: Number(match[2]), offset: Number.parseInt(match[3], 16) };
    if (match[1] === 'PBA') this.msix.pba = place;
    else this.msix.table = place;
  }
}

function sizeIn(line: number, field: string, text: string): number | null {
  const match = SIZE.exec(text);
  if (match === null) {
    if (text.includes('[size='))
      throw new CaptureError(line, field, `cannot be read: ${JSON.stringify(text.trim().slice(0, 60))}`);
    return null;
  }
  const size = Number(match[1]) * SCALE[match[2]];
  if (!Number.isSafeInteger(size) || size === 0) throw new CaptureError(line, field, `no device has ${match[0]}`);
  return size;
}

/** `0x…start 0x…end 0x…flags` for each BAR, the ROM seventh; flags are include/linux/ioport.h's. */
const RESOURCE_ROW = /^(0x[0-9a-f]{1,16}) (0x[0-9a-f]{1,16}) (0x[0-9a-f]{1,16})$/i;
const FLAG = { IO: 0x100n, MEMORY: 0x200n, PREFETCH: 0x2000n, MEMORY_64: 0x10_0000n } as const;
const ROM_ROW = 6;

function parseResource(text: string): { bars: Map<number, BarClaim>; romSize: number } {
  const bars = new Map<number, BarClaim>();
  let romSize = 0;
  const rows = text.split(/\r?\n/).filter((row, at, all) => row.trim() !== '' || at < all.length - 1);
  rows.slice(0, ROM_ROW + 1).forEach((row, index) => {
    const line = index + 1;
    const match = RESOURCE_ROW.exec(row.trim());
    if (match === null)
      throw new CaptureError(
        line,
        'resource',
        `expected start, end and flags, got ${JSON.stringify(row.slice(0, 60))}`,
      );
    const [start, end, flags] = [BigInt(match[1]), BigInt(match[2]), BigInt(match[3])];
    if (flags === 0n || (start === 0n && end === 0n)) return;
    if (end < start || end - start >= 2n ** 52n)
      throw new CaptureError(line, 'resource', `ends at ${match[2]}, but starts at ${match[1]}`);
    const size = Number(end - start) + 1;
    if (index === ROM_ROW) {
      romSize = size;
      return;
    }
    if ((flags & (FLAG.IO | FLAG.MEMORY)) === 0n)
      throw new CaptureError(line, 'resource', `flags ${match[3]} are neither memory's nor I/O's`);
    const type: BarSpec['type'] =
      (flags & FLAG.IO) !== 0n ? 'io' : (flags & FLAG.MEMORY_64) !== 0n ? 'memory64' : 'memory32';
    bars.set(index, { line, type, prefetchable: type !== 'io' && (flags & FLAG.PREFETCH) !== 0n, size });
  });
  return { bars, romSize };
}
