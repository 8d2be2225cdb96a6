/** KVM as device assignment needs it. */

export { KvmGuestPort } from './guest-port.ts';
export { createKvm, type Kvm, type KvmOptions } from './kvm.ts';
export type { GuestArchitecture } from './vm.ts';
