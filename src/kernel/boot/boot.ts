/** Boots a simulated Linux on a machine: probes what is there, in Linux' order, and binds drivers. */

import { Command, Header } from '../../arch/pci/index.ts';
import type { Machine } from '../../machine/machine.ts';
import { MachineError } from '../../machine/machine-error.ts';
import type { MachineSpec, SlotSpec } from '../../machine/spec.ts';
import type { IommuDriver } from '../../ports/iommu.ts';
import { pciName } from '../../ports/pci.ts';
import type { Job } from '../../ports/work.ts';
import { SimKernelClient } from '../client.ts';
import { defaultModuleParameters, type KernelContext, type ModuleParameters } from '../context.ts';
import { ArmSmmuV3Driver, type IommuGroup, IommuGroups } from '../iommu/index.ts';
import { IntelVtdDriver } from '../iommu/intel/driver.ts';
import { createIommufd } from '../iommufd/index.ts';
import { createDmaCookie } from '../irq/dma-cookie.ts';
import { IrqCore } from '../irq/irq-core.ts';
import { setMsiCookie } from '../irq/msi-cookie.ts';
import { PciMsi } from '../irq/pci-msi.ts';
import type { DoorbellPolicy } from '../irq/prepare.ts';
import { type LocalProcess, SimKernel } from '../kernel.ts';
import { createKvm, type Kvm } from '../kvm/index.ts';
import { enumeratePci } from '../pci/enumerate.ts';
import type { PciDevice } from '../pci/pci-device.ts';
import { VirtualFunctions } from '../pci/sriov.ts';
import { claimsDma, hostDriver, type PciDriver, PciDrivers, vfioPciDriver } from '../pci-drivers.ts';
import type { ProcessOptions } from '../process.ts';
import { RefusalLog } from '../refusal.ts';
import { mountSysfs } from '../sysfs/index.ts';
import type { VfioDeviceOps } from '../vfio/device-ops.ts';
import { Vfio } from '../vfio/vfio-main.ts';
import { VfioPciCore } from '../vfio-pci/core.ts';
import { DoorbellControl } from '../vfio-pci/doorbell.ts';
import { DoorbellOps } from '../vfio-pci/doorbell-ops.ts';
import { sriovConfigure } from '../vfio-pci/sriov.ts';
import { type InterruptPlatform, probeInterrupts } from './interrupts.ts';
import { KernelLog } from './kernel-log.ts';

export interface BootOptions {
  /** What the VFIO ABI speaks; default `belfry`. Foreign programs get `linux-7.2`. */
  readonly abi?: 'linux-7.2' | 'belfry';
  /** `none`: the kernel before the RFC. Default `kernel`. */
  readonly doorbellPolicy?: DoorbellPolicy;
  /** `vfio_iommu_type1.allow_unsafe_interrupts` and `iommufd.allow_unsafe_interrupts`. */
  readonly allowUnsafeInterrupts?: boolean;
}

/** A running host: a machine with a kernel on it. */
export class Host {
  readonly machine: Machine;
  readonly context: KernelContext;
  readonly kernel: SimKernel;
  readonly log = new KernelLog();
  readonly irqs: IrqCore;
  readonly msi: PciMsi;
  readonly vfio: Vfio;
  readonly kvm: Kvm;
  readonly iommuDriver: IommuDriver | null;
  readonly groups: IommuGroups | null;
  readonly pciDevices: readonly PciDevice[];
  readonly drivers: PciDrivers<PciDevice>;
  private readonly virtualFunctions: VirtualFunctions;
  private readonly platform: InterruptPlatform;
  private readonly events: Job | null;
  private consuming = true;

  constructor(machine: Machine, options: BootOptions) {
    this.machine = machine;
    this.context = this.makeContext(options);
    const { context } = this;
    this.kernel = new SimKernel(context);
    this.irqs = new IrqCore(context, machine.spec.cpus);
    const driver = this.probeIommu();
    this.iommuDriver = driver;
    this.events = driver?.eventJob ?? null;
    if (machine.iommu !== null) machine.iommu.onInterrupt = () => this.iommuInterrupt();
    const { interrupts } = machine.spec;
    const remaps = interrupts.type === 'x86' && interrupts.remapping && driver instanceof IntelVtdDriver;
    this.platform = probeInterrupts(machine, context, this.irqs, remaps ? driver : null);
    this.pciDevices = enumeratePci(machine.pci, machine.spec.pci.segment, machine.spec.pci.io.base);
    this.wirePins();
    this.msi = new PciMsi(context, this.irqs, {
      parentOf: (dev) => this.platform.msiParent(dev),
      doorbellPolicy: options.doorbellPolicy ?? 'kernel',
    });
    this.groups = this.iommuDriver === null ? null : this.makeGroups(this.iommuDriver);
    this.vfio = new Vfio(this.kernel);
    createIommufd(this.kernel, this.vfio);
    this.kvm = createKvm(context, { architecture: machine.spec.architecture });
    this.kernel.mount('/dev/kvm', { kind: 'device', mode: 0o660, uid: 0, open: () => this.kvm.openFile() });
    this.virtualFunctions = new VirtualFunctions(context, {
      added: (dev) => this.virtualAdded(dev),
      removable: (dev) => this.vfio.askForRelease(dev),
      removed: (dev) => this.virtualRemoved(dev),
    });
    this.drivers = this.bindDrivers();
    const groups = (): readonly IommuGroup[] => this.groups?.groups ?? [];
    const iommu = iommuName(machine.spec.iommu);
    mountSysfs(this.kernel, { core: this.drivers, vfio: this.vfio, cpus: machine.spec.cpus, groups, iommu });
  }

  /** A new process, and the Kernel port as it sees it. */
  process(options: ProcessOptions = {}): { process: LocalProcess; kernel: SimKernelClient } {
    const process = this.kernel.createProcess(options);
    return { process, kernel: new SimKernelClient(this.kernel, process) };
  }

  /** Stops or restarts the thread that takes the IOMMU's event records: a consumer that is stopped lets the queue fill. */
  set consumesIommuEvents(on: boolean) {
    this.consuming = on;
    if (on) this.iommuInterrupt();
  }

  /** The records wait for the end of the walk that wrote them, as a threaded handler does. */
  private iommuInterrupt(): void {
    if (this.consuming && this.events !== null) this.context.work.post(this.events);
  }

  private makeContext({ abi = 'belfry', allowUnsafeInterrupts = false }: BootOptions): KernelContext {
    const { memory, bus, tap, work, clock, spec } = this.machine;
    const modules: ModuleParameters = defaultModuleParameters();
    modules.vfio_iommu_type1.allow_unsafe_interrupts = allowUnsafeInterrupts;
    modules.iommufd.allow_unsafe_interrupts = allowUnsafeInterrupts;
    const log = (line: string): void => this.log.write(line);
    return { abi, pageSize: spec.pageSize, memory, bus, tap, work, clock, refusals: new RefusalLog(), modules, log };
  }

  private probeIommu(): ArmSmmuV3Driver | IntelVtdDriver | null {
    const { iommu } = this.machine.spec;
    const hardware = this.machine.iommu;
    if (iommu === null || hardware === null) return null;
    if (iommu.type === 'smmuv3') return new ArmSmmuV3Driver(this.context, iommu, hardware);
    return new IntelVtdDriver(this.context, iommu, hardware);
  }

  private makeGroups(driver: IommuDriver): IommuGroups {
    const groups = new IommuGroups(this.context, driver, {
      isBoundToHostDriver: (dev) => claimsDma(dev.driver),
      onDefaultDomain: (group) => this.giveDmaCookie(group),
    });
    groups.setMsiIsolated((dev) => this.platform.msiParent(dev)?.isolated ?? false);
    const result = groups.addAll(this.pciDevices);
    // A machine whose IOMMU cannot name its own functions: the spec is wrong, and `why` says where.
    if (result < 0) throw new MachineError('iommu', this.context.refusals.last?.why ?? `no groups (errno ${-result})`);
    for (const group of groups.groups) this.giveDmaCookie(group);
    return groups;
  }

  /** iommu_get_dma_cookie: host drivers' doorbells stand among their other IOVAs. */
  private giveDmaCookie(group: IommuGroup): void {
    const { defaultDomain } = group;
    if (defaultDomain.type !== 'dma') return;
    setMsiCookie(defaultDomain, createDmaCookie(this.context, defaultDomain, group.reservedRegions()));
  }

  private wirePins(): void {
    for (const dev of this.pciDevices) {
      const pin = dev.configRead(Header.INTERRUPT_PIN, 1);
      if (pin >= 1 && pin <= 4) dev.irq = this.platform.pinIrq(...this.swizzle(dev, pin));
    }
  }

  /** pci_common_swizzle: the device number on the root bus, and the pin as it arrives there. */
  private swizzle(dev: PciDevice, pin: number): [number, number] {
    let at: PciDevice['parent'] | PciDevice = dev;
    let rotated = pin;
    for (; at.parent !== null; at = at.parent) rotated = ((rotated - 1 + at.address.device) & 3) + 1;
    return [at.address.device, rotated];
  }

  /** Ports first, then what the machine's spec names for each function, through driver_override as an administrator would. */
  private bindDrivers(): PciDrivers<PciDevice> {
    const drivers = new PciDrivers<PciDevice>(this.context, this.pciDevices);
    drivers.register(portDriver());
    drivers.register(vfioPciDriver<PciDevice>(this.context, this.vfio, (dev) => this.vfioPciOps(dev), sriovConfigure));
    const wanted = driversOf(this.machine);
    const others = new Set([...wanted.values()].filter((name) => name !== null && name !== 'vfio-pci'));
    const simple = (dev: PciDevice, count: number): number => this.virtualFunctions.configure(dev, count);
    for (const name of others) drivers.register(hostDriver<PciDevice>(name as string, () => false, simple));
    for (const dev of this.pciDevices) {
      const driver = wanted.get(dev.name) ?? null;
      if (driver === null) continue;
      drivers.setOverride(dev, driver);
      drivers.bind(dev, driver);
    }
    return drivers;
  }

  /** A virtual function came: its group first, then what its physical function's driver wants of it, then a driver. */
  private virtualAdded(dev: PciDevice): number {
    const error = this.groups?.addAll([dev]) ?? 0;
    if (error < 0) return error;
    const group = this.groups?.groups.find((each) => each === dev.iommuGroup);
    if (group?.devices.length === 1) this.giveDmaCookie(group);
    // vfio_pci_bus_notifier: the virtual functions of its devices are its own.
    if (dev.physfn?.driver === 'vfio-pci') dev.driverOverride = 'vfio-pci';
    this.drivers.added(dev);
    return 0;
  }

  private virtualRemoved(dev: PciDevice): number {
    const error = this.drivers.removed(dev);
    if (error < 0) return error;
    this.groups?.remove(dev);
    return 0;
  }

  /** vfio-pci with the doorbell's request in front of it. */
  private vfioPciOps(dev: PciDevice): VfioDeviceOps {
    const core = new VfioPciCore(this.context, dev, this.msi, {
      devices: this.pciDevices,
      vfio: this.vfio,
      virtualFunctions: this.virtualFunctions,
    });
    return new DoorbellOps(core, new DoorbellControl(this.context, dev, this.msi));
  }
}

/** pcieport: bridges decode, and forward requests upstream. */
const portDriver = (): PciDriver<PciDevice> => ({
  name: 'pcieport',
  matches: (dev) => dev.isBridge,
  probe(dev) {
    dev.configWrite(Header.COMMAND, 2, dev.configRead(Header.COMMAND, 2) | Command.MEMORY | Command.BUS_MASTER);
    return 0;
  },
  remove: () => 0,
});

/** Boots a kernel on a machine. @throws MachineError when the IOMMU cannot serve its functions; Error when other parts do not come up. */
export const bootLinux = (machine: Machine, options: BootOptions = {}): Host => new Host(machine, options);

/** As arm_smmu_device_probe (`smmu3.%pa`) and alloc_iommu (`dmar%d`) name it. */
function iommuName(iommu: MachineSpec['iommu']): string | null {
  if (iommu === null) return null;
  return iommu.type === 'smmuv3' ? `smmu3.0x${iommu.base.toString(16).padStart(16, '0')}` : 'dmar0';
}

/** The driver that the machine's spec names for each function. */
function driversOf(machine: Machine): Map<string, string | null> {
  const wanted: (string | null)[] = [];
  const visit = (slots: readonly SlotSpec[]): void => {
    for (const slot of slots) {
      if (slot.kind === 'function') wanted.push(slot.driver === undefined ? 'vfio-pci' : slot.driver);
      else visit(slot.below);
    }
  };
  visit(machine.spec.pci.slots);
  return new Map(machine.pci.functions.map((fn, index) => [pciName(fn.address), wanted[index] ?? null]));
}
