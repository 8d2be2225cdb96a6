/** A segment on a small machine, with a doorbell that writes down what arrives, and a model that declares whatever a test asks. */
import { CapabilityId, findCapability, Msix } from '../../../arch/pci/index.ts';
import { fromHalves } from '../../../ports/address.ts';
import type { DoorbellPage, MsiController } from '../../../ports/bus.ts';
import type { Iommu } from '../../../ports/iommu.ts';
import { Count, LEDGER_SIZE, type LossCode } from '../../../ports/ledger.ts';
import type { FunctionSpec, PciFunction, PciPort } from '../../../ports/pci.ts';
import { Status, type StatusCode, type Transaction } from '../../../ports/transaction.ts';
import { SystemBus } from '../../bus.ts';
import { RamMemory } from '../../memory.ts';
import { createTap } from '../../tap.ts';
import { JobQueue, SimClock } from '../../work.ts';
import type { HostFunction } from '../function.ts';
import { PciRoot } from '../root.ts';

export const RAM = 0x80_0000_0000;
export const BELL = 0x5081_0000;
export const MMIO32 = 0x6000_0000;
export const MMIO64 = 0x60_0000_0000;
export const IO = 0x7fff_0000;

export interface Arrival {
  readonly requester: number;
  readonly address: number;
  readonly data: number;
}

export class Bell implements MsiController {
  readonly name = 'bell';
  readonly doorbells: readonly DoorbellPage[] = [{ base: BELL, size: 0x1_0000, register: 0x40, isolated: true }];
  readonly arrivals: Arrival[] = [];
  message(tx: Transaction): StatusCode {
    this.arrivals.push({ requester: tx.requester, address: fromHalves(tx.paHi, tx.paLo), data: tx.data });
    return Status.OK;
  }
}

export class TestModel implements PciFunction {
  readonly spec: FunctionSpec;
  port: PciPort | null = null;
  resets = 0;
  constructor(spec: Partial<FunctionSpec> = {}) {
    this.spec = { name: 'test', vendorId: 0x1234, deviceId: 0x5678, classCode: 0xff0000, bars: [], ...spec };
  }
  connect(port: PciPort): void {
    this.port = port;
  }
  reset(): void {
    this.resets++;
  }
}

export function rig(iommu: Iommu | null = null) {
  const bus = new SystemBus(new RamMemory([{ base: RAM, size: 64 * 2 ** 20 }]));
  const bell = new Bell();
  bus.attachController(bell);
  const tap = createTap();
  const work = new JobQueue();
  const clock = new SimClock();
  const lines: string[] = [];
  const root = new PciRoot({
    segment: 0,
    bus,
    tap,
    work,
    clock,
    iommu,
    mmio32: { base: MMIO32, size: 0x1000_0000 },
    mmio64: { base: MMIO64, size: 64 * 2 ** 30 },
    io: { base: IO, size: 0x1_0000 },
    setIntx: (line, asserted) => lines.push(`${line}${asserted ? '+' : '-'}`),
  });
  const lost = (loss: LossCode): number => tap.ledger[Count.LOST + loss];
  const allLost = (): number => tap.ledger.subarray(Count.LOST, LEDGER_SIZE).reduce((sum, each) => sum + each, 0);
  return { root, bus, bell, tap, ledger: tap.ledger, work, clock, lines, lost, allLost };
}

/** A machine with one function at 00:01.0, started. */
export function single(spec: Partial<FunctionSpec>) {
  const made = rig();
  const model = new TestModel(spec);
  const fn = made.root.addFunction(made.root.rootBus, 1 << 3, model);
  made.root.start();
  return { ...made, model, fn };
}

/** COMMAND: memory and I/O decode, bus master. */
export const ALL_ON = 0x7;

/** Where a BAR is decoded. */
export const barBase = (fn: HostFunction, index: number): number => fn.bars.windows[index]!.base;

/** Offset of a capability in a function's configuration space. */
export const capabilityOf = (fn: HostFunction, id: number): number =>
  findCapability((offset, size) => fn.configRead(offset, size), id);

export function enableMsix(fn: HostFunction, control = 0x8000): void {
  fn.configWrite(capabilityOf(fn, CapabilityId.MSIX) + Msix.FLAGS, 2, control);
}

export const tableAddress = (fn: HostFunction, vector: number): number =>
  barBase(fn, fn.msix!.tableBar) + fn.msix!.tableOffset + vector * 16;

/** Gives vector `vector` a message by writes through the bus, and clears its mask. */
export function program(fn: HostFunction, vector: number, data: number, address = BELL + 0x40): void {
  const { bus } = fn.upstream;
  const at = tableAddress(fn, vector);
  bus.write32(at, address | 0);
  bus.write32(at + 4, Math.floor(address / 2 ** 32));
  bus.write32(at + 8, data);
  bus.write32(at + 12, 0);
}

/** Sets or clears a vector's mask by a write through the bus. */
export const maskVector = (fn: HostFunction, vector: number, masked: boolean): void =>
  fn.upstream.bus.write32(tableAddress(fn, vector) + 12, masked ? 1 : 0);
