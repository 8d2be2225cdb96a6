/** Guests with devices, for the workers: everything on the way is set up by the requests that a VMM makes. */
import { GuestDriver, VirtualMachine, virtMap } from '../../dist/vmm/index.js';
import { bootHost } from './host.mjs';

/** Virtual machines that share the devices; the C side has as many. */
const VMS = 4;

/** @returns {{ host: import('../../dist/kernel/boot/boot.js').Host, guests: GuestDriver[] }} all vectors of all devices enabled and unmasked by guests */
export function bootGuests(devices, vectors) {
  const host = bootHost({ devices, vectors });
  const names = host.pciDevices.filter(({ isBridge }) => !isBridge).map(({ name }) => name);
  const share = Math.ceil(devices / VMS);
  const guests = [];
  for (let first = 0; first < devices; first += share) {
    const { process, kernel } = host.process({ limits: { nofile: 2 ** 20 } });
    const vm = VirtualMachine.create(kernel, { map: virtMap(), guestPort: host.kvm.guestPort(process) });
    const assigned = names.slice(first, first + share).map((name) => vm.assign(name).device);
    const guest = GuestDriver.start(vm);
    for (const device of assigned) guest.enableMsix(device, vectors);
    const problems = vm.devices.flatMap(({ warnings }) => warnings);
    if (problems.length > 0) throw new Error(problems[0]);
    guests.push(guest);
  }
  return { host, guests };
}
