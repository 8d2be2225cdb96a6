/**
 * The doorbell of a device whose stage 1 is user space's: any IOVA, mapped onto the page of the kernel's window in stage 2. The
 * vectors carry it because the kernel was told (PREPARE), or because their entries are rewritten through the mapped table.
 */

import { CapabilityId } from '../arch/pci/capability.ts';
import { MSIX_BAR_MASK, Msix, MsixEntry, msixTableSize, msixVectors } from '../arch/pci/msix.ts';
import { hex } from '../ports/address.ts';
import { VFIO_IRQ_SET_ACTION_PREPARE, VFIO_IRQ_SET_DATA_MSI_IOVA } from '../uapi/belfry.ts';
import { VFIO_DEVICE_SET_IRQS, VFIO_IRQ_SET_DATA_NONE, vfio_irq_set } from '../uapi/vfio-irq.ts';
import { oneOf, refuseArgument, wholeIova } from './argument.ts';
import { roundDown, roundUp } from './choose-iova.ts';
import { VfioError } from './error.ts';
import type { Enabled, InterruptsInfo } from './interrupts.ts';
import type { Nested } from './nested.ts';
import type { RegionMapping } from './region-mapping.ts';

/** `prepare`: the kernel programs the vectors so. `table`: the library rewrites their entries. */
export const CARRIERS = ['prepare', 'table'] as const;
export type Carrier = (typeof CARRIERS)[number];

const REQUEST = 'nested doorbell';

export interface NestedDoorbellChoice {
  readonly kind?: 'msi' | 'msix';
  /** Rounded down to the page: the low bits are the physical doorbell's. */
  readonly iova: number | bigint;
  /** Left out: `prepare` where the kernel has it and the vectors are not enabled yet, else `table`. */
  readonly by?: Carrier;
}

export interface NestedDoorbellState {
  /** First byte of the page that the vectors write to. */
  readonly iova: number;
  /** The page of the kernel's window, in the IOAS. */
  readonly window: number;
  /** `window`: the page is the kernel's own, which vectors carry without anybody's doing. */
  readonly by: Carrier | 'window';
}

export class NestedDoorbell {
  readonly #nested: Nested;
  #state: (NestedDoorbellState & { readonly kind: 'msi' | 'msix' }) | null = null;
  #table: { readonly mapping: RegionMapping; readonly offset: number; readonly vectors: number } | null = null;

  /** Made by {@link Nested}. */
  constructor(nested: Nested) {
    this.#nested = nested;
  }

  /** What {@link set} made, or null: the vectors carry the kernel's window, which stage 1 maps to itself. */
  get state(): NestedDoorbellState | null {
    return this.#state;
  }

  /**
   * Maps the page of `iova` onto the window's, and lets the vectors carry it: those that are enabled at once, others from their
   * {@link enable} on. Stage 1 goes on mapping the window to itself, since the kernel writes its own address into an entry when it
   * is enabled, restored or moved: until {@link repair} the interrupt then arrives by the window.
   *
   * @throws VfioError: EEXIST when stage 1 has something there; EOPNOTSUPP for plain MSI on a kernel without PREPARE, whose address
   * lies in configuration space, and for an MSI-X table that cannot be mapped; EBUSY for `prepare` while the vectors are enabled,
   * and while vectors are enabled that an earlier `prepare` placed
   */
  set({ kind = 'msix', iova, by }: NestedDoorbellChoice): NestedDoorbellState {
    const nested = this.#nested;
    nested.assertOpen('doorbell.set');
    const page = roundDown(wholeIova(iova, REQUEST), nested.granule);
    if (kind !== 'msi' && kind !== 'msix') refuseArgument(REQUEST, 'kind', 'one of msi, msix', kind);
    if (by !== undefined) oneOf(by, CARRIERS, REQUEST, 'by');
    if (kind === 'msix') this.#assertMsix();
    this.#assertFree(page);
    this.clear();
    const readable = kind === 'msix' && this.#tablePlace().mappable;
    const window = readable ? this.#windowOfTable() : this.#windowOfRegions();
    if (nested.lookup(window) === null) nested.map(window, window, nested.granule, 'device');
    const own = page !== window;
    if (own) this.#place(page, window);
    try {
      const carrier = !own ? 'window' : by === 'table' ? by : this.#prepare(kind, page, by === 'prepare');
      if (!readable && carrier === 'table') throw kind === 'msi' ? this.#noTableOfMsi() : this.#noTable();
      this.#state = { kind, iova: page, window, by: carrier };
    } catch (error) {
      if (own) this.#displace(page);
      throw error;
    }
    this.repair();
    return this.#state;
  }

  /** The vectors carry the kernel's window again. @throws VfioError EBUSY while vectors are enabled that PREPARE placed: the kernel has their addresses */
  clear(): void {
    const state = this.#state;
    if (state === null) return;
    if (state.by === 'prepare') {
      this.#refuseEnabled(state.kind);
      this.#request(state.kind, null);
    }
    this.#state = null;
    if (state.iova === state.window) return;
    if (state.by === 'table' && this.#isEnabled('msix')) this.#rewrite(state.iova, state.window);
    this.#displace(state.iova);
  }

  /** `device.msix.enable`, with the doorbell in the entries. @throws VfioError */
  enable(count?: number, options?: { readonly minimum?: number }): Enabled {
    const enabled = this.#nested.device.msix.enable(count, options);
    this.repair();
    return enabled;
  }

  /** As `device.msix`, for a VMM with eventfds of its own: whatever the kernel programs is repaired before this returns. */
  get interrupts(): {
    info(): InterruptsInfo;
    program(start: number, fds: readonly number[]): number;
    disable(): void;
  } {
    const { msix } = this.#nested.device;
    return {
      info: () => msix.info(),
      program: (start, fds) => {
        const short = msix.program(start, fds);
        if (short === 0) this.repair();
        return short;
      },
      disable: () => msix.disable(),
    };
  }

  /**
   * Rewrites the entries that hold the window's page: after a reset, or whenever the kernel may have programmed vectors. With
   * PREPARE there are none. @returns how many were
   */
  repair(): number {
    const state = this.#state;
    if (state === null || state.kind === 'msi' || state.iova === state.window || !this.#tablePlace().mappable) return 0;
    return this.#nested.device.msix.enabled ? this.#rewrite(state.window, state.iova) : 0;
  }

  /** The kernel keeps neither mapping nor entry; called by {@link Nested}. */
  close(): void {
    const state = this.#state;
    this.#state = null;
    if (state?.by === 'prepare' && !this.#nested.device.isClosed) this.#request(state.kind, null);
    this.#table?.mapping.close();
    this.#table = null;
  }

  /** Before the earlier choice goes. @throws VfioError EEXIST */
  #assertFree(page: number): void {
    const nested = this.#nested;
    const ipa = page === this.#state?.iova || nested.isWindow(page) ? null : nested.lookup(page);
    if (ipa === null) return;
    const why = `stage 1 maps ${hex(page)} to ${hex(ipa)}`;
    throw new VfioError({ code: 'EEXIST', request: REQUEST, why, field: 'iova', hint: 'choose another' });
  }

  /** A page of the window that is not the doorbell's may be chosen as any other: the guest's own MSI address may lie there. */
  #place(page: number, window: number): void {
    const nested = this.#nested;
    if (nested.isWindow(page) && nested.lookup(page) === page) nested.unmap(page, nested.granule);
    nested.map(page, window, nested.granule, 'device');
  }

  #displace(page: number): void {
    const nested = this.#nested;
    nested.unmap(page, nested.granule);
    if (nested.isWindow(page)) nested.map(page, page, nested.granule, 'device');
  }

  /** Each entry is masked while its address changes: what the device raises meanwhile waits in its pending bit. */
  #rewrite(from: number, to: number): number {
    const { mapping, offset, vectors } = this.#openTable();
    const { granule } = this.#nested;
    let changed = 0;
    for (let i = 0; i < vectors; i++) {
      const at = offset + i * MsixEntry.SIZE;
      const address = addressAt(mapping, at);
      if (roundDown(address, granule) !== from) continue;
      const control = mapping.read32(at + MsixEntry.CONTROL);
      const wanted = to + (address - from);
      mapping.write32(at + MsixEntry.CONTROL, (control | MsixEntry.MASKED) >>> 0);
      mapping.write32(at + MsixEntry.ADDRESS_LO, wanted % 2 ** 32);
      mapping.write32(at + MsixEntry.ADDRESS_HI, Math.floor(wanted / 2 ** 32));
      mapping.write32(at + MsixEntry.CONTROL, control);
      changed++;
    }
    return changed;
  }

  /** The page that the kernel programs: read where it programmed it, for which one vector is enabled for a moment if none is. */
  #windowOfTable(): number {
    const { device, granule } = this.#nested;
    const { msix } = device;
    const already = msix.enabled;
    if (!already && msix.program(0, [-1]) !== 0) {
      const why = 'the host has no vector left, so the page of its window cannot be read';
      throw new VfioError({ code: 'ENOSPC', request: 'VFIO_DEVICE_SET_IRQS', why });
    }
    try {
      const { mapping, offset } = this.#openTable();
      return roundDown(addressAt(mapping, offset), granule);
    } finally {
      if (!already) msix.disable();
    }
  }

  /** Plain MSI, and a table that cannot be mapped, show their address to nobody; the first page of the window is the first that a context hands out. */
  #windowOfRegions(): number {
    const [region] = this.#nested.windows;
    if (region !== undefined) return region.start;
    throw unsupported(`the group of ${this.#nested.device.name} shows no window`, 'kind');
  }

  #openTable() {
    if (this.#table !== null && !this.#table.mapping.isClosed) return this.#table;
    const { bar, start, end, offset, vectors, mappable } = this.#tablePlace();
    if (!mappable) throw this.#noTable();
    this.#table = { mapping: bar.map(start, end - start), offset, vectors };
    return this.#table;
  }

  /** The pages of its BAR that the table lies in: all of a BAR that is smaller than a page. */
  #tablePlace() {
    const { device, ioas } = this.#nested;
    const { config } = device;
    const capability = config.find(CapabilityId.MSIX) ?? 0;
    const vectors = msixVectors(config.read16(capability + Msix.FLAGS));
    const where = config.read32(capability + Msix.TABLE);
    const at = (where & ~MSIX_BAR_MASK) >>> 0;
    const bar = device.bar(where & MSIX_BAR_MASK);
    const page = ioas.kernel.pageSize;
    const start = roundDown(at, page);
    const end = Math.min(roundUp(at + msixTableSize(vectors), page), bar.size);
    return { bar, start, end, offset: at - start, vectors, mappable: bar.info.mappable };
  }

  #assertMsix(): void {
    const { device } = this.#nested;
    if (device.config.find(CapabilityId.MSIX) !== null) return;
    throw unsupported(`${device.name} has no MSI-X`, 'kind', "kind: 'msi' takes the window that sysfs tells of");
  }

  #noTable(): VfioError {
    const why = `the MSI-X table of ${this.#nested.device.name} cannot be mapped, and what is written through the file is dropped`;
    return unsupported(why, 'iova', 'leave the vectors at the window, which stage 1 maps to itself');
  }

  /** A kernel without it refuses a flag or an action that it does not know. */
  #prepare(kind: 'msi' | 'msix', page: number, must: boolean): Carrier {
    if (must) this.#refuseEnabled(kind);
    else if (this.#isEnabled(kind)) return 'table';
    if (this.#request(kind, page) >= 0) return 'prepare';
    if (must)
      throw unsupported('this kernel has no VFIO_IRQ_SET_ACTION_PREPARE', 'by', "by: 'table' rewrites the entries");
    return 'table';
  }

  /** All vectors of the kind from their next enable on; null un-sets them. 0 or -errno. */
  #request(kind: 'msi' | 'msix', page: number | null): number {
    const { device } = this.#nested;
    const interrupts = device.interrupts(kind);
    const { count } = interrupts.info();
    const payload = new Uint8Array(page === null ? 0 : count * 8);
    const view = new DataView(payload.buffer);
    if (page !== null) for (let i = 0; i < count; i++) view.setBigUint64(i * 8, BigInt(page), true);
    const argsz = vfio_irq_set.size + payload.length;
    const bytes = new Uint8Array(argsz);
    const data = page === null ? VFIO_IRQ_SET_DATA_NONE : VFIO_IRQ_SET_DATA_MSI_IOVA;
    vfio_irq_set.patch(bytes, {
      argsz,
      flags: VFIO_IRQ_SET_ACTION_PREPARE | data,
      index: interrupts.index,
      start: 0,
      count,
    });
    bytes.set(payload, vfio_irq_set.size);
    return this.#nested.ioas.kernel.ioctl(device.fd, VFIO_DEVICE_SET_IRQS, bytes);
  }

  #isEnabled(kind: 'msi' | 'msix'): boolean {
    return this.#nested.device.interrupts(kind).enabled;
  }

  #refuseEnabled(kind: 'msi' | 'msix'): void {
    if (!this.#isEnabled(kind)) return;
    const why = `${kind} is enabled, and PREPARE holds from the next enable on`;
    const hint = "disable it first, or use by: 'table'";
    throw new VfioError({ code: 'EBUSY', request: REQUEST, why, field: 'by', hint });
  }

  #noTableOfMsi(): VfioError {
    const { device } = this.#nested;
    const why = `the MSI address of ${device.name} lies in configuration space, which the kernel keeps, and this kernel has no VFIO_IRQ_SET_ACTION_PREPARE`;
    return unsupported(why, 'kind', 'leave the vectors at the window, which stage 1 maps to itself, or use MSI-X');
  }
}

const unsupported = (why: string, field: string, hint?: string): VfioError =>
  new VfioError({ code: 'EOPNOTSUPP', request: REQUEST, why, field, hint });

const addressAt = (mapping: RegionMapping, at: number): number =>
  mapping.read32(at + MsixEntry.ADDRESS_HI) * 2 ** 32 + mapping.read32(at + MsixEntry.ADDRESS_LO);
