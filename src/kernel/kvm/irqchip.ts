/** What a guest's in-kernel interrupt controller gives the rest of KVM: the vGIC of arm64, the local APICs of x86. */
import type { RoutingEntry } from './routing.ts';

/** Where a resolved route ends: an interrupt of the guest's controller. irqfds keep it until {@link Vm.epoch} moves. */
export interface InjectTarget {
  /** An irqfd's interrupt, accounted in the ledger: pending, or coalesced with one that is. Hot. */
  inject(): void;
  /** The same without accounting, for what user space injects itself (KVM_SIGNAL_MSI). */
  raise(): void;
}

/** A virtual CPU's interface to its interrupts, as {@link GuestCpu} shows it. */
export interface CpuInterface {
  acknowledge(): number;
  endOfInterrupt(intid: number): void;
  readonly pending: boolean;
  /** Who is told when an interrupt waits; null detaches. */
  listen(listener: (() => void) | null): void;
}

export interface GuestIrqchip {
  /** `vgic-v3`, `vgic-v2`, `lapic` */
  readonly name: string;
  /** kvm_arch_intc_initialized: irqfds can be assigned. */
  readonly initialized: boolean;
  /** KVM_CAP_MSI_DEVID. */
  readonly needsDeviceId: boolean;
  /** kvm_set_routing_entry: does this pin of this irqchip exist? */
  hasPin(irqchip: number, pin: number): boolean;
  /**
   * Where a route leads: its target, or what KVM answers instead: -errno (ENODEV, EINVAL, EBUSY), or the positive code of an
   * MSI that the guest has not mapped.
   */
  resolve(route: RoutingEntry): InjectTarget | number;
  /** kvm_set_irq for a pin: drives its line, without accounting. 0 or -errno. */
  setLine(pin: number, level: boolean): number;
  /** The CPU's side; -errno when the controller is not ready (what the first KVM_RUN would answer). */
  cpuInterface(index: number): CpuInterface | number;
  /** A virtual CPU was created after the controller. */
  addCpu?(index: number): void;
  /** The VM is gone: what is still pending is lost. */
  destroy(): void;
}
