/** What a host interrupt controller's driver gives the MSI core: its parent domain. */
import type { DoorbellPage } from '../../ports/bus.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { MsiDesc, MsiMessage } from './msi-desc.ts';

/**
 * The first of two phases (prepare is sleepable, at allocation): finds the IOVA for the doorbell page and maps it. 0, with
 * desc.doorbellIova and desc.doorbellShift set (shift 0: the message carries the physical address), or -errno.
 */
export type PrepareMsi = (desc: MsiDesc, doorbell: number) => number;

export interface MsiParent {
  /** `ITS`, `GICv2m`, `x86-vector`, `INTEL-IR`: the first part of the name in /proc/interrupts. */
  readonly name: string;
  /** IRQ_DOMAIN_FLAG_ISOLATED_MSI. */
  readonly isolated: boolean;
  readonly msix: boolean;
  /** The frames that hold the doorbells of its messages: whether a mapped page holds anything else is judged by them. */
  readonly doorbells?: readonly DoorbellPage[];
  /** More than one message with plain MSI. */
  readonly multiMsi: boolean;
  /** Vectors can be added after MSI-X was enabled (pci_msix_can_alloc_dyn). */
  readonly dynamicMsix: boolean;
  /** Per-device set-up for `vectors` vectors (the ITS makes its ITT and maps the device). 0 or -errno. */
  prepareDevice(dev: PciDev, vectors: number): number;
  /** Undoes prepareDevice. */
  releaseDevice(dev: PciDev): void;
  /**
   * Allocates interrupts for these vectors (plain MSI with several messages: one contiguous, aligned block), calling `prepare` once per
   * vector; sets desc.hwirq. 0 or -errno.
   */
  allocate(dev: PciDev, descs: readonly MsiDesc[], prepare: PrepareMsi): number;
  free(dev: PciDev, descs: readonly MsiDesc[]): void;
  /** Maps the event so that a message would arrive at `desc`'s handler. */
  activate(desc: MsiDesc): void;
  deactivate(desc: MsiDesc): void;
  /** The second phase: the message, with the prepared IOVA where there is one. Never allocates, never maps. */
  compose(desc: MsiDesc, into: MsiMessage): void;
  mask(desc: MsiDesc): void;
  unmask(desc: MsiDesc): void;
}

/** msi_msg_set_addr: the prepared IOVA page with the physical doorbell's low bits, or the physical address. */
export function setMessageAddress(desc: MsiDesc, doorbell: number, into: MsiMessage): void {
  const page = 2 ** desc.doorbellShift;
  const address = desc.doorbellShift === 0 ? doorbell : desc.doorbellIova + (doorbell % page);
  into.addressHi = (address / 4294967296) | 0;
  into.addressLo = address | 0;
}
