/** The guest's side of its interrupt controller: what a guest kernel's driver does before interrupts can arrive. */
import type { GuestCpu } from '../ports/guest.ts';
import { GuestApics } from './guest-apics.ts';
import { GuestGic } from './guest-gic.ts';
import type { VirtualMachine } from './vm.ts';

/** An interrupt that the guest set up: what to write into a device's vector, and the identifier that the CPU will acknowledge. */
export interface GuestInterrupt {
  readonly message: { readonly address: number; readonly data: number };
  readonly intid: number;
}

export interface GuestController {
  /** `count` MSIs for a device (its requester id in the guest). @throws RangeError when the controller has no more */
  allocateMsis(device: number, count: number): readonly GuestInterrupt[];
  freeMsis(device: number, interrupts: readonly GuestInterrupt[]): void;
  /** Enables a line, level triggered. @returns the identifier that the CPU will acknowledge */
  enableLine(gsi: number): number;
}

/** Turns the controller of `vm` on, by guest-physical registers and guest memory alone. */
export function startController(vm: VirtualMachine, cpu: GuestCpu, index: number): GuestController {
  return vm.map.interrupts.type === 'gic'
    ? new GuestGic(vm, vm.map.interrupts, cpu, index)
    : new GuestApics(cpu, index);
}
