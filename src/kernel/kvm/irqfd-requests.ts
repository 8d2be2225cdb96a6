/** KVM_IRQFD: assign and deassign (virt/kvm/eventfd.c kvm_irqfd_assign, kvm_irqfd_deassign). */
import { KVM_IRQFD_FLAG_DEASSIGN, KVM_IRQFD_FLAG_RESAMPLE, kvm_irqfd } from '../../uapi/kvm.ts';
import { eventfdCtxFdget } from '../eventfd.ts';
import type { EventFdContext } from '../files.ts';
import type { Process } from '../process.ts';
import { Irqfd } from './irqfd.ts';
import { copyStruct } from './user-copy.ts';
import type { Vm } from './vm.ts';

export function irqfdRequest(vm: Vm, process: Process, argument: bigint): number {
  const { refusals } = vm.context;
  const request = copyStruct(process, kvm_irqfd, argument, refusals);
  if (typeof request === 'number') return request;
  const { fd, gsi, flags, resamplefd } = request;
  const unknown = flags & ~(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE);
  if (unknown !== 0) return refusals.refuse('EINVAL', `unknown flags 0x${(unknown >>> 0).toString(16)}`, 'flags');
  if ((flags & KVM_IRQFD_FLAG_DEASSIGN) !== 0) return deassign(vm, process, fd, gsi);
  if (vm.irqchip === null || !vm.irqchip.initialized) {
    return refusals.refuse(
      'EAGAIN',
      'the in-kernel interrupt controller is not initialised',
      undefined,
      'initialise it first',
    );
  }
  const eventfd = eventfdCtxFdget(process, fd | 0, refusals);
  if (typeof eventfd === 'number') return eventfd;
  let resample: EventFdContext | null = null;
  if ((flags & KVM_IRQFD_FLAG_RESAMPLE) !== 0) {
    const context = eventfdCtxFdget(process, resamplefd | 0, refusals, 'resamplefd');
    if (typeof context === 'number') {
      eventfd.put();
      return context;
    }
    resample = context;
  }
  return assign(vm, eventfd, gsi, resample);
}

function assign(vm: Vm, eventfd: EventFdContext, gsi: number, resample: EventFdContext | null): number {
  const irqfd = new Irqfd(vm, eventfd, gsi, resample);
  vm.irqfds.add(irqfd);
  if (irqfd.activate(() => detach(vm, irqfd))) return 0;
  vm.irqfds.delete(irqfd);
  eventfd.put();
  resample?.put();
  return vm.context.refusals.refuse('EBUSY', `eventfd ${eventfd.id} has a consumer in the kernel already`, 'fd');
}

/** Both the eventfd and the gsi must match; nothing that matches is success too. */
function deassign(vm: Vm, process: Process, fd: number, gsi: number): number {
  const eventfd = eventfdCtxFdget(process, fd | 0, vm.context.refusals);
  if (typeof eventfd === 'number') return eventfd;
  for (const irqfd of [...vm.irqfds]) if (irqfd.eventfd === eventfd && irqfd.gsi === gsi) detach(vm, irqfd);
  eventfd.put();
  return 0;
}

export function detach(vm: Vm, irqfd: Irqfd): void {
  if (vm.irqfds.delete(irqfd)) irqfd.deactivate();
}
