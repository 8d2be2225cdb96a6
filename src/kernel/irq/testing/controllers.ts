/** Real controllers below real drivers: a GIC with an ITS or v2m frames in the test context's machine, and what a function would send. */
import { Gic } from '../../../machine/gic/gic.ts';
import { Its } from '../../../machine/gic/its.ts';
import { GicV2m, type V2mOptions } from '../../../machine/gic/v2m.ts';
import type { InterruptSink } from '../../../ports/bus.ts';
import { Transaction } from '../../../ports/transaction.ts';
import { type TestContext, testContext } from '../../test-context.ts';
import { GicIrqChip } from '../gic-chip.ts';
import { ItsNode } from '../its-node.ts';
import { ItsMsiParent } from '../its-parent.ts';
import { LpiTables } from '../lpi-tables.ts';
import { MsiDesc } from '../msi-desc.ts';
import { prepared } from '../msi-desc-iova.ts';
import type { MsiParent } from '../msi-parent.ts';
import { GicV2mMsiParent } from '../v2m-parent.ts';
import { FakeDev } from './fakes.ts';

export const GICD = 0x0800_0000;
export const GICR = 0x0900_0000;
export const ITS = 0x0808_0000;
/** Where the window puts the doorbell's page. */
export const WINDOW = 0x0800_0000;

export class Recorder implements InterruptSink {
  private readonly seen: [number, number][] = [];
  interrupt(intid: number, cpu: number): void {
    this.seen.push([intid, cpu]);
  }
  take(): [number, number][] {
    return this.seen.splice(0);
  }
}

/** A function that sends messages: what it was given, translated to the physical doorbell. */
export function send(context: TestContext, requester: number, pa: number, data: number): number {
  const tx = new Transaction();
  tx.requester = requester;
  tx.paHi = 0;
  tx.paLo = pa | 0;
  tx.data = data;
  return context.bus.store(tx);
}

export const device = (number: number, options = { msix: 4 }): FakeDev =>
  new FakeDev(number, null, 0x4000_0000, options);

export const descs = (dev: FakeDev, count: number, msix = true, first = 0): MsiDesc[] =>
  Array.from({ length: count }, (_, i) => new MsiDesc(dev, msix, first + i, 100 + i));

/** As the type1 window does with one page. */
export const toWindow = (desc: MsiDesc, _doorbell: number): number => prepared(desc, WINDOW, 4096);

/** Allocates, activates and unmasks; the vectors. */
export function enable(parent: MsiParent, dev: FakeDev, vectors: readonly MsiDesc[]): readonly MsiDesc[] {
  const error = parent.allocate(dev, vectors, toWindow);
  if (error !== 0) throw new Error(`allocate answered ${error}`);
  for (const desc of vectors) {
    parent.activate(desc);
    parent.compose(desc, desc.message);
    parent.unmask(desc);
  }
  return vectors;
}

export function disable(parent: MsiParent, dev: FakeDev, vectors: readonly MsiDesc[]): void {
  for (const desc of vectors) {
    parent.mask(desc);
    parent.deactivate(desc);
  }
  parent.free(dev, vectors);
}

export interface ItsHostOptions {
  readonly cpus?: number;
  /** Bits of an LPI's id in hardware, and how many the kernel uses at most. */
  readonly lpiBits?: number;
  readonly maxBits?: number;
  readonly deviceBits?: number;
}

export class ItsHost {
  readonly context = testContext();
  readonly sink = new Recorder();
  readonly gic: Gic;
  readonly its: Its;
  readonly chip: GicIrqChip;
  readonly lpis: LpiTables;
  readonly node: ItsNode;
  readonly parent: ItsMsiParent;

  constructor({ cpus = 2, lpiBits = 16, maxBits, deviceBits = 16 }: ItsHostOptions = {}) {
    const { context } = this;
    const places = { version: 3, distributor: GICD, redistributors: GICR, cpus } as const;
    this.gic = new Gic({ ...places, spis: 64, lpiBits }, context.memory, context.tap);
    this.gic.sink = this.sink;
    this.gic.attach(context.bus);
    this.its = new Its({ base: ITS, deviceBits }, this.gic, context.memory);
    this.its.attach(context.bus);
    this.chip = new GicIrqChip(context, places);
    this.chip.init();
    this.lpis = new LpiTables(context, { ...places, ...(maxBits === undefined ? {} : { maxBits }) });
    if (this.lpis.init() !== 0) throw new Error('no LPIs');
    this.node = new ItsNode(context, ITS, this.lpis);
    if (this.node.init() !== 0) throw new Error('no ITS');
    this.parent = new ItsMsiParent(context, this.node);
  }

  /** The function sends `data` to the doorbell. */
  ring(dev: FakeDev, data: number): void {
    send(this.context, dev.requester, ITS + 0x10040, data);
  }
}

export class V2mHost {
  readonly context = testContext();
  readonly sink = new Recorder();
  readonly gic: Gic;
  readonly chip: GicIrqChip;
  readonly parent: GicV2mMsiParent;

  constructor(frames: readonly V2mOptions[] = [{ base: 0x0802_0000, spiBase: 80, spiCount: 64 }]) {
    const { context } = this;
    this.gic = new Gic({ version: 2, distributor: GICD, spis: 988, cpus: 2 }, context.memory, context.tap);
    this.gic.sink = this.sink;
    this.gic.attach(context.bus);
    for (const frame of frames) new GicV2m(frame, this.gic).attach(context.bus);
    this.chip = new GicIrqChip(context, { version: 2, distributor: GICD, cpus: 2 });
    this.chip.init();
    this.parent = new GicV2mMsiParent(context, this.chip);
    for (const frame of frames) this.parent.addFrame(frame.base);
  }
}
