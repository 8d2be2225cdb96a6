/** What a VFIO driver (vfio-pci) gives the VFIO core: struct vfio_device_ops. */
import type { FileMapping } from '../files.ts';
import type { Process } from '../process.ts';

export interface VfioDeviceOps {
  /** `0000:01:00.0` */
  readonly name: string;
  /** Does `GROUP_GET_DEVICE_FD`'s string name this device? 1 yes, 0 no, or -errno (tokens of VFs). */
  match(text: string): number;
  /** First open of the device: 0 or -errno. */
  openDevice(process: Process): number;
  /** Last close: bus master off, vectors freed, reset, as vfio_pci_core_close_device does. */
  closeDevice(): void;
  ioctl(process: Process, request: number, argument: bigint): number;
  /** One feature of VFIO_DEVICE_FEATURE; `flags` holds GET/SET/PROBE, `address` the payload's user address, `size` its bytes. */
  feature(process: Process, flags: number, address: number, size: number): number;
  read(process: Process, address: number, count: number, offset: number): number;
  write(process: Process, address: number, count: number, offset: number): number;
  mmap(process: Process, offset: number, length: number, write: boolean): FileMapping | number;
  /** The host wants the device back (unbind): signals the REQ interrupt. */
  request(count: number): void;
}
