/** Guest-physical register ranges that KVM itself answers (virt/kvm kvm_io_bus); every other access exits to the VMM. */

/** Registers. `size` is 1, 2 or 4; `cpu` is the virtual CPU that makes the access. Values are unsigned. */
export interface IoDevice {
  readonly name: string;
  read(offset: number, size: number, cpu: number): number;
  write(offset: number, size: number, value: number, cpu: number): void;
}

export interface IoRange {
  readonly base: number;
  readonly size: number;
  readonly device: IoDevice;
}

export class IoBus {
  readonly ranges: IoRange[] = [];

  find(gpa: number): IoRange | null {
    for (const range of this.ranges) {
      if (gpa >= range.base && gpa - range.base < range.size) return range;
    }
    return null;
  }

  /** The range that is in the way, or null when it was added. */
  add(base: number, size: number, device: IoDevice): IoRange | null {
    const other = this.ranges.find((range) => base < range.base + range.size && range.base < base + size);
    if (other !== undefined) return other;
    this.ranges.push({ base, size, device });
    return null;
  }

  remove(device: IoDevice): void {
    const kept = this.ranges.filter((range) => range.device !== device);
    this.ranges.splice(0, this.ranges.length, ...kept);
  }
}
