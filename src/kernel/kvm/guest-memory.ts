/** A guest's physical memory: KVM's memory slots (virt/kvm/kvm_main.c), each a range of the owner's address space. */
import type { UserMemory } from '../../ports/process.ts';

/** A slot as KVM_SET_USER_MEMORY_REGION made it. */
export interface MemorySlot {
  readonly id: number;
  readonly flags: number;
  readonly gpa: number;
  readonly size: number;
  readonly userAddress: number;
}

/**
 * Bytes by guest-physical address. They are copied from and to the owner's memory at each access and never pinned: a
 * page that the owner unmaps is gone for the guest as well.
 */
export class GuestMemory {
  readonly slots = new Map<number, MemorySlot>();
  private readonly memory: UserMemory;
  private readonly word = new Uint8Array(8);
  private readonly wordView = new DataView(this.word.buffer);

  constructor(memory: UserMemory) {
    this.memory = memory;
  }

  /** The slot that holds the address (kvm_is_visible_gfn), or null. */
  slotAt(gpa: number): MemorySlot | null {
    for (const slot of this.slots.values()) {
      if (gpa >= slot.gpa && gpa - slot.gpa < slot.size) return slot;
    }
    return null;
  }

  /** A slot other than `except` that overlaps [gpa, gpa + size), or null. */
  overlapping(gpa: number, size: number, except: number): MemorySlot | null {
    for (const slot of this.slots.values()) {
      if (slot.id !== except && gpa < slot.gpa + slot.size && slot.gpa < gpa + size) return slot;
    }
    return null;
  }

  /** kvm_read_guest: false when any byte is in no slot, or its page is gone. */
  read(gpa: number, into: Uint8Array): boolean {
    return this.each(gpa, into, (address, part) => this.memory.copyIn(address, part));
  }

  /** kvm_write_guest. A read-only slot refuses. */
  write(gpa: number, from: Uint8Array): boolean {
    return this.each(gpa, from, (address, part, slot) => (slot.flags & 2) === 0 && this.memory.copyOut(address, part));
  }

  /** An aligned little-endian 64-bit word, or null. */
  readWord(gpa: number): bigint | null {
    return this.read(gpa, this.word) ? this.wordView.getBigUint64(0, true) : null;
  }

  writeWord(gpa: number, value: bigint): boolean {
    this.wordView.setBigUint64(0, value, true);
    return this.write(gpa, this.word);
  }

  readByte(gpa: number): number | null {
    const byte = this.word.subarray(0, 1);
    return this.read(gpa, byte) ? byte[0] : null;
  }

  private each(
    gpa: number,
    bytes: Uint8Array,
    copy: (address: number, part: Uint8Array, slot: MemorySlot) => boolean,
  ): boolean {
    let done = 0;
    while (done < bytes.length) {
      const slot = this.slotAt(gpa + done);
      if (slot === null) return false;
      const within = gpa + done - slot.gpa;
      const length = Math.min(bytes.length - done, slot.size - within);
      if (!copy(slot.userAddress + within, bytes.subarray(done, done + length), slot)) return false;
      done += length;
    }
    return true;
  }
}
