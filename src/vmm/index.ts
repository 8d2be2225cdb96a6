/** A small VMM on the `Kernel` port: what QEMU's hw/vfio does, and a guest as a program. */
export { AssignedDevice } from './assigned-device.ts';
export { withoutHoles } from './dma-ranges.ts';
export {
  chooseDoorbell,
  type DoorbellChoice,
  type DoorbellPolicy,
  type DoorbellQuestion,
  obstacleAt,
  type ReservedSpan,
  type Span,
} from './doorbell-rule.ts';
export { GsiRoutes, type RawMessage } from './gsi-routes.ts';
export { type GuestController, type GuestInterrupt, startController } from './guest-controller.ts';
export { GuestDriver, type GuestHandler, type GuestVectors } from './guest-driver.ts';
export { GuestError } from './guest-error.ts';
export {
  type GuestApic,
  type GuestGic,
  type GuestMap,
  type GuestRange,
  guestDoorbell,
  guestMapProblems,
  guestRanges,
  type NamedRange,
  q35Map,
  virtMap,
} from './guest-map.ts';
export { GuestMapError, parseGuestMap } from './guest-map-file.ts';
export type { HostInterrupts, HostLine } from './host-interrupts.ts';
export { Intx } from './intx.ts';
export { KvmVm } from './kvm-vm.ts';
export { MsiEmulation, type MsiOptions } from './msi-emulation.ts';
export { MsixEmulation, type MsixOptions } from './msix-emulation.ts';
export { Vector } from './vector.ts';
export { type Assignment, type AssignOptions, type GuestIommu, VirtualMachine, type VmOptions } from './vm.ts';
