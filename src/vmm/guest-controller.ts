/** The guest's side of its interrupt controller: what a guest kernel's driver does before interrupts can arrive. */
import type { GuestCpu } from '../ports/guest.ts';
import { GuestApics } from './guest-apics.ts';
import { GuestGic } from './guest-gic.ts';
import type { VirtualMachine } from './vm.ts';

/** An interrupt that the guest set up: what to write into a device's vector, and the identifier that the CPU will acknowledge. */
export interface GuestInterrupt {
  readonly message: { readonly address: number; readonly data: number };
  /** Index of the CPU that it goes to. */
  readonly cpu: number;
  readonly intid: number;
}

export interface GuestController {
  /**
   * `count` MSIs for a device (its requester id in the guest).
   * @param together they follow each other from an aligned one, on one CPU: several messages of plain MSI
   * @throws GuestError when the controller has no more
   */
  allocateMsis(device: number, count: number, together?: boolean): readonly GuestInterrupt[];
  freeMsis(device: number, interrupts: readonly GuestInterrupt[]): void;
  /** Enables a line, level triggered. @returns the CPU, and the identifier that it will acknowledge */
  enableLine(gsi: number): { readonly cpu: number; readonly intid: number };
}

/** CPUs that serve interrupts: a GIC's LPIs all go to CPU 0 here; an APIC has too few vectors for that. */
export const servingCpus = (vm: VirtualMachine): number => (vm.map.interrupts.type === 'gic' ? 1 : vm.kvm.cpus);

/** Turns the controller of `vm` on, by guest-physical registers and guest memory alone. `cpus`: {@link servingCpus} of them. */
export function startController(vm: VirtualMachine, cpus: readonly GuestCpu[]): GuestController {
  const { interrupts } = vm.map;
  return interrupts.type === 'gic' ? new GuestGic(vm, interrupts, cpus[0]!, 0) : new GuestApics(cpus);
}
