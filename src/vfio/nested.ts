/** The policy `nested`: user space owns stage 1, in its own memory, over a stage 2 of the kernel's. */
import { getNumber, pack } from '../arch/bits.ts';
import { CD, CD_WORDS, IDR5, MAIR_LINUX, S1Fmt, STE, SteConfig, TG0 } from '../arch/smmuv3/index.ts';
import { hex } from '../ports/address.ts';
import { oneOf, refuseArgument, whole, wholeIova } from './argument.ts';
import type { CdevDevice } from './cdev-device.ts';
import type { DmaBuffer } from './dma-buffer.ts';
import { VfioError } from './error.ts';
import { Hwpt } from './hwpt.ts';
import { Ioas } from './ioas.ts';
import type { IovaRange } from './iommu-info.ts';
import { NestedDoorbell } from './nested-doorbell.ts';
import { Resource } from './resource.ts';
import { STAGE1_KINDS, type Stage1Kind, Stage1Tables, type TablePage } from './stage1-tables.ts';
import { type NestedEvent, type SmmuRegisters, smmuRegisters, VirtualSmmu } from './virtual-smmu.ts';

export interface NestedOptions {
  /** How the virtual SMMU calls the device, in event records and commands; left out: 0. */
  readonly streamId?: number;
  /** Events that the queue holds; left out: 64. */
  readonly events?: number;
  /** Where IOMMU_OPTION_SW_MSI_START and _SIZE moved the device's window for doorbells; left out: where sysfs tells. */
  readonly window?: IovaRange;
}

/** Stages of 48 bits; no IOVA beyond them is needed. */
const INPUT_BITS = 48;
/** IPS and OAS of 48 bits; 6 is 52, for which 64K tables would need another layout. */
const OAS_48 = 5;
/** Of the one address space of a virtual SMMU with one device. */
const ASID = 1;
const CHUNK_PAGES = 16;
/** Walks read through the caches: inner and outer write-back, inner shareable. */
const WRITE_BACK = 1;
const INNER_SHAREABLE = 3;

/**
 * @example
 * using iommufd = Iommufd.open(kernel);
 * const ioas = Ioas.create(iommufd);
 * const device = openDevice(kernel, '0000:01:00.0', ioas);
 * const nested = Nested.attach(device, ioas, { streamId: 0x42 });
 * nested.map(0x10_0000, ipa, 0x1000); // the device's 0x10_0000 is the IOAS's ipa
 * nested.doorbell.set({ iova: 0x7_0000_0000 }); // any IOVA that stage 1 has free
 * const { vectors } = nested.doorbell.enable(3);
 */
export class Nested extends Resource {
  readonly device: CdevDevice;
  readonly ioas: Ioas;
  readonly doorbell: NestedDoorbell;
  readonly #registers: SmmuRegisters;
  readonly #streamId: number;
  readonly #window: IovaRange | null;
  #smmu: VirtualSmmu | null = null;
  #tables: Stage1Tables | null = null;
  readonly #free: TablePage[] = [];
  /** The stage 2, and the stage 1 over it. */
  readonly #made = new Set<unknown>();

  private constructor(
    device: CdevDevice,
    ioas: Ioas,
    registers: SmmuRegisters,
    streamId: number,
    window: IovaRange | null,
  ) {
    super();
    this.device = device;
    this.ioas = ioas;
    this.#registers = registers;
    this.#streamId = streamId;
    this.#window = window;
    this.doorbell = new NestedDoorbell(this);
  }

  /**
   * Puts the device behind a stage 1 of this process's. At first it maps the kernel's doorbell window to itself, and nothing else:
   * DMA is refused until {@link map}, MSIs arrive. The tables lie in the IOAS where the kernel has room, so map first there what
   * must have a certain address. Closing detaches the device; it stays open and bound.
   *
   * @throws VfioError, with everything closed that was made here and the device detached: EOPNOTSUPP on an IOMMU that is no
   * SMMUv3, on one without both stages, and on one with neither S2FWB nor CANWBS
   */
  static attach(device: CdevDevice, ioas: Ioas, options: NestedOptions = {}): Nested {
    const { streamId = 0, events = 64, window = null } = options;
    if (!(ioas instanceof Ioas)) refuseArgument('nested', 'ioas', 'an Ioas', ioas);
    if (window !== null) for (const at of ['start', 'end'] as const) whole(window[at], 'nested', `window.${at}`);
    const registers = smmuRegisters(ioas.iommufd, device);
    const nested = ioas.own(new Nested(device, ioas, registers, streamId, window));
    try {
      nested.#attach(events);
      return nested;
    } catch (error) {
      nested.close();
      throw error;
    }
  }

  get label(): string {
    return `stage 1 of ${this.device.name}`;
  }

  /** How the virtual SMMU calls the device. */
  get streamId(): number {
    return this.#streamId;
  }

  /** Bytes of the smallest mapping. */
  get granule(): number {
    return this.#open('granule').tables.granule;
  }

  /** Where the kernel may have its doorbells: as it was told, else as sysfs tells, which knows of the driver's window alone. */
  get windows(): readonly IovaRange[] {
    if (this.#window !== null) return [this.#window];
    return this.device.reservedRegions.filter(({ type }) => type === 'msi');
  }

  isWindow(iova: number): boolean {
    return this.windows.some(({ start, end }) => start <= iova && iova <= end);
  }

  /** Lets the device's [iova, + length) be the IOAS's [ipa, + length); at once. @throws VfioError EINVAL, EEXIST */
  map(iova: number | bigint, ipa: number | bigint, length: number, kind: Stage1Kind = 'memory'): void {
    const { tables } = this.#open('map');
    oneOf(kind, STAGE1_KINDS, 'stage 1', 'kind');
    tables.map(wholeIova(iova, 'stage 1'), wholeIova(ipa, 'stage 1', 'ipa'), whole(length, 'stage 1', 'length'), kind);
  }

  /** And what the IOMMU remembers of it is gone when this returns. @returns bytes unmapped @throws VfioError EINVAL where a block would be cut */
  unmap(iova: number | bigint, length: number): number {
    const { tables, smmu } = this.#open('unmap');
    const from = wholeIova(iova, 'stage 1');
    const unmapped = tables.unmap(from, whole(length, 'stage 1', 'length'));
    // A long list of pages costs more than what the TLB must read again.
    const few = length <= CHUNK_PAGES * tables.granule;
    if (unmapped > 0 && few) smmu.forget(ASID, from, length, tables.granule);
    else if (unmapped > 0) smmu.forget(ASID);
    return unmapped;
  }

  /** Where the IOAS has what the device calls `iova`, or null. */
  lookup(iova: number | bigint): number | null {
    return this.#open('lookup').tables.lookup(wholeIova(iova, 'stage 1'));
  }

  /** Commands of a virtual SMMU as they are (two words each), for who writes descriptors by hand. @throws VfioError EIO */
  invalidate(commands: readonly (readonly bigint[])[]): void {
    this.#open('invalidate').smmu.invalidate(commands);
  }

  /** What the virtual SMMU had to say since the last call: among others, what stage 1 refused. @throws VfioError */
  events(): readonly NestedEvent[] {
    return this.#open('events').smmu.events();
  }

  protected override release(): void {}

  /** The device first, so that nothing walks tables that go next. */
  protected override closeChildren(): void {
    this.doorbell.close();
    if (!this.device.isClosed && this.#made.has(this.device.table)) this.device.detach();
    super.closeChildren();
    this.#tables = null;
    this.#smmu = null;
  }

  /** Stage 2 goes on first: what the device reserves is then known, and the tables are put elsewhere. */
  #attach(events: number): void {
    const { device, ioas } = this;
    const parent = this.#keep(Hwpt.create(device, ioas, { nestParent: true }));
    this.#move(parent);
    this.#smmu = this.adopt(VirtualSmmu.create(device, parent, this.#streamId, events));
    const entry = this.#buildStage1();
    this.#move(this.#keep(Hwpt.nested(device, ioas, this.#smmu.id, entry)));
  }

  #keep(table: Hwpt): Hwpt {
    this.#made.add(table);
    return this.adopt(table);
  }

  #move(table: Hwpt): void {
    if (this.device.table === null) this.device.attach(table);
    else this.device.replace(table);
  }

  /** Tables with the window, the context descriptor, and the words of the stream table entry that points to it. */
  #buildStage1(): readonly [bigint, bigint] {
    const shift = this.#granuleShift();
    const tables = new Stage1Tables(shift, INPUT_BITS, () => this.#page(2 ** shift));
    this.#tables = tables;
    for (const { start, end } of this.windows) tables.map(start, start, end + 1 - start, 'device');
    const context = this.#page(2 ** shift);
    const walks = { IR0: WRITE_BACK, OR0: WRITE_BACK, SH0: INNER_SHAREABLE };
    const size = Math.min(getNumber([BigInt(this.#registers.idr[5] ?? 0)], IDR5.OAS), OAS_48);
    const words = pack(CD, CD_WORDS, {
      V: 1,
      AA64: 1,
      T0SZ: 64 - INPUT_BITS,
      TG0: TG0[2 ** shift] ?? 0,
      EPD1: 1,
      IPS: size,
      R: 1,
      A: 1,
      ASET: 1,
      ASID,
      MAIR: MAIR_LINUX,
      TTB0: BigInt(tables.root) >> BigInt(CD.TTB0.low),
      ...walks,
    });
    const view = new DataView(context.bytes.buffer, context.bytes.byteOffset);
    for (const [i, word] of words.entries()) view.setBigUint64(i * 8, word, true);
    const [first = 0n, second = 0n] = pack(STE, 2, {
      V: 1,
      Config: SteConfig.S1,
      S1Fmt: S1Fmt.LINEAR,
      S1ContextPtr: BigInt(context.ipa) >> BigInt(STE.S1ContextPtr.low),
      S1CIR: WRITE_BACK,
      S1COR: WRITE_BACK,
      S1CSH: INNER_SHAREABLE,
    });
    return [first, second];
  }

  /** The kernel's page where the SMMU walks such tables, else the smallest that it does. */
  #granuleShift(): number {
    const idr5 = [BigInt(this.#registers.idr[5] ?? 0)];
    const known = [
      [12, IDR5.GRAN4K],
      [14, IDR5.GRAN16K],
      [16, IDR5.GRAN64K],
    ] as const;
    const has = known.filter(([, field]) => getNumber(idr5, field) === 1).map(([shift]) => shift);
    const shift = has.find((candidate) => 2 ** candidate === this.ioas.kernel.pageSize) ?? has[0];
    if (shift !== undefined) return shift;
    const why = `the SMMU of ${this.device.name} walks no tables that are known (IDR5 ${hex(this.#registers.idr[5] ?? 0)})`;
    throw new VfioError({ code: 'EOPNOTSUPP', request: 'IOMMU_GET_HW_INFO', why });
  }

  /** Memory of this process that the IOAS has in one piece: the SMMU finds a table at its address there. */
  #page(size: number): TablePage {
    const page = this.#free.pop();
    if (page !== undefined) return page;
    const chunk: DmaBuffer = this.adopt(this.ioas.mapDma({ length: CHUNK_PAGES * size }));
    for (let at = (CHUNK_PAGES - 1) * size; at >= 0; at -= size) {
      this.#free.push({ bytes: chunk.bytes.subarray(at, at + size), ipa: chunk.iova + at });
    }
    return this.#page(size);
  }

  #open(request: string): { readonly tables: Stage1Tables; readonly smmu: VirtualSmmu } {
    this.assertOpen(request);
    const [tables, smmu] = [this.#tables, this.#smmu];
    if (tables !== null && smmu !== null) return { tables, smmu };
    throw new VfioError({ code: 'EINVAL', request, why: `${this.label} is not attached` });
  }
}
