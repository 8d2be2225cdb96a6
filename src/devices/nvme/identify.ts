/** Identify's data structures (5.15): 4,096 bytes each. */
import type { FunctionSpec } from '../../ports/pci.ts';
import { ASYNC_LIMIT } from './events.ts';
import { CRITICAL_KELVIN, WARNING_KELVIN } from './features.ts';
import { NAMESPACE_ID, type Namespace } from './namespace.ts';
import { NVME_VERSION } from './registers.ts';

export const IDENTIFY_BYTES = 4096;
/** Transfers of up to 2^MDTS pages of 4 KiB: 512 KiB. */
export const MDTS = 7;
/** ELPE, zero-based: entries of the error log. */
export const ERROR_ENTRIES = 64;
export const FIRMWARE = '1.0';
export const MODEL = 'belfry NVMe drive';

function structure(): { bytes: Uint8Array; view: DataView; text: (at: number, length: number, value: string) => void } {
  const bytes = new Uint8Array(IDENTIFY_BYTES);
  const text = (at: number, length: number, value: string): void => {
    for (let i = 0; i < length; i++) bytes[at + i] = i < value.length ? value.charCodeAt(i) : 0x20;
  };
  return { bytes, view: new DataView(bytes.buffer), text };
}

/** Figure 247. */
export function identifyController(spec: FunctionSpec, serial: string): Uint8Array {
  const { bytes, view, text } = structure();
  view.setUint16(0, spec.vendorId, true);
  view.setUint16(2, spec.subsystemVendorId ?? 0, true);
  text(4, 20, serial);
  text(24, 40, MODEL);
  text(64, 8, FIRMWARE);
  bytes[72] = 4; // RAB: 2^4 commands in a burst
  bytes[77] = MDTS;
  view.setUint32(80, NVME_VERSION, true);
  view.setUint32(92, 0x100, true); // OAES: changed namespaces
  bytes[111] = 1; // CNTRLTYPE: an I/O controller
  bytes[258] = 3; // ACL: four Aborts at once
  bytes[259] = ASYNC_LIMIT;
  bytes[260] = 0x03; // FRMW: one firmware slot, read only
  bytes[261] = 0x04; // LPA: log pages have offsets
  bytes[262] = ERROR_ENTRIES - 1;
  view.setUint16(266, WARNING_KELVIN, true);
  view.setUint16(268, CRITICAL_KELVIN, true);
  bytes[512] = 0x66; // SQES: 64 bytes
  bytes[513] = 0x44; // CQES: 16 bytes
  view.setUint32(516, NAMESPACE_ID, true);
  view.setUint16(520, 0x0d, true); // ONCS: Compare, Dataset Management, Write Zeroes
  bytes[525] = 1; // VWC: Flush means something
  const name = `nqn.2014-08.org.nvmexpress:uuid:${uuidText(uuidOf(serial))}`;
  for (let i = 0; i < name.length; i++) bytes[768 + i] = name.charCodeAt(i);
  view.setUint16(2048, 2500, true); // PSD0: at most 25 W
  return bytes;
}

/** Figure 245. */
export function identifyNamespace(namespace: Namespace): Uint8Array {
  const { bytes, view } = structure();
  const blocks = BigInt(namespace.blocks);
  for (const at of [0, 8, 16]) view.setBigUint64(at, blocks, true); // NSZE, NCAP, NUSE
  bytes[33] = 0x09; // DLFEAT: deallocated blocks read zero, and Write Zeroes can deallocate
  bytes[99] = namespace.readOnly ? 1 : 0; // NSATTR: write protected
  bytes[128 + 2] = Math.log2(namespace.blockBytes); // LBAF0
  return bytes;
}

/** Figure 249: an UUID. */
export function namespaceDescriptors(serial: string): Uint8Array {
  const { bytes } = structure();
  bytes.set([3, 16, 0, 0, ...uuidOf(`${serial}/1`)]);
  return bytes;
}

/** Active namespaces above `from`. */
export function namespaceList(from: number): Uint8Array {
  const { bytes, view } = structure();
  if (from < NAMESPACE_ID) view.setUint32(0, NAMESPACE_ID, true);
  return bytes;
}

/** An UUID that follows from a text (FNV-1a over it, four times), version 8: made by a rule of the maker's (RFC 9562, 5.8). */
function uuidOf(text: string): number[] {
  const bytes: number[] = [];
  for (let part = 0; part < 4; part++) {
    let hash = 0x811c_9dc5 ^ part;
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x0100_0193);
    bytes.push((hash >>> 24) & 0xff, (hash >>> 16) & 0xff, (hash >>> 8) & 0xff, hash & 0xff);
  }
  bytes[6] = (bytes[6] & 0x0f) | 0x80;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes;
}

function uuidText(bytes: readonly number[]): string {
  const hex = bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
