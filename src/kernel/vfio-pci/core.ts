/** vfio-pci: what a PCI function is to the owner of its device file (drivers/vfio/pci/vfio_pci_core.c). */
import { CapabilityId, Command, Header, MSIX_BAR_MASK, Msix, MsixEntry, msixVectors } from '../../arch/pci/index.ts';
import { fromU64 } from '../../ports/address.ts';
import { ERRNO } from '../../uapi/errno.ts';
import {
  VFIO_DEVICE_FEATURE_DMA_BUF,
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP,
  VFIO_DEVICE_FEATURE_LOW_POWER_EXIT,
  VFIO_DEVICE_FEATURE_PCI_VF_TOKEN,
  VFIO_DEVICE_FEATURE_SET,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_IOEVENTFD,
  VFIO_DEVICE_PCI_HOT_RESET,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
} from '../../uapi/vfio.ts';
import type { KernelContext } from '../context.ts';
import type { FileMapping } from '../files.ts';
import type { PciIrqs } from '../irq/pci-irqs.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import type { PciDevice } from '../pci/pci-device.ts';
import type { VirtualFunctions } from '../pci/sriov.ts';
import type { Process } from '../process.ts';
import type { VfioDeviceOps } from '../vfio/device-ops.ts';
import { vfioCheckFeature } from '../vfio/feature.ts';
import { VfioPciConfig } from './config.ts';
import { type BusResettable, DeviceSet, setDriverData, type VfioDevices } from './device-set.ts';
import { VfioPciDmaBufs } from './dmabuf.ts';
import { type FeatureHandler, FeatureTable } from './feature.ts';
import { HotReset } from './hot-reset.ts';
import { VfioPciInfo } from './info.ts';
import { intxMaskSupported } from './intx.ts';
import { IoEventFds } from './ioeventfd.ts';
import { LowPower } from './low-power.ts';
import { RegionAccess } from './rdwr.ts';
import { probeMmaps } from './regions.ts';
import { VfioPciIrqControl } from './set-irqs.ts';
import { VfioPciSriov } from './sriov.ts';
import { NO_MSIX_BAR, VfioPciState } from './state.ts';
import { parseName } from './token.ts';

/** Bytes of a VF token. */
const UUID_SIZE = 16;

export interface VfioPciOptions {
  /** All PCI functions of the host: whose BARs might share a page with this one's. */
  readonly devices?: readonly PciDev[];
  /** Which devices VFIO has: what a hot reset looks its bus up in. Without it none can be proved to be the caller's. */
  readonly vfio?: VfioDevices;
  /** Who makes virtual functions. Without it the device makes none. */
  readonly virtualFunctions?: VirtualFunctions;
}

export class VfioPciCore implements VfioDeviceOps, BusResettable {
  readonly dev: PciDevice;
  readonly state: VfioPciState;
  readonly config: VfioPciConfig;
  readonly irqControl: VfioPciIrqControl;
  private readonly context: KernelContext;
  private readonly devices: readonly PciDev[];
  private readonly regions: RegionAccess;
  private readonly info: VfioPciInfo;
  private readonly ioeventfds: IoEventFds;
  private readonly features: FeatureTable;
  private readonly power: LowPower;
  private readonly set: DeviceSet;
  private readonly hotReset: HotReset;
  private readonly sriov: VfioPciSriov;
  private readonly dmaBufs: VfioPciDmaBufs;
  needsReset = false;

  constructor(context: KernelContext, dev: PciDevice, irqs: PciIrqs, options: VfioPciOptions = {}) {
    this.context = context;
    this.dev = dev;
    this.devices = options.devices ?? [];
    this.state = new VfioPciState(context, dev, irqs);
    this.irqControl = new VfioPciIrqControl(this.state);
    this.config = new VfioPciConfig(this.state, this.irqControl.intx);
    this.regions = new RegionAccess(this.state, this.config);
    this.info = new VfioPciInfo(this.state, this.irqControl);
    this.ioeventfds = new IoEventFds(this.state);
    this.features = new FeatureTable(context.refusals);
    this.power = new LowPower(this.state, this.irqControl.intx);
    this.set = new DeviceSet(dev, options.vfio ?? null);
    this.hotReset = new HotReset(dev, this.set, context.refusals);
    this.sriov = new VfioPciSriov(context, dev, this.power, options.virtualFunctions ?? null);
    this.dmaBufs = new VfioPciDmaBufs(this.state);
    this.state.moveDmaBufs = (revoked) => this.dmaBufs.move(revoked);
    this.addFeatures();
    setDriverData(dev, this);
  }

  private addFeatures(): void {
    const { features, power } = this;
    features.set(VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, (_process, flags, _address, size) => power.enter(flags, size));
    features.set(VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP, (...call) => power.enterWithWakeup(...call));
    features.set(VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, (_process, flags, _address, size) => power.leave(flags, size));
    features.set(VFIO_DEVICE_FEATURE_DMA_BUF, (...call) => this.dmaBufs.feature(...call));
    if (this.sriov.takesToken) features.set(VFIO_DEVICE_FEATURE_PCI_VF_TOKEN, (...call) => this.setToken(...call));
  }

  get name(): string {
    return this.dev.name;
  }

  match(text: string): number {
    const parsed = parseName(this.context.refusals, this.name, text);
    if (typeof parsed === 'number') return parsed;
    const error = this.sriov.validate(parsed.token);
    return error < 0 ? error : 1;
  }

  /** Who answers a feature of VFIO_DEVICE_FEATURE; null takes it away. */
  setFeatureHandler(id: number, handler: FeatureHandler | null): void {
    this.features.set(id, handler);
  }

  /** vfio_pci_core_enable. EAGAIN while the function's lock is held; a function that cannot be reset is no error. */
  openDevice(_process: Process): number {
    const { dev, state } = this;
    this.power.runtime.get();
    // Whatever put it to sleep, an owner finds it awake.
    dev.setPowerState(0);
    dev.clearMaster();
    const enabled = dev.enable();
    if (enabled !== 0) {
      this.power.runtime.put();
      return this.context.refusals.refuse('EINVAL', `${dev.name} has a BAR that the host gave no address`);
    }
    const reset = dev.tryReset();
    if (reset === -ERRNO.EAGAIN) {
      dev.disable();
      this.power.runtime.put();
      return this.context.refusals.refuse('EAGAIN', `the lock of ${dev.name} is held, so it cannot be reset now`);
    }
    state.resetWorks = reset === 0;
    state.savedState = dev.saveState();
    state.pci23 = !this.context.modules.vfio_pci.nointxmask && intxMaskSupported(state);
    const command = dev.configRead(Header.COMMAND, 2);
    if (state.pci23 && (command & Command.INTX_DISABLE) !== 0) {
      dev.configWrite(Header.COMMAND, 2, command & ~Command.INTX_DISABLE);
    }
    this.config.init();
    this.findMsix();
    probeMmaps(state, this.devices.length === 0 ? [dev] : this.devices);
    this.sriov.opened();
    return 0;
  }

  /** vfio_pci_core_disable, then vfio_pci_core_close_device: nothing that could interrupt outlives the next line. */
  closeDevice(): void {
    const { dev, state } = this;
    this.sriov.closed();
    this.dmaBufs.cleanup();
    state.zap();
    this.power.exit();
    this.power.runtime.resume();
    state.setPowerState(0);
    dev.clearMaster();
    this.irqControl.disableActive();
    this.ioeventfds.clear();
    state.virqDisabled = false;
    state.vconfig.fill(0);
    const saved = state.savedState;
    state.savedState = null;
    dev.configWrite(Header.COMMAND, 2, Command.INTX_DISABLE);
    this.needsReset = !(state.resetWorks && !dev.locked && dev.resetFunction() === 0);
    if (saved !== null) dev.restoreState(saved);
    dev.disable();
    this.tryResetSet();
    this.irqControl.err.clear();
    this.irqControl.req.clear();
    if (this.context.modules.vfio_pci.disable_idle_d3) this.power.runtime.putNoidle();
    else this.power.runtime.put();
  }

  beginBusReset(): void {
    this.power.runtime.get();
  }

  quiesce(): void {
    this.state.zap();
    this.state.setPowerState(0);
  }

  unquiesce(): void {
    this.state.unzap();
  }

  endBusReset(): void {
    if (this.context.modules.vfio_pci.disable_idle_d3) this.power.runtime.putNoidle();
    else this.power.runtime.put();
  }

  ioctl(process: Process, request: number, argument: bigint): number {
    return this.awake(() => this.answer(process, request, argument));
  }

  private answer(process: Process, request: number, argument: bigint): number {
    if (request === VFIO_DEVICE_RESET) return this.reset();
    const pointer = fromU64(argument);
    switch (request) {
      case VFIO_DEVICE_GET_INFO:
        return pointer === null ? this.badPointer() : this.info.device(process, pointer);
      case VFIO_DEVICE_GET_REGION_INFO:
        return pointer === null ? this.badPointer() : this.info.region(process, pointer);
      case VFIO_DEVICE_GET_IRQ_INFO:
        return pointer === null ? this.badPointer() : this.info.irq(process, pointer);
      case VFIO_DEVICE_SET_IRQS:
        return pointer === null ? this.badPointer() : this.irqControl.setIrqs(process, pointer);
      case VFIO_DEVICE_IOEVENTFD:
        return pointer === null ? this.badPointer() : this.ioeventfds.ioctl(process, pointer);
      case VFIO_DEVICE_GET_PCI_HOT_RESET_INFO:
        return pointer === null ? this.badPointer() : this.hotReset.info(process, pointer);
      case VFIO_DEVICE_PCI_HOT_RESET:
        return pointer === null ? this.badPointer() : this.hotReset.reset(process, pointer);
      default:
        return this.context.refusals.refuse('ENOTTY', `vfio-pci has no request 0x${request.toString(16)}`, 'request');
    }
  }

  feature(process: Process, flags: number, address: number, size: number): number {
    return this.awake(() => this.features.answer(process, flags, address, size));
  }

  read(process: Process, address: number, count: number, offset: number): number {
    return this.awake(() => this.regions.access(process, address, count, offset, false));
  }

  write(process: Process, address: number, count: number, offset: number): number {
    return this.awake(() => this.regions.access(process, address, count, offset, true));
  }

  mmap(_process: Process, offset: number, length: number, _write: boolean): FileMapping | number {
    return this.regions.mmap(offset, length);
  }

  /** vfio_pci_core_request. */
  request(count: number): void {
    if (this.irqControl.req.armed) {
      if (count % 10 === 0) this.context.log(`vfio-pci ${this.name}: Relaying device request to user (#${count})`);
      this.irqControl.req.signal();
    } else if (count === 0) {
      this.context.log(`vfio-pci ${this.name}: No device request channel registered, blocked until released by user`);
    }
  }

  /** vfio_pci_core_aer_err_detected: an uncorrectable error of the function was reported. */
  errorDetected(): void {
    this.irqControl.err.signal();
  }

  /** vfio_pci_core_feature_token. A GET would show the token of the device's last user, so there is none. */
  private setToken(process: Process, flags: number, address: number, size: number): number {
    const { refusals } = this.context;
    const checked = vfioCheckFeature(refusals, flags, size, VFIO_DEVICE_FEATURE_SET, UUID_SIZE);
    if (checked !== 1) return checked;
    const uuid = new Uint8Array(UUID_SIZE);
    if (!process.memory.copyIn(address, uuid)) return refusals.refuse('EFAULT', 'the token is not readable', 'data');
    this.sriov.setToken(uuid);
    return 0;
  }

  /** VFIO_DEVICE_RESET. */
  private reset(): number {
    const { dev, state, context } = this;
    if (!state.resetWorks)
      return context.refusals.refuse(
        'EINVAL',
        `${dev.name} has no reset of its own (GET_INFO shows no RESET)`,
        'request',
      );
    state.zap();
    state.setPowerState(0);
    const error = dev.tryReset();
    state.unzap();
    if (error === -ERRNO.EAGAIN) return context.refusals.refuse('EAGAIN', `the lock of ${dev.name} is held`, 'request');
    return error;
  }

  private findMsix(): void {
    const { dev, state } = this;
    const msix = dev.capability(CapabilityId.MSIX);
    state.msixBar = NO_MSIX_BAR;
    state.hasDynMsix = false;
    if (msix === 0) return;
    const table = dev.configRead(msix + Msix.TABLE, 4);
    state.msixBar = table & MSIX_BAR_MASK;
    state.msixOffset = (table & ~MSIX_BAR_MASK) >>> 0;
    state.msixSize = msixVectors(dev.configRead(msix + Msix.FLAGS, 2)) * MsixEntry.SIZE;
    state.hasDynMsix = state.irqs.msiParent(dev)?.dynamicMsix ?? false;
  }

  /** vfio_device_pm_runtime_get and _put: a request wakes the function, and it may sleep again after it. */
  private awake(request: () => number): number {
    const { runtime } = this.power;
    runtime.get();
    try {
      return request();
    } finally {
      runtime.put();
    }
  }

  /** vfio_pci_dev_set_try_reset: what has no reset of its own is reset with its bus, when nobody uses any of it. */
  private tryResetSet(): void {
    const { set } = this;
    const { cores } = set;
    if (set.devices.some((device) => device.openCount > 0) || !cores.some((core) => core.needsReset)) return;
    if (!this.dev.canResetBus || set.outsider !== null) return;
    for (const core of cores) core.beginBusReset();
    const done = this.dev.resetBus() === 0;
    for (const core of cores) {
      if (done) core.needsReset = false;
      core.endBusReset();
    }
  }

  private badPointer(): number {
    return this.context.refusals.refuse('EFAULT', 'the argument is no address of this process', 'argument');
  }
}
