/** A guest on a whole host: the first function that vfio-pci has, handed over through a VMM, and a guest program that serves it. */
import { CapabilityId } from '../../src/arch/pci/capability.ts';
import type { Host } from '../../src/kernel/boot/boot.ts';
import type { SimKernelClient } from '../../src/kernel/client.ts';
import type { LocalProcess } from '../../src/kernel/kernel.ts';
import type { PciDevice } from '../../src/kernel/pci/pci-device.ts';
import type { HostFunction } from '../../src/machine/pci/function.ts';
import {
  type Assignment,
  type DoorbellPolicy,
  GuestDriver,
  type GuestIommu,
  type GuestMap,
  type GuestVectors,
  q35Map,
  VirtualMachine,
  virtMap,
} from '../../src/vmm/index.ts';
import { DEVICE } from './host.ts';

export interface GuestRigOptions {
  readonly map?: GuestMap;
  readonly doorbell?: DoorbellPolicy;
  readonly device?: string;
  readonly iommu?: GuestIommu;
}

/** Descriptors of a VMM with 2,048 vectors, two eventfds each. */
const NOFILE = 8192;
const MiB = 0x10_0000;

export class GuestRig {
  readonly host: Host;
  readonly process: LocalProcess;
  readonly kernel: SimKernelClient;
  readonly vm: VirtualMachine;
  readonly assignment: Assignment;
  readonly guest: GuestDriver;
  readonly function: HostFunction;
  readonly dev: PciDevice;

  constructor(host: Host, options: GuestRigOptions = {}) {
    const name = options.device ?? DEVICE;
    const map =
      options.map ?? (host.machine.spec.architecture === 'x86' ? q35Map({ ram: 4 * MiB }) : virtMap({ ram: 4 * MiB }));
    const { process, kernel } = host.process({ comm: 'vmm', limits: { nofile: NOFILE } });
    this.host = host;
    this.process = process;
    this.kernel = kernel;
    this.vm = VirtualMachine.create(kernel, {
      map,
      cpus: host.machine.spec.cpus,
      iommu: options.iommu ?? 'type1',
      guestPort: host.kvm.guestPort(process),
    });
    this.assignment = this.vm.assign(name, { doorbell: options.doorbell ?? 'auto' });
    this.guest = GuestDriver.start(this.vm);
    this.function = host.machine.pci.function(name)!;
    this.dev = host.pciDevices.find((dev) => dev.name === name)!;
  }

  /** The first `count` vectors, of MSI-X where the device has it. */
  enable(count: number, handler: (vector: number) => void = () => {}): GuestVectors {
    const { device } = this.assignment;
    return this.dev.capability(CapabilityId.MSIX) > 0
      ? this.guest.enableMsix(device, count, handler)
      : this.guest.enableMsi(device, count, handler);
  }

  /** The device raises a vector, and the host comes to rest. */
  ring(vector: number): void {
    this.function.raise(vector);
    this.host.machine.work.drain();
  }

  close(): void {
    this.guest.detach();
    this.vm.close();
  }
}
