/** Runtime power management of one function: who counts as a user, and what happens when the last one leaves (drivers/base/power/runtime.c, pci-driver.c). */
import type { PciDevice } from '../pci/pci-device.ts';
import type { SavedState } from '../pci/saved-state.ts';

/** The driver's part: dev_pm_ops. */
export interface PmCallbacks {
  /** Before the function is saved and put into D3hot. */
  runtimeSuspend(): void;
  /** After it came back to D0 and was restored. */
  runtimeResume(): void;
}

export class RuntimePm {
  suspended = false;
  private usage = 0;
  private saved: SavedState | null = null;
  private readonly dev: PciDevice;
  private readonly callbacks: PmCallbacks;

  constructor(dev: PciDevice, callbacks: PmCallbacks) {
    this.dev = dev;
    this.callbacks = callbacks;
  }

  /** pm_runtime_resume_and_get. */
  get(): void {
    this.usage += 1;
    this.resume();
  }

  /** pm_runtime_put: the last user lets the function sleep at once. */
  put(): void {
    this.putNoidle();
    if (this.usage === 0) this.suspend();
  }

  /** pm_runtime_get_noresume. */
  getNoresume(): void {
    this.usage += 1;
  }

  /** pm_runtime_put_noidle: one user less, but the function goes on. */
  putNoidle(): void {
    if (this.usage > 0) this.usage -= 1;
  }

  /** pm_runtime_resume. */
  resume(): void {
    if (!this.suspended) return;
    this.suspended = false;
    this.dev.setPowerState(0);
    if (this.saved !== null) this.dev.restoreState(this.saved);
    this.saved = null;
    this.callbacks.runtimeResume();
  }

  private suspend(): void {
    if (this.suspended) return;
    this.callbacks.runtimeSuspend();
    this.saved = this.dev.saveState();
    this.dev.setPowerState(3);
    this.suspended = true;
  }
}
