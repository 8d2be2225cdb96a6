/** vfio-pci: what a PCI function is to the owner of its device file (drivers/vfio/pci/vfio_pci_core.c). */
import { CapabilityId, Command, Header, MSIX_BAR_MASK, Msix, MsixEntry, msixVectors } from '../../arch/pci/index.ts';
import { fromU64 } from '../../ports/address.ts';
import { ERRNO } from '../../uapi/errno.ts';
import {
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
import type { SavedState } from '../pci/saved-state.ts';
import type { Process } from '../process.ts';
import type { VfioDeviceOps } from '../vfio/device-ops.ts';
import { VfioPciConfig } from './config.ts';
import { type FeatureHandler, FeatureTable } from './feature.ts';
import { VfioPciInfo } from './info.ts';
import { intxMaskSupported } from './intx.ts';
import { IoEventFds } from './ioeventfd.ts';
import { RegionAccess } from './rdwr.ts';
import { probeMmaps } from './regions.ts';
import { VfioPciIrqControl } from './set-irqs.ts';
import { NO_MSIX_BAR, VfioPciState } from './state.ts';
import { matchName } from './token.ts';

export interface VfioPciOptions {
  /** All PCI functions of the host: whose BARs might share a page with this one's. */
  readonly devices?: readonly PciDev[];
}

export class VfioPciCore implements VfioDeviceOps {
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
  /** What the function holds while it sleeps between owners. */
  private asleep: SavedState | null = null;

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
  }

  get name(): string {
    return this.dev.name;
  }

  match(text: string): number {
    return matchName(this.context.refusals, this.name, text);
  }

  /** Who answers a feature of VFIO_DEVICE_FEATURE; null takes it away. */
  setFeatureHandler(id: number, handler: FeatureHandler | null): void {
    this.features.set(id, handler);
  }

  /** vfio_pci_core_enable. EAGAIN while the function's lock is held; a function that cannot be reset is no error. */
  openDevice(_process: Process): number {
    const { dev, state } = this;
    this.wake();
    dev.clearMaster();
    const enabled = dev.enable();
    if (enabled !== 0)
      return this.context.refusals.refuse('EINVAL', `${dev.name} has a BAR that the host gave no address`);
    const reset = dev.tryReset();
    if (reset === -ERRNO.EAGAIN) {
      dev.disable();
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
    return 0;
  }

  /** vfio_pci_core_disable, then vfio_pci_core_close_device: nothing that could interrupt outlives the next line. */
  closeDevice(): void {
    const { dev, state } = this;
    state.zap();
    state.setPowerState(0);
    dev.clearMaster();
    this.irqControl.disableActive();
    this.ioeventfds.clear();
    state.virqDisabled = false;
    state.vconfig.fill(0);
    const saved = state.savedState;
    state.savedState = null;
    dev.configWrite(Header.COMMAND, 2, Command.INTX_DISABLE);
    if (state.resetWorks && !dev.locked) dev.resetFunction();
    if (saved !== null) dev.restoreState(saved);
    dev.disable();
    this.irqControl.err.clear();
    this.irqControl.req.clear();
    this.sleep();
  }

  ioctl(process: Process, request: number, argument: bigint): number {
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
      case VFIO_DEVICE_PCI_HOT_RESET:
        return this.context.refusals.refuse(
          'ENOTTY',
          'hot reset exists in Linux 7.2 but is not built in this kernel',
          'request',
        );
      default:
        return this.context.refusals.refuse('ENOTTY', `vfio-pci has no request 0x${request.toString(16)}`, 'request');
    }
  }

  feature(process: Process, flags: number, address: number, size: number): number {
    return this.features.answer(process, flags, address, size);
  }

  read(process: Process, address: number, count: number, offset: number): number {
    return this.regions.access(process, address, count, offset, false);
  }

  write(process: Process, address: number, count: number, offset: number): number {
    return this.regions.access(process, address, count, offset, true);
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

  /** Runtime power management: D3hot while nobody has the function open. */
  private sleep(): void {
    if (this.context.modules.vfio_pci.disable_idle_d3) return;
    this.asleep = this.dev.saveState();
    this.dev.setPowerState(3);
  }

  private wake(): void {
    const state = this.asleep;
    this.asleep = null;
    this.dev.setPowerState(0);
    if (state !== null) this.dev.restoreState(state);
  }

  private badPointer(): number {
    return this.context.refusals.refuse('EFAULT', 'the argument is no address of this process', 'argument');
  }
}
