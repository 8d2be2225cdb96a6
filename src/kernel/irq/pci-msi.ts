/**
 * The PCI/MSI core (drivers/pci/msi/{api,msi}.c): what a driver's pci_alloc_irq_vectors does, check by check (drivers/pci/msi/api.c), and the two
 * phases of a message: prepare finds and maps the doorbell's IOVA at allocation, compose only writes it down.
 */

import { MsixFlags } from '../../arch/pci/msix.ts';
import { Power } from '../../arch/pci/power.ts';
import { hex } from '../../ports/address.ts';
import type { Refusal } from '../../ports/kernel.ts';
import { errnoName } from '../../uapi/errno.ts';
import type { KernelContext } from '../context.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import { DeviceMsi, type MsiServices } from './device-msi.ts';
import type { IrqCore } from './irq-core.ts';
import {
  canAddress64,
  MSIX_SETUP,
  MsiCapability,
  MsixTable,
  msiCount,
  msixCount,
  powerState,
  setIntxDisabled,
} from './msi-hardware.ts';
import type { MsiParent } from './msi-parent.ts';
import { MsiVector } from './msi-vector.ts';
import type { IrqHandler, MsiMode, PciIrqs } from './pci-irqs.ts';
import { type DoorbellPolicy, iommuDmaPrepareMsi, iommuDmaUnprepareMsi } from './prepare.ts';

export interface PciMsiOptions {
  /** The controller that takes a device's messages, by the platform's tables; null: none does. */
  readonly parentOf: (dev: PciDev) => MsiParent | null;
  /** Default `kernel`. */
  readonly doorbellPolicy?: DoorbellPolicy;
}

export class PciMsi implements PciIrqs {
  readonly doorbellPolicy: DoorbellPolicy;
  private readonly context: KernelContext;
  private readonly irqs: IrqCore;
  private readonly parentOf: (dev: PciDev) => MsiParent | null;
  private readonly devices = new Map<PciDev, DeviceMsi>();
  private readonly services: MsiServices;

  constructor(context: KernelContext, irqs: IrqCore, options: PciMsiOptions) {
    this.context = context;
    this.irqs = irqs;
    this.parentOf = options.parentOf;
    this.doorbellPolicy = options.doorbellPolicy ?? 'kernel';
    const policy = this.doorbellPolicy;
    this.services = {
      irqs,
      prepare: (desc, doorbell) => iommuDmaPrepareMsi(context, policy, desc, doorbell),
      unprepare: iommuDmaUnprepareMsi,
    };
  }

  allocIrqVectors(dev: PciDev, min: number, max: number, mode: MsiMode): number {
    return mode === 'msix' ? this.enableMsixRange(dev, min, max) : this.enableMsiRange(dev, min, max);
  }

  freeIrqVectors(dev: PciDev): void {
    const msi = this.devices.get(dev);
    if (msi === undefined) return;
    this.shutdown(msi);
    msi.remove([...msi.vectors].reverse());
    msi.parent.releaseDevice(dev);
    this.devices.delete(dev);
    dev.restoreMsiState = null;
  }

  irqVector(dev: PciDev, index: number): number {
    const vector = this.devices.get(dev)?.at(index) ?? null;
    if (vector !== null) return vector.desc.irq;
    return this.context.refusals.refuse('EINVAL', `vector ${index} of ${dev.name} is not allocated`, 'vector');
  }

  msixAllocAt(dev: PciDev, index: number): number {
    const { refusals } = this.context;
    const msi = this.devices.get(dev);
    if (msi === undefined || msi.mode !== 'msix') {
      return refusals.refuse('ENOTSUPP', `MSI-X of ${dev.name} is not enabled`, 'vector');
    }
    if (!msi.parent.dynamicMsix) {
      return refusals.refuse('ENOTSUPP', `${msi.parent.name} cannot add a vector while MSI-X is enabled`, 'vector');
    }
    const entries = msixCount(dev);
    if (index < 0 || index >= entries) {
      return refusals.refuse('ENOSPC', `vector ${index} of ${dev.name}: the table has ${entries} entries`, 'vector');
    }
    if (msi.at(index) !== null) {
      return refusals.refuse('EBUSY', `vector ${index} of ${dev.name} is allocated already`, 'vector');
    }
    const before = refusals.last;
    const error = msi.add(index, 1);
    if (error < 0) return this.refuseVector(dev, index, error, before);
    return msi.at(index)!.desc.irq;
  }

  msixFreeAt(dev: PciDev, index: number): void {
    const msi = this.devices.get(dev);
    const vector = msi?.at(index) ?? null;
    if (msi === undefined || vector === null || msi.mode !== 'msix' || !msi.parent.dynamicMsix) return;
    msi.remove([vector]);
  }

  requestIrq(irq: number, handler: IrqHandler, name: string, shared = false): number {
    return this.irqs.requestIrq(irq, handler, name, shared);
  }

  freeIrq(irq: number, handler: IrqHandler | null = null): void {
    this.irqs.freeIrq(irq, handler);
  }

  enableIrq(irq: number): void {
    this.irqs.enableIrq(irq);
  }

  disableIrq(irq: number): void {
    this.irqs.disableIrq(irq);
  }

  rewriteMessage(irq: number): void {
    this.vectorOf(irq)?.rewrite();
  }

  /** An affinity change moved the interrupt: composes the message again. The IOVA that prepare found stays. */
  recompose(irq: number): void {
    this.vectorOf(irq)?.recompose();
  }

  msiParent(dev: PciDev): MsiParent | null {
    return this.parentOf(dev);
  }

  /** What is enabled, or null. */
  mode(dev: PciDev): MsiMode | null {
    return this.devices.get(dev)?.mode ?? null;
  }

  /** The allocated vectors, with or without a handler. */
  vectors(dev: PciDev): readonly MsiVector[] {
    return this.devices.get(dev)?.vectors ?? [];
  }

  /**
   * Gives vectors a message with the doorbell that their descriptors now name. Each is masked while it is written, all of plain MSI at once, since
   * they share one address; every write has arrived when this returns. The caller has checked that the vectors can be masked.
   */
  readdress(vectors: readonly MsiVector[]): void {
    const shared = vectors.filter((vector) => !vector.desc.msix && !vector.masked);
    for (const vector of shared) vector.mask();
    for (const vector of vectors) vector.recompose();
    for (const vector of shared) vector.unmask();
  }

  /** pci_restore_msi_state: after a reset the function has forgotten its messages; it gets the same ones again. */
  restore(dev: PciDev): void {
    const msi = this.devices.get(dev);
    if (msi === undefined) return;
    setIntxDisabled(dev, true);
    if (msi.hardware instanceof MsixTable) this.restoreMsix(msi, msi.hardware);
    else if (msi.hardware instanceof MsiCapability) this.restoreMsi(msi, msi.hardware);
  }

  /** pci_enable_msix_range, as the seed calls it. */
  private enableMsixRange(dev: PciDev, min: number, max: number): number {
    const { refusals } = this.context;
    const before = refusals.last;
    if (max < min) return this.refuseRange(dev, min, max);
    if (this.devices.has(dev)) return this.refuseEnabled(dev);
    const parent = this.parentOf(dev);
    if (parent === null || !parent.msix) return this.refuseUnsupported(dev, parent, 'MSI-X');
    const state = this.refusePower(dev);
    if (state < 0) return state;
    const entries = msixCount(dev);
    if (entries === 0) return refusals.refuse('EINVAL', `${dev.name} has no MSI-X capability`, 'index');
    if (entries < min) {
      return refusals.refuse('ENOSPC', `${dev.name} has ${entries} MSI-X entries, ${min} were asked for`, 'count');
    }
    const created = this.createDomain(dev, parent, entries);
    if (created < 0) return created;
    let count = Math.min(max, entries);
    for (;;) {
      const result = this.msixCapabilityInit(dev, parent, entries, count, before);
      if (result === 0) return count;
      if (result < 0 || result < min) return this.failed(dev, parent, min, result);
      count = result;
    }
  }

  /** pci_enable_msi_range, as the seed calls it. */
  private enableMsiRange(dev: PciDev, min: number, max: number): number {
    const { refusals } = this.context;
    const before = refusals.last;
    const state = this.refusePower(dev);
    if (state < 0) return state;
    if (this.mode(dev) === 'msix') return this.refuseEnabled(dev);
    if (max < min) return this.refuseRange(dev, min, max);
    if (this.devices.has(dev)) return this.refuseEnabled(dev);
    const parent = this.parentOf(dev);
    if (parent === null) return this.refuseUnsupported(dev, parent, 'MSI');
    const messages = msiCount(dev);
    if (messages === 0) return refusals.refuse('EINVAL', `${dev.name} has no MSI capability`, 'index');
    if (messages < min) {
      return refusals.refuse('ENOSPC', `${dev.name} can send ${messages} messages, ${min} were asked for`, 'count');
    }
    let count = Math.min(max, messages);
    const created = this.createDomain(dev, parent, count);
    if (created < 0) return created;
    for (;;) {
      const result = this.msiCapabilityInit(dev, parent, count, before);
      if (result === 0) return count;
      if (result < 0 || result < min) return this.failed(dev, parent, min, result);
      count = result;
    }
  }

  /** msix_capability_init: 0, the number that could be had, or -errno. */
  private msixCapabilityInit(
    dev: PciDev,
    parent: MsiParent,
    entries: number,
    count: number,
    before: Refusal | null,
  ): number {
    MsixTable.control(dev, 0, MSIX_SETUP);
    const table = MsixTable.map(this.context.bus, dev);
    if (table === null) {
      MsixTable.control(dev, MSIX_SETUP, 0);
      return this.context.refusals.refuse('ENOMEM', `${dev.name}: the BAR of the MSI-X table is not there`, 'vector');
    }
    const msi = new DeviceMsi(dev, 'msix', parent, table, this.services);
    let result = 0;
    for (let k = 0; k < count && result === 0; k++) {
      const error = msi.add(k, 1);
      if (error < 0) result = k === 0 ? this.refuseVector(dev, k, error, before) : this.shorten(k, before);
    }
    if (result === 0) result = this.verifyEntries(msi);
    if (result !== 0) {
      msi.remove([...msi.vectors].reverse());
      MsixTable.control(dev, MSIX_SETUP, 0);
      return result;
    }
    this.devices.set(dev, msi);
    dev.restoreMsiState = () => this.restore(dev);
    setIntxDisabled(dev, true);
    for (let index = 0; index < entries; index++) table.setMask(index, true);
    table.flush();
    table.control(MsixFlags.FUNCTION_MASK, 0);
    return 0;
  }

  /** msi_capability_init: 0, the number to retry with, or -errno. Several messages come as one aligned block or not at all. */
  private msiCapabilityInit(dev: PciDev, parent: MsiParent, count: number, before: Refusal | null): number {
    if (count > 1 && !parent.multiMsi) return 1;
    const capability = new MsiCapability(dev, count);
    capability.setEnable(false);
    capability.setMaskAll(true);
    const msi = new DeviceMsi(dev, 'msi', parent, capability, this.services);
    const error = msi.add(0, count);
    let result = 0;
    if (error < 0) result = count > 1 ? this.shorten(1, before) : this.refuseVector(dev, 0, error, before);
    if (result === 0) result = this.verifyEntries(msi);
    if (result !== 0) {
      msi.remove([...msi.vectors].reverse());
      capability.setMaskAll(false);
      return result;
    }
    this.devices.set(dev, msi);
    dev.restoreMsiState = () => this.restore(dev);
    setIntxDisabled(dev, true);
    capability.setEnable(true);
    return 0;
  }

  /** msi_verify_entries. */
  private verifyEntries(msi: DeviceMsi): number {
    if (canAddress64(msi.dev)) return 0;
    const high = msi.vectors.find(({ desc }) => desc.message.addressHi !== 0);
    if (high === undefined) return 0;
    const { addressHi, addressLo } = high.desc.message;
    const shift = high.desc.doorbellShift === 0 ? 'the doorbell is above 4 GiB' : hex(high.desc.doorbellIova);
    return this.context.refusals.refuse(
      'EIO',
      `${msi.dev.name} sends to 32-bit addresses only, and vector ${high.desc.index} would need bits ${hex(addressHi >>> 0)}:${hex(addressLo >>> 0)} (${shift})`,
      'vector',
    );
  }

  /** pci_msi_shutdown, pci_msix_shutdown: handlers go, everything is masked, nothing leaves the function any more. */
  private shutdown(msi: DeviceMsi): void {
    for (const vector of msi.vectors) {
      this.irqs.freeIrq(vector.desc.irq);
      if (!vector.masked) vector.mask();
    }
    if (msi.hardware instanceof MsixTable) msi.hardware.control(MSIX_SETUP, 0);
    else if (msi.hardware instanceof MsiCapability) {
      msi.hardware.setEnable(false);
      msi.hardware.setMaskAll(false);
    }
    msi.hardware.flush();
    setIntxDisabled(msi.dev, false);
  }

  private restoreMsix(msi: DeviceMsi, table: MsixTable): void {
    table.control(0, MSIX_SETUP);
    for (const { desc } of msi.vectors) {
      table.write(desc.index, desc.message);
      table.setMask(desc.index, desc.masked);
    }
    table.flush();
    table.control(MsixFlags.FUNCTION_MASK, 0);
  }

  private restoreMsi(msi: DeviceMsi, capability: MsiCapability): void {
    capability.setEnable(false);
    for (const { desc } of msi.vectors) capability.write(desc.index, desc.message);
    capability.writeMask();
    capability.setEnable(true);
  }

  private vectorOf(irq: number): MsiVector | null {
    const line = this.irqs.line(irq);
    return line instanceof MsiVector ? line : null;
  }

  private createDomain(dev: PciDev, parent: MsiParent, vectors: number): number {
    const { refusals } = this.context;
    const before = refusals.last;
    const error = parent.prepareDevice(dev, vectors);
    if (error >= 0) return 0;
    // Whatever stopped the controller, the driver sees ENODEV. The reason stays readable.
    const cause = refusals.last === before ? null : refusals.last;
    refusals.last = before;
    const why = cause === null ? errnoName(error) : cause.why;
    return refusals.refuse(
      'ENODEV',
      `${parent.name} could not be set up for ${vectors} vectors of ${dev.name}: ${why} (Linux turns ${errnoName(error)} into ENODEV here)`,
      'count',
    );
  }

  private failed(dev: PciDev, parent: MsiParent, min: number, result: number): number {
    parent.releaseDevice(dev);
    if (result < 0) return result;
    return this.context.refusals.refuse(
      'ENOSPC',
      `only ${result} vectors of ${dev.name} can be had, not ${min}`,
      'count',
    );
  }

  /** msi_handle_pci_fail: some vectors are there, so the caller is told how many, and why is nobody's error. */
  private shorten(count: number, before: Refusal | null): number {
    this.context.refusals.last = before;
    return count;
  }

  /** msi_handle_pci_fail: whatever stopped the first vector, the driver sees ENOSPC. The reason stays readable. */
  private refuseVector(dev: PciDev, index: number, error: number, before: Refusal | null): number {
    const { refusals } = this.context;
    const cause = refusals.last === before ? null : refusals.last;
    refusals.last = before;
    const why = cause === null ? errnoName(error) : cause.why;
    const code = errnoName(error) === 'ENOSPC' ? '' : ` (Linux turns ${errnoName(error)} into ENOSPC here)`;
    return refusals.refuse(
      'ENOSPC',
      `vector ${index} of ${dev.name}: ${why}${code}`,
      cause?.field ?? 'vector',
      cause?.hint,
    );
  }

  private refuseRange(dev: PciDev, min: number, max: number): number {
    return this.context.refusals.refuse('ERANGE', `${dev.name}: at least ${min} and at most ${max} vectors`, 'count');
  }

  private refuseEnabled(dev: PciDev): number {
    return this.context.refusals.refuse('EINVAL', `${this.mode(dev)} of ${dev.name} is enabled already`, 'index');
  }

  private refuseUnsupported(dev: PciDev, parent: MsiParent | null, what: string): number {
    const why = parent === null ? 'has no MSI controller' : `is served by ${parent.name}, which does not take ${what}`;
    return this.context.refusals.refuse('ENOTSUPP', `${dev.name} ${why}`, 'index');
  }

  /** 0 in D0, else -EINVAL: a function in D3hot has no reachable table. */
  private refusePower(dev: PciDev): number {
    const state = powerState(dev);
    if (state === Power.D0) return 0;
    return this.context.refusals.refuse('EINVAL', `${dev.name} is in D${state}, vectors need D0`, 'power state');
  }
}
