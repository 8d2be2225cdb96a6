/** A VFIO device with its virtual doorbell: vfio-pci as it is, with one feature more and one step more at the last close. */
import { VFIO_DEVICE_FEATURE_BELFRY_DOORBELL } from '../../uapi/belfry.ts';
import { VFIO_DEVICE_FEATURE_MASK } from '../../uapi/vfio-feature.ts';
import type { FileMapping } from '../files.ts';
import type { Process } from '../process.ts';
import type { VfioDeviceOps } from '../vfio/device-ops.ts';
import type { DoorbellControl } from './doorbell.ts';

export class DoorbellOps implements VfioDeviceOps {
  private readonly ops: VfioDeviceOps;
  private readonly control: DoorbellControl;

  constructor(ops: VfioDeviceOps, control: DoorbellControl) {
    this.ops = ops;
    this.control = control;
  }

  get name(): string {
    return this.ops.name;
  }
  match(text: string): number {
    return this.ops.match(text);
  }
  openDevice(process: Process): number {
    return this.ops.openDevice(process);
  }

  /** The driver silences the function and frees its vectors first; then nothing needs the reservations (docs/doorbell.md, rule 18). */
  closeDevice(): void {
    this.ops.closeDevice();
    this.control.close();
  }

  ioctl(process: Process, request: number, argument: bigint): number {
    return this.ops.ioctl(process, request, argument);
  }
  feature(process: Process, flags: number, address: number, size: number): number {
    return (flags & VFIO_DEVICE_FEATURE_MASK) === VFIO_DEVICE_FEATURE_BELFRY_DOORBELL
      ? this.control.feature(process, flags, address, size)
      : this.ops.feature(process, flags, address, size);
  }
  read(process: Process, address: number, count: number, offset: number): number {
    return this.ops.read(process, address, count, offset);
  }
  write(process: Process, address: number, count: number, offset: number): number {
    return this.ops.write(process, address, count, offset);
  }
  mmap(process: Process, offset: number, length: number, write: boolean): FileMapping | number {
    return this.ops.mmap(process, offset, length, write);
  }
  request(count: number): void {
    this.ops.request(count);
  }
}
