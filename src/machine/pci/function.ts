/**
 * The carrier of a device model: its configuration space, BARs, interrupts and DMA. `raise` is the first room on an interrupt's
 * way: while nobody observes it allocates nothing, and fills one transaction that every interrupt of the function reuses.
 */
import {
  CapabilityId,
  Command,
  ExtendedCapabilityId,
  findCapability,
  findExtendedCapability,
  Header,
  Power,
} from '../../arch/pci/index.ts';
import { fromHalves } from '../../ports/address.ts';
import { Count, Loss, type LossCode } from '../../ports/ledger.ts';
import type { FunctionSpec, PciAddress, PciFunction, PciPort } from '../../ports/pci.ts';
import { requesterId } from '../../ports/pci.ts';
import type { Tap } from '../../ports/tap.ts';
import { Access, Status, Transaction } from '../../ports/transaction.ts';
import type { Clock } from '../../ports/work.ts';
import type { BarWindow } from './bar.ts';
import { BaseAddresses } from './bars.ts';
import type { ConfigSpace, ConfigWatcher } from './config-space.ts';
import { DmaEngine } from './dma.ts';
import { describePin, describeRaise, lossReason } from './hops.ts';
import { IntxPin } from './intx.ts';
import { COMMAND_WRITABLE, powerOnConfig } from './layout.ts';
import { MsiCapability } from './msi.ts';
import { type MessageSender, MsixCapability } from './msix.ts';
import type { FunctionPlace } from './place.ts';
import { type CarriedVf, SriovCapability, type SriovOwner, type VirtualFunction } from './sriov.ts';
import { attachState, type StateCapabilities, type StateOwner } from './state.ts';
import type { Upstream } from './upstream.ts';

/** How the function may send at this moment; see `refreshGate`. */
const Gate = { CLOSED: 0, MSI: 1, MSIX: 2 } as const;

export class HostFunction implements PciPort, ConfigWatcher, MessageSender, StateOwner, SriovOwner, CarriedVf {
  readonly model: PciFunction;
  readonly spec: FunctionSpec;
  readonly config: ConfigSpace;
  readonly bars: BaseAddresses;
  readonly msi: MsiCapability | null;
  readonly msix: MsixCapability | null;
  readonly intx: IntxPin;
  readonly state: StateCapabilities;
  /** Its virtual functions; null for a function without SR-IOV. */
  readonly sriov: SriovCapability | null;
  /** null: the function is no virtual one. */
  private readonly virtual: VirtualFunction | null;
  readonly clock: Clock;
  readonly upstream: Upstream;
  /** Has the topology a function that a request could reach before the IOMMU? Set when the segment starts. */
  reachesPeers = false;
  private readonly place: FunctionPlace;
  private readonly tx = new Transaction();
  private readonly dma: DmaEngine;
  // Held here as well, so that `raise` reaches them in one step.
  private readonly tap: Tap;
  private readonly ledger: Float64Array;
  private gate: number = Gate.CLOSED;
  private sending = false;

  constructor(model: PciFunction, place: FunctionPlace, upstream: Upstream, virtual: VirtualFunction | null = null) {
    this.model = model;
    this.spec = model.spec;
    this.place = place;
    this.upstream = upstream;
    this.clock = upstream.clock;
    this.virtual = virtual;
    const config = powerOnConfig(model.spec, virtual !== null);
    this.config = config;
    const read = (offset: number, size: number): number => config.read(offset, size);
    const { ledger } = upstream.tap;
    this.tap = upstream.tap;
    this.ledger = ledger;
    // Every message is a write of four bytes without a substream.
    this.tx.access = Access.WRITE;
    const msi = findCapability(read, CapabilityId.MSI);
    const msix = findCapability(read, CapabilityId.MSIX);
    this.msi = msi === 0 ? null : new MsiCapability(config, msi, ledger, this);
    this.msix = msix === 0 ? null : new MsixCapability(config, msix, ledger, this);
    this.bars = new BaseAddresses(config, model.spec, this.msix, virtual);
    this.state = attachState(config, this);
    this.intx = new IntxPin(config, this);
    this.dma = new DmaEngine(this, upstream);
    this.sriov = this.makeSriov(read);
    config.allow(Header.COMMAND, 2, virtual === null ? COMMAND_WRITABLE : Command.BUS_MASTER);
    config.allowClear(Header.STATUS, 2, 0xf900);
    config.allow(Header.CACHE_LINE_SIZE, 1, 0xff);
    config.allow(Header.INTERRUPT_LINE, 1, 0xff);
    config.watch(Header.COMMAND, 2, this);
    config.watch(Header.BAR0, 0x24, this);
    config.seal();
    this.placeChanged();
    model.connect(this);
  }

  private makeSriov(read: (offset: number, size: number) => number): SriovCapability | null {
    const { sriov } = this.spec;
    const at = sriov === undefined ? 0 : findExtendedCapability(read, ExtendedCapabilityId.SR_IOV);
    return sriov === undefined || at === 0 ? null : new SriovCapability(this.config, at, sriov, this);
  }

  get isVirtual(): boolean {
    return this.virtual !== null;
  }

  carry(model: PciFunction, distance: number, virtual: VirtualFunction): HostFunction {
    return new HostFunction(model, this.place.beside(distance), this.upstream, virtual);
  }

  attach(): void {
    this.place.attach(this);
  }

  detach(): void {
    this.place.detach(this);
  }

  /** Where the function sits now: bus numbers are software's to change. */
  get address(): PciAddress {
    return this.place.address;
  }

  /** Its own requester id. */
  get requester(): number {
    return requesterId(this.place.address);
  }

  /** The id that its transactions carry: the requester id, or that of the PCIe-to-PCI bridge above it. */
  get streamId(): number {
    return this.place.streamId;
  }

  get messagesEnabled(): boolean {
    return this.msix?.enabled === true || this.msi?.enabled === true;
  }

  /** May it issue requests: bus mastering here and in every bridge above, and D0. */
  get mayIssue(): boolean {
    return (
      (this.config.read(Header.COMMAND, 2) & Command.BUS_MASTER) !== 0 && this.isPowered && this.place.forwardsUpstream
    );
  }

  get isPowered(): boolean {
    return (this.state.power?.state ?? Power.D0) === Power.D0 && (this.virtual === null || this.virtual.isEnabled());
  }

  raise(vector: number): boolean {
    this.ledger[Count.SENT] += 1;
    if (this.gate === Gate.MSIX) {
      const msix = this.msix!;
      if (vector >= 0 && vector < msix.vectors) {
        if (msix.pendingCount !== 0) msix.sync();
        const { table } = msix;
        const at = vector << 2;
        if (!msix.functionMask && (table[at + 3] & 1) === 0) {
          return this.send(vector, table[at + 1], table[at], table[at + 2]);
        }
        return this.held(vector, msix.hold(vector));
      }
      return this.lose(Loss.NOT_ENABLED, vector);
    }
    if (this.gate === Gate.MSI) {
      const msi = this.msi!;
      if (vector >= 0 && vector < msi.granted) {
        if (!msi.isMasked(vector)) return this.send(vector, msi.addressHi, msi.addressLo, msi.data | vector);
        return this.held(vector, msi.hold(vector));
      }
      return this.lose(Loss.NOT_ENABLED, vector);
    }
    return this.lose(this.mayIssue ? Loss.NOT_ENABLED : Loss.BUS_MASTER_OFF, vector);
  }

  /** An unmask let a pending vector go; it was counted as sent when it was raised. */
  release(vector: number): void {
    if (this.gate === Gate.MSIX) {
      const { table } = this.msix!;
      const at = vector << 2;
      this.send(vector, table[at + 1], table[at], table[at + 2]);
    } else if (this.gate === Gate.MSI) {
      const msi = this.msi!;
      this.send(vector, msi.addressHi, msi.addressLo, msi.data | vector);
    } else {
      this.lose(Loss.BUS_MASTER_OFF, vector);
    }
  }

  /** The memory write itself. False when it was lost on a way that the function can see. */
  private send(vector: number, hi: number, lo: number, data: number): boolean {
    const { tx, upstream } = this;
    // A write that comes back to its sender through a chain of devices ends there; else two devices could ring each other forever.
    if (this.sending) return this.lose(Loss.UNCLAIMED, vector);
    tx.iovaHi = hi;
    tx.iovaLo = lo;
    tx.data = data;
    if (this.tap.observer !== null) describeRaise(this, tx, vector, 'sent');
    this.sending = true;
    let loss: number;
    try {
      loss = upstream.message(tx, this);
    } finally {
      this.sending = false;
    }
    return loss < 0 || this.lose(loss as LossCode, vector);
  }

  private held(vector: number, first: boolean): boolean {
    const { tap } = this;
    if (!first) tap.ledger[Count.COALESCED] += 1;
    if (tap.observer !== null) describeRaise(this, this.message(vector), vector, first ? 'pending' : 'coalesced');
    return false;
  }

  private lose(loss: LossCode, vector: number): false {
    const { tap } = this;
    tap.ledger[Count.LOST + loss] += 1;
    if (tap.observer !== null) {
      if (loss === Loss.NOT_ENABLED || loss === Loss.BUS_MASTER_OFF) {
        describeRaise(this, this.message(vector), vector, 'lost');
      }
      const address = fromHalves(this.tx.iovaHi & 0x1f_ffff, this.tx.iovaLo);
      tap.observer.hop({ at: 'lost', where: this.place.name, loss, why: lossReason(loss, this, vector, address) });
    }
    return false;
  }

  /** The transaction that vector `vector` would send, for an observer. */
  private message(vector: number): Transaction {
    const { tx, msix, msi } = this;
    const table =
      msix !== null && (msix.enabled || msi === null) && vector >= 0 && vector < msix.vectors ? msix.table : null;
    tx.iovaHi = table !== null ? table[vector * 4 + 1] : (msi?.addressHi ?? 0);
    tx.iovaLo = table !== null ? table[vector * 4] : (msi?.addressLo ?? 0);
    tx.data = table !== null ? table[vector * 4 + 2] : (msi?.data ?? 0) | (msi === null ? 0 : vector);
    return tx;
  }

  setInterruptLine(asserted: boolean): void {
    this.intx.drive(asserted);
  }

  /** The pin's level at the host bridge changed. */
  routeInterrupt(asserted: boolean): void {
    this.place.routeInterrupt(this.config.read(Header.INTERRUPT_PIN, 1), asserted);
    if (this.upstream.tap.observer !== null) describePin(this, asserted);
  }

  dmaRead(iova: number, length: number, complete: (ok: boolean, bytes: Uint8Array) => void, pasid?: number): void {
    this.dma.read(iova, length, complete, pasid);
  }

  dmaWrite(iova: number, bytes: Uint8Array, complete: (ok: boolean) => void, pasid?: number): void {
    this.dma.write(iova, bytes, complete, pasid);
  }

  /** May a request carry this PASID: software has enabled them, and it fits the width. */
  mayUsePasid(pasid: number): boolean {
    return this.virtual === null ? (this.state.pasid?.allows(pasid) ?? false) : this.virtual.mayUsePasid(pasid);
  }

  barMemory(bar: number, offset: number, size: number): Uint8Array {
    const bytes = this.barView(bar, offset, size);
    if (bytes === null)
      throw new RangeError(`${this.spec.name}: BAR ${bar} has no memory range at ${offset} of ${size} bytes`);
    return bytes;
  }

  /** The bytes of a part of a BAR when it is plain memory (or the MSI-X table), else null. They stay valid. */
  barView(bar: number, offset: number, size: number): Uint8Array | null {
    return this.bars.windows[bar]?.view(offset, size) ?? null;
  }

  /** Sends what a change of the MSI-X table behind the model's back has unmasked. */
  syncTable(): void {
    this.msix?.sync();
  }

  configRead(offset: number, size: number): number {
    if (this.msix !== null && this.msix.pendingCount !== 0) this.msix.sync();
    return this.config.read(offset, size);
  }

  configWrite(offset: number, size: number, value: number): void {
    this.config.write(offset, size, value);
  }

  /** COMMAND, a BAR, or something above changed. */
  written(): void {
    this.placeChanged();
  }

  /** The function moved, or a bridge above it was changed. */
  placeChanged(): void {
    this.tx.requester = this.streamId;
    this.refreshGate();
    this.bars.refresh(this.place, this.isPowered);
    this.intx.refresh();
    this.sriov?.refresh();
  }

  messagesChanged(): void {
    this.refreshGate();
    this.intx.refresh();
  }

  private refreshGate(): void {
    if (!this.mayIssue) this.gate = Gate.CLOSED;
    else if (this.msix?.enabled === true) this.gate = Gate.MSIX;
    else if (this.msi?.enabled === true) this.gate = Gate.MSI;
    else this.gate = Gate.CLOSED;
  }

  functionReset(): void {
    this.reset();
  }

  powerChanged(soft: boolean): void {
    if (soft) this.reset();
    else this.placeChanged();
  }

  /** Conventional or function level reset: power-on state. Pending interrupts end here, and DMA that waits fails. */
  reset(): void {
    this.config.reset();
    this.state.power?.reset();
    this.dma.reset();
    this.msix?.reset();
    this.msi?.reset();
    this.intx.reset();
    this.placeChanged();
    this.model.reset();
  }

  /** The decoded BAR that claims an address, or null. */
  claim(hi: number, lo: number): BarWindow | null {
    for (const window of this.bars.windows) {
      if (window !== null && window.kind !== 'io' && window.claims(hi, lo)) return window;
    }
    return null;
  }
}

/** What a status that is not OK means for an interrupt. */
export function lossOf(status: number): LossCode {
  if (status === Status.ABORT) return Loss.IOMMU_ABORT;
  return status === Status.UNCLAIMED ? Loss.UNCLAIMED : Loss.IOMMU_FAULT;
}
