/**
 * Low power on the user's word: features 3, 4 and 5 (vfio_pci_core.c vfio_pci_core_pm_entry and its kin). Entry gives up the user's own
 * claim on the function, which then sleeps whenever no request is under way; each request wakes it. With a wakeup eventfd the first request that
 * wakes it ends low power and says so.
 */
import {
  VFIO_DEVICE_FEATURE_SET,
  VFIO_PCI_INTX_IRQ_INDEX,
  vfio_device_low_power_entry_with_wakeup,
} from '../../uapi/vfio.ts';
import { eventfdCtxFdget } from '../eventfd.ts';
import type { EventFdContext } from '../files.ts';
import type { Process } from '../process.ts';
import { vfioCheckFeature } from '../vfio/feature.ts';
import type { VfioIntx } from './intx.ts';
import { type PmCallbacks, RuntimePm } from './runtime-pm.ts';
import type { VfioPciState } from './state.ts';

export class LowPower implements PmCallbacks {
  readonly runtime: RuntimePm;
  private readonly state: VfioPciState;
  private readonly intx: VfioIntx;
  private wakeup: EventFdContext | null = null;
  /** INTx was masked for the time of the sleep, and not by the user. */
  private intxMasked = false;

  constructor(state: VfioPciState, intx: VfioIntx) {
    this.state = state;
    this.intx = intx;
    this.runtime = new RuntimePm(state.dev, this);
  }

  /** LOW_POWER_ENTRY: no payload. */
  enter(flags: number, size: number): number {
    const checked = this.check(flags, size, 0);
    return checked === 1 ? this.engage(null) : checked;
  }

  /** LOW_POWER_ENTRY_WITH_WAKEUP. */
  enterWithWakeup(process: Process, flags: number, address: number, size: number): number {
    const { refusals } = this.state.context;
    const layout = vfio_device_low_power_entry_with_wakeup;
    const checked = this.check(flags, size, layout.size);
    if (checked !== 1) return checked;
    const bytes = new Uint8Array(layout.size);
    if (!process.memory.copyIn(address, bytes))
      return refusals.refuse('EFAULT', `the ${layout.size} bytes of the payload are not readable`, 'data');
    const { wakeup_eventfd: fd } = layout.read(bytes);
    if (fd < 0) return refusals.refuse('EINVAL', `wakeup_eventfd ${fd} is no descriptor`, 'wakeup_eventfd');
    const eventfd = eventfdCtxFdget(process, fd, refusals, 'wakeup_eventfd');
    if (typeof eventfd === 'number') return eventfd;
    const error = this.engage(eventfd);
    if (error < 0) eventfd.put();
    return error;
  }

  /** LOW_POWER_EXIT: no error when low power was not entered, or has ended by itself. */
  leave(flags: number, size: number): number {
    const checked = this.check(flags, size, 0);
    if (checked === 1) {
      this.exit();
      this.state.unzap();
    }
    return Math.min(checked, 0);
  }

  /** vfio_pci_runtime_pm_exit: the user counts as a user again. */
  exit(): void {
    if (!this.state.pmRuntimeEngaged) return;
    this.state.pmRuntimeEngaged = false;
    this.runtime.getNoresume();
    this.wakeup?.put();
    this.wakeup = null;
  }

  /** The physical function is in D0 while it makes virtual ones, whatever its user wrote to PMCSR. */
  wakeForSriov(): void {
    this.state.setPowerState(0);
  }

  /** vfio_pci_core_runtime_suspend: D0 first, so that what PMCSR took away from the function is back before it is saved. */
  runtimeSuspend(): void {
    this.state.setPowerState(0);
    this.intxMasked = this.state.irqType === VFIO_PCI_INTX_IRQ_INDEX && this.intx.mask();
  }

  /** vfio_pci_core_runtime_resume. */
  runtimeResume(): void {
    if (this.wakeup !== null) {
      this.wakeup.add(1);
      this.exit();
    }
    if (this.intxMasked) this.intx.unmask();
  }

  /** vfio_pci_runtime_pm_entry. The function sleeps when the request that brought us here is over. */
  private engage(wakeup: EventFdContext | null): number {
    const { state } = this;
    state.zap();
    if (state.pmRuntimeEngaged)
      return state.context.refusals.refuse('EINVAL', `${state.dev.name} is in low power already`, 'flags');
    state.pmRuntimeEngaged = true;
    this.wakeup = wakeup;
    this.runtime.putNoidle();
    return 0;
  }

  private check(flags: number, size: number, minimum: number): number {
    return vfioCheckFeature(this.state.context.refusals, flags, size, VFIO_DEVICE_FEATURE_SET, minimum);
  }
}
