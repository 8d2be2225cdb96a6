/** What the parts of vfio-pci share about one device: Linux's struct vfio_pci_core_device without its methods. */
import { CapabilityId, Command, Header, Power } from '../../arch/pci/index.ts';
import { VFIO_PCI_NUM_IRQS } from '../../uapi/vfio.ts';
import type { KernelContext } from '../context.ts';
import type { PciIrqs } from '../irq/pci-irqs.ts';
import type { PciResource } from '../pci/pci-dev.ts';
import type { PciDevice, PowerState } from '../pci/pci-device.ts';
import type { SavedState } from '../pci/saved-state.ts';

/** msix_bar of a device without MSI-X. */
export const NO_MSIX_BAR = 0xff;

export class VfioPciState {
  readonly context: KernelContext;
  readonly dev: PciDevice;
  readonly irqs: PciIrqs;
  /** Index of the active kind of interrupt; VFIO_PCI_NUM_IRQS while there is none. */
  irqType: number = VFIO_PCI_NUM_IRQS;
  /** log2 of the MSI vectors enabled: the most that the guest's QSIZE may say. */
  msiQmax = 0;
  /** The function obeys COMMAND.INTX_DISABLE and shows STATUS.INTERRUPT (PCI 2.3). */
  pci23 = false;
  /** The user's virtual COMMAND.INTX_DISABLE. */
  virqDisabled = false;
  /** The function's INTx is known not to work, and is hidden. */
  nointx = false;
  resetWorks = false;
  msixBar = NO_MSIX_BAR;
  msixOffset = 0;
  msixSize = 0;
  hasDynMsix = false;
  /** BARs that mmap takes (vfio_pci_probe_mmaps). */
  readonly mmapSupported: boolean[] = [false, false, false, false, false, false];
  /** The virtual configuration space, and the capability that each of its bytes belongs to. */
  vconfig = new Uint8Array(0);
  map = new Uint8Array(0);
  /** The user wrote a BAR since it was last cleaned for reading. */
  barDirty = false;
  /** BARs and ROM as they really are: what a backdoor reset is recovered with. */
  readonly rbar: number[] = [0, 0, 0, 0, 0, 0, 0];
  /** The function forgets its configuration between D3hot and D0. */
  needsPmRestore = false;
  pmSave: SavedState | null = null;
  savedState: SavedState | null = null;
  /** The user entered low power (features 3 and 4) and has not left it. */
  pmRuntimeEngaged = false;
  /** Grows with each time that mmaps were taken away; they come back with the next access while memory is on. */
  zaps = 0;
  /** Called after mmaps were taken away. */
  onZap: () => void = () => {};
  /** vfio_pci_dma_buf_move: dma-bufs of the BARs are revoked, or come back. */
  moveDmaBufs: (revoked: boolean) => void = () => {};

  constructor(context: KernelContext, dev: PciDevice, irqs: PciIrqs) {
    this.context = context;
    this.dev = dev;
    this.irqs = irqs;
    const power = dev.capability(CapabilityId.POWER_MANAGEMENT);
    this.needsPmRestore = power !== 0 && (dev.configRead(power + Power.CONTROL, 2) & Power.NO_SOFT_RESET) === 0;
  }

  resource(index: number): PciResource | null {
    const resource = this.dev.resources[index];
    return resource === undefined || resource.size === 0 || resource.base === 0 ? null : resource;
  }

  /** __vfio_pci_memory_enabled: decoding as the user set it, and not in D3hot. */
  get memoryEnabled(): boolean {
    return this.dev.powerState < 3 && (this.noCommandMemory || (this.vword(Header.COMMAND) & Command.MEMORY) !== 0);
  }

  /** pdev->no_command_memory: a virtual function's memory is enabled by VF MSE of its physical one, and COMMAND has no say. */
  get noCommandMemory(): boolean {
    return this.dev.physfn !== null;
  }

  /** vfio_pci_mmap_huge_fault: may a mapping of a BAR be accessed? */
  get mappingsEnabled(): boolean {
    return !this.pmRuntimeEngaged && this.memoryEnabled;
  }

  vword(offset: number): number {
    return this.vconfig[offset]! | (this.vconfig[offset + 1]! << 8);
  }

  setVword(offset: number, value: number): void {
    this.vconfig[offset] = value & 0xff;
    this.vconfig[offset + 1] = (value >>> 8) & 0xff;
  }

  vdword(offset: number): number {
    return (this.vword(offset) | (this.vword(offset + 2) << 16)) >>> 0;
  }

  setVdword(offset: number, value: number): void {
    this.setVword(offset, value & 0xffff);
    this.setVword(offset + 2, value >>> 16);
  }

  /** vfio_pci_zap_and_down_write_memory_lock: every mmap of a BAR faults from here on, and its dma-bufs are revoked. */
  zap(): void {
    this.zaps += 1;
    this.moveDmaBufs(true);
    this.onZap();
  }

  /** Behind whatever may have brought the BARs back: the dma-bufs come back with them. mmaps come by themselves, with the next access. */
  unzap(): void {
    if (this.memoryEnabled) this.moveDmaBufs(false);
  }

  /** vfio_pci_memory_lock_and_enable … unlock_and_restore: real decoding on while `body` touches the device. */
  withMemory<T>(body: () => T): T {
    const command = this.dev.configRead(Header.COMMAND, 2);
    if ((command & Command.MEMORY) !== 0) return body();
    this.dev.configWrite(Header.COMMAND, 2, command | Command.MEMORY);
    const result = body();
    this.dev.configWrite(Header.COMMAND, 2, command);
    return result;
  }

  /** vfio_lock_and_set_power_state: D3hot takes the mmaps away, and D0 puts back what the function forgot. */
  lockAndSetPowerState(state: PowerState): void {
    if (state === 3) this.zap();
    this.setPowerState(state);
    this.unzap();
  }

  /** vfio_pci_set_power_state. */
  setPowerState(state: PowerState): void {
    const { dev } = this;
    // A physical function with virtual ones stays in D0.
    if (state > 0 && (dev.sriov?.numVfs ?? 0) > 0) return;
    const before = dev.powerState;
    if (this.needsPmRestore && before < 3 && state === 3) this.pmSave = dev.saveState();
    dev.setPowerState(state);
    if (!this.needsPmRestore || before < 3 || state !== 0) return;
    const saved = this.pmSave;
    this.pmSave = null;
    if (saved !== null) dev.restoreState(saved);
  }
}
