/**
 * The ITS as the parent of PCI MSI domains: its_msi_prepare, its_irq_domain_ops and its_irq_chip of irq-gic-v3-its.c.
 *
 * The message is the doorbell with the event id as data; the device id is the requester that the bus carries, so that no device can
 * name another's events: the domain is isolated.
 */
import {
  encodeClear,
  encodeDiscard,
  encodeInt,
  encodeInv,
  encodeMapti,
  encodeMovi,
  GITS_TRANSLATER,
  GITS_TRANSLATION_FRAME,
} from '../../arch/gic/index.ts';
import type { DoorbellPage } from '../../ports/bus.ts';
import type { KernelContext } from '../context.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import { ItsDevice } from './its-device.ts';
import type { ItsNode } from './its-node.ts';
import type { MsiDesc, MsiMessage } from './msi-desc.ts';
import { type MsiParent, type PrepareMsi, setMessageAddress } from './msi-parent.ts';
import { countOrder } from './region-bitmap.ts';

/** Device id 0 may stand for many functions on systems that do not wire it; they get at least this many. */
const DEVICE_ZERO_MINIMUM = 32;

export class ItsMsiParent implements MsiParent {
  readonly name = 'ITS';
  readonly isolated = true;
  readonly msix = true;
  readonly multiMsi = true;
  readonly dynamicMsix = false;
  readonly doorbells: readonly DoorbellPage[];
  private readonly context: KernelContext;
  private readonly node: ItsNode;
  private readonly devices = new Map<number, ItsDevice>();

  /** `node` has been initialised. */
  constructor(context: KernelContext, node: ItsNode) {
    this.context = context;
    this.node = node;
    this.doorbells = [
      {
        base: node.base + GITS_TRANSLATION_FRAME,
        size: GITS_TRANSLATION_FRAME,
        register: GITS_TRANSLATER - GITS_TRANSLATION_FRAME,
        isolated: true,
      },
    ];
  }

  /** its_msi_prepare. ENOMEM: no entry, ITT or LPIs. */
  prepareDevice(dev: PciDev, vectors: number): number {
    const known = this.devices.get(dev.requester);
    if (known !== undefined) {
      // Linux takes a device id that it knows for an alias, and never tears such a device down.
      known.shared = true;
      return 0;
    }
    const count = Math.max(2 ** countOrder(vectors), dev.requester === 0 ? DEVICE_ZERO_MINIMUM : 1);
    const device = ItsDevice.create(this.context, this.node, dev.requester, count);
    if (typeof device === 'string') return this.context.refusals.refuse('ENOMEM', `${dev.name}: ${device}`, 'count');
    this.devices.set(dev.requester, device);
    return 0;
  }

  /** its_msi_teardown. A device with events in use, leaked ones too, stays; so does a shared one. */
  releaseDevice(dev: PciDev): void {
    const device = this.devices.get(dev.requester);
    if (device === undefined || device.shared) return;
    if (!device.events.isEmpty) {
      this.context.log(`WARNING: its_msi_teardown: ${dev.name} has ${device.events.used} events left`);
      return;
    }
    device.free();
    this.devices.delete(dev.requester);
  }

  /**
   * its_irq_domain_alloc. A failure of `prepare` leaves the events that were taken for it taken, as Linux 7.2 does: the next success
   * starts behind them.
   */
  allocate(dev: PciDev, descs: readonly MsiDesc[], prepare: PrepareMsi): number {
    const device = this.devices.get(dev.requester);
    const first = descs[0];
    if (first === undefined) return 0;
    if (device === undefined) {
      return this.context.refusals.refuse('EINVAL', `${dev.name} was not prepared for messages`, 'vector');
    }
    if (!first.msix) return this.allocateBlock(device, descs, prepare);
    for (let k = 0; k < descs.length; k++) {
      const error = this.allocateBlock(device, descs.slice(k, k + 1), prepare);
      if (error < 0) {
        this.free(dev, descs.slice(0, k));
        return error;
      }
    }
    return 0;
  }

  free(dev: PciDev, descs: readonly MsiDesc[]): void {
    const device = this.devices.get(dev.requester);
    const first = descs[0];
    if (device === undefined || first === undefined) return;
    if (first.msix) for (const desc of descs) device.events.release(device.eventOf(desc.hwirq), 0);
    else device.events.release(device.eventOf(lowestHwirq(descs)), countOrder(descs.length));
  }

  /** its_irq_domain_activate: MAPTI to the CPU with the fewest LPIs. The LPI stays disabled until unmask. */
  activate(desc: MsiDesc): void {
    const device = this.deviceOf(desc);
    const cpu = this.node.leastLoaded();
    const event = device.eventOf(desc.hwirq);
    this.node.load[cpu]!++;
    device.cpus[event] = cpu;
    encodeMapti(this.node.command, device.deviceId, event, desc.hwirq, cpu);
    this.node.send(cpu);
  }

  deactivate(desc: MsiDesc): void {
    const device = this.deviceOf(desc);
    const event = device.eventOf(desc.hwirq);
    const cpu = device.cpus[event]!;
    this.node.load[cpu]!--;
    encodeDiscard(this.node.command, device.deviceId, event);
    this.node.send(cpu);
  }

  compose(desc: MsiDesc, into: MsiMessage): void {
    setMessageAddress(desc, this.node.translater, into);
    into.data = this.deviceOf(desc).eventOf(desc.hwirq);
  }

  mask(desc: MsiDesc): void {
    this.configure(desc, false);
  }

  unmask(desc: MsiDesc): void {
    this.configure(desc, true);
  }

  /** its_set_affinity: MOVI. The message stays as it is. 0, or EINVAL when there is no such CPU. */
  setAffinity(desc: MsiDesc, cpu: number): number {
    if (!(cpu >= 0 && cpu < this.node.load.length)) {
      return this.context.refusals.refuse('EINVAL', `there is no CPU ${cpu}`, 'cpu');
    }
    const device = this.deviceOf(desc);
    const event = device.eventOf(desc.hwirq);
    const before = device.cpus[event]!;
    if (cpu === before) return 0;
    this.node.load[before]!--;
    this.node.load[cpu]!++;
    device.cpus[event] = cpu;
    encodeMovi(this.node.command, device.deviceId, event, cpu);
    this.node.send(cpu);
    return 0;
  }

  /** its_irq_set_irqchip_state: raises the interrupt by software, or takes its pending state away. */
  setPending(desc: MsiDesc, pending: boolean): void {
    const device = this.deviceOf(desc);
    const event = device.eventOf(desc.hwirq);
    if (pending) encodeInt(this.node.command, device.deviceId, event);
    else encodeClear(this.node.command, device.deviceId, event);
    this.node.send(device.cpus[event]!);
  }

  /** CPU that takes the vector's interrupt. */
  cpuOf(desc: MsiDesc): number {
    const device = this.deviceOf(desc);
    return device.cpus[device.eventOf(desc.hwirq)]!;
  }

  private allocateBlock(device: ItsDevice, descs: readonly MsiDesc[], prepare: PrepareMsi): number {
    const event = device.events.take(countOrder(descs.length));
    if (event < 0) {
      return this.context.refusals.refuse(
        'ENOSPC',
        `no ${descs.length} free events: ${device.events.used} of ${device.lpis} are in use`,
        'count',
      );
    }
    for (const [k, desc] of descs.entries()) {
      const error = prepare(desc, this.node.translater);
      if (error < 0) return error;
      desc.hwirq = device.lpiBase + event + k;
    }
    return 0;
  }

  /** lpi_update_config. */
  private configure(desc: MsiDesc, enabled: boolean): void {
    const device = this.deviceOf(desc);
    const event = device.eventOf(desc.hwirq);
    this.node.lpis.setEnabled(desc.hwirq, enabled);
    encodeInv(this.node.command, device.deviceId, event);
    this.node.send(device.cpus[event]!);
  }

  private deviceOf(desc: MsiDesc): ItsDevice {
    const device = this.devices.get(desc.dev.requester);
    if (device === undefined) throw new Error(`${desc.dev.name} has no ITS device; its vector was not allocated`);
    return device;
  }
}

const lowestHwirq = (descs: readonly MsiDesc[]): number =>
  descs.reduce((low, desc) => Math.min(low, desc.hwirq), Number.POSITIVE_INFINITY);
