/**
 * The ITS's tables in guest memory, in the format of KVM's ABI revision 0 (Documentation/virt/kvm/devices/arm-vgic-its.rst):
 * 8-byte entries found by their index. KVM itself keeps lists and writes these tables when the VM is saved; here the
 * tables are the truth, so that what a guest (or a test) does to them has its effect.
 */
import type { GuestMemory } from '../guest-memory.ts';

const VALID = 1n << 63n;
const INDIRECT = 1n << 62n;
const PAGE = 0x1_0000;
const ENTRY = 8;
/** TYPER: device and collection identifiers have 16 bits. */
const ID_LIMIT = 0x1_0000;

export interface DeviceEntry {
  readonly itt: number;
  /** Bits of an event identifier, 1 to 16. */
  readonly eventBits: number;
}

export interface EventEntry {
  readonly intid: number;
  readonly collection: number;
}

/** Where entry `id` of the table of a GITS_BASER lies, or null when it is out of range or in no memory (vgic_its_check_id). */
export function entryAddress(memory: GuestMemory, baser: bigint, id: number): number | null {
  if ((baser & VALID) === 0n || id < 0 || id >= ID_LIMIT) return null;
  const base = Number(baser & 0xffff_ffff_0000n);
  const size = (Number(baser & 0xffn) + 1) * PAGE;
  const address = (baser & INDIRECT) === 0n ? flat(base, size, id) : indirect(memory, base, size, id);
  return address !== null && memory.slotAt(address) !== null ? address : null;
}

function flat(base: number, size: number, id: number): number | null {
  return id * ENTRY < size ? base + id * ENTRY : null;
}

function indirect(memory: GuestMemory, base: number, size: number, id: number): number | null {
  const perPage = PAGE / ENTRY;
  const index = Math.floor(id / perPage);
  if (index * ENTRY >= size) return null;
  const level1 = memory.readWord(base + index * ENTRY);
  if (level1 === null || (level1 & VALID) === 0n) return null;
  return Number(level1 & 0xf_ffff_ffff_0000n) + (id % perPage) * ENTRY;
}

/** Valid[63] next[62:49] ITT address[51:8] at [48:5] size - 1 [4:0]. */
export function readDevice(memory: GuestMemory, at: number): DeviceEntry | null {
  const word = memory.readWord(at);
  if (word === null || (word & VALID) === 0n) return null;
  return { itt: Number((word >> 5n) & 0xfff_ffff_ffffn) * 256, eventBits: Number(word & 0x1fn) + 1 };
}

export function writeDevice(memory: GuestMemory, at: number, entry: DeviceEntry | null): boolean {
  const word = entry === null ? 0n : VALID | (BigInt(entry.itt / 256) << 5n) | BigInt(entry.eventBits - 1);
  return memory.writeWord(at, word);
}

/** Valid[63] target CPU[51:16] ICID[15:0]; the CPU, or null. */
export function readCollection(memory: GuestMemory, at: number): number | null {
  const word = memory.readWord(at);
  return word === null || (word & VALID) === 0n ? null : Number((word >> 16n) & 0xf_ffff_ffffn);
}

export function writeCollection(memory: GuestMemory, at: number, id: number, cpu: number | null): boolean {
  return memory.writeWord(at, cpu === null ? 0n : VALID | (BigInt(cpu) << 16n) | BigInt(id));
}

/** next[63:48] interrupt[47:16] ICID[15:0]; interrupt 0: the event is not mapped. */
export function readEvent(memory: GuestMemory, at: number): EventEntry | null {
  const word = memory.readWord(at);
  const intid = word === null ? 0 : Number((word >> 16n) & 0xffff_ffffn);
  return word === null || intid === 0 ? null : { intid, collection: Number(word & 0xffffn) };
}

export function writeEvent(memory: GuestMemory, at: number, entry: EventEntry | null): boolean {
  return memory.writeWord(at, entry === null ? 0n : (BigInt(entry.intid) << 16n) | BigInt(entry.collection));
}

/** A new translation table has no events, whatever the guest left in its memory: KVM starts with an empty list. */
export function clearEvents(memory: GuestMemory, device: DeviceEntry): boolean {
  return memory.write(device.itt, new Uint8Array(2 ** device.eventBits * ENTRY));
}

export const eventAddress = (device: DeviceEntry, event: number): number => device.itt + event * ENTRY;
