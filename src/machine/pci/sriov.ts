/**
 * SR-IOV of a physical function (PCIe 9): a write of VF Enable makes its virtual functions answer on the bus, each with its slice
 * of the windows that the PF's VF BARs describe. Clearing it, or any reset of the PF, takes them away.
 */
import { Bar, Header, SR_IOV_PAGE_SIZES, SrIov, SrIovControl } from '../../arch/pci/index.ts';
import { fromHalves } from '../../ports/address.ts';
import type { BarSpec, FunctionSpec, PciFunction } from '../../ports/pci.ts';
import type { ConfigSpace, ConfigWatcher } from './config-space.ts';

/** What makes a carried function a virtual one. */
export interface VirtualFunction {
  /** Its PF has VF Enable set, and it is one of NumVFs. */
  isEnabled(): boolean;
  /** Virtual functions have no PASID capability: their PF's rules (PCIe 7.8.9). */
  mayUsePasid(pasid: number): boolean;
  /** Where its BAR is decoded; -1: nowhere. */
  barBase(index: number): number;
}

/** A carried virtual function, as its PF handles it. */
export interface CarriedVf {
  /** Begins or ends to answer on the bus. */
  attach(): void;
  detach(): void;
  /** Its windows or its ability to send changed. */
  placeChanged(): void;
  reset(): void;
}

export interface SriovOwner {
  readonly model: PciFunction;
  /** In D0. */
  readonly isPowered: boolean;
  mayUsePasid(pasid: number): boolean;
  /** The carrier of a VF's model, `distance` routing ids behind the PF; not on the bus yet. */
  carry(model: PciFunction, distance: number, virtual: VirtualFunction): CarriedVf;
}

/** VF BARs are at least this large, so that no system page size that a kernel chooses makes them grow (PCIe 9.3.3.11). */
export const SMALLEST_VF_BAR = 0x1_0000;

type Sriov = NonNullable<FunctionSpec['sriov']>;

export class SriovCapability implements ConfigWatcher {
  readonly spec: Sriov;
  private readonly config: ConfigSpace;
  private readonly offset: number;
  private readonly owner: SriovOwner;
  /** Made at the first need, and kept. */
  private readonly made: CarriedVf[] = [];
  private present = 0;

  constructor(config: ConfigSpace, offset: number, spec: Sriov, owner: SriovOwner) {
    this.config = config;
    this.offset = offset;
    this.spec = spec;
    this.owner = owner;
    const { VF_ENABLE, MEMORY_SPACE_ENABLE } = SrIovControl;
    config.allow(offset + SrIov.CONTROL, 2, VF_ENABLE | MEMORY_SPACE_ENABLE);
    config.allow(offset + SrIov.NUM_VFS, 2, 0xffff);
    config.allow(offset + SrIov.SYSTEM_PAGE_SIZE, 4, SR_IOV_PAGE_SIZES);
    spec.bars.forEach((bar, index) => {
      if (bar === null) return;
      const at = offset + SrIov.VF_BAR0 + 4 * index;
      config.allow(at, 4, (bar.size >= 2 ** 32 ? 0 : -bar.size) & ~0xf);
      if (bar.type === 'memory64') config.allow(at + 4, 4, bar.size >= 2 ** 32 ? -(bar.size / 2 ** 32) : -1);
    });
    config.watch(offset + SrIov.CONTROL, SrIov.MIGRATION_STATE - SrIov.CONTROL, this);
  }

  /** Bytes that the VF BAR takes in the address space: one slice for each VF that could be. */
  windowSize(index: number): number {
    return (this.spec.bars[index]?.size ?? 0) * this.spec.totalVfs;
  }

  /** Firmware's write of an address. */
  program(index: number, address: number): void {
    const at = this.offset + SrIov.VF_BAR0 + 4 * index;
    this.config.write(at, 4, address | 0);
    if (this.spec.bars[index]?.type === 'memory64') this.config.write(at + 4, 4, Math.floor(address / 2 ** 32));
  }

  written(): void {
    this.refresh();
  }

  /** The PF was reset, moved or changed its power state. */
  refresh(): void {
    const wanted = this.enabledVfs;
    while (this.present > wanted) {
      this.present -= 1;
      const vf = this.made[this.present];
      vf.detach();
      vf.placeChanged();
    }
    for (let i = 0; i < this.present; i += 1) this.made[i].placeChanged();
    while (this.present < wanted) {
      const vf = this.made[this.present] ?? this.make(this.present);
      this.present += 1;
      vf.reset();
      vf.attach();
    }
  }

  private get control(): number {
    return this.config.read(this.offset + SrIov.CONTROL, 2);
  }

  private get enabledVfs(): number {
    if ((this.control & SrIovControl.VF_ENABLE) === 0) return 0;
    return Math.min(this.config.read(this.offset + SrIov.NUM_VFS, 2), this.spec.totalVfs);
  }

  private make(index: number): CarriedVf {
    const { owner, spec } = this;
    const model = owner.model.virtualFunction?.(index);
    if (model === undefined)
      throw new RangeError(`${owner.model.spec.name}: sriov: the model makes no virtual functions`);
    checkAgreement(owner.model.spec, model.spec);
    const carried = owner.carry(model, spec.offset + spec.stride * index, {
      isEnabled: () => index < this.present && owner.isPowered,
      mayUsePasid: (pasid) => owner.mayUsePasid(pasid),
      barBase: (bar) => this.barBase(bar, index),
    });
    this.made.push(carried);
    return carried;
  }

  /** Slice `vf` of the window that the VF BAR opens, while VF MSE is set. */
  private barBase(index: number, vf: number): number {
    const bar = this.spec.bars[index] ?? null;
    if (bar === null || vf >= this.present || !this.owner.isPowered) return -1;
    if ((this.control & SrIovControl.MEMORY_SPACE_ENABLE) === 0) return -1;
    const at = this.offset + SrIov.VF_BAR0 + 4 * index;
    const high = bar.type === 'memory64' ? this.config.read(at + 4, 4) | 0 : 0;
    const base = fromHalves(high, this.config.read(at, 4) & ~0xf);
    return base === 0 ? -1 : base + vf * bar.size;
  }
}

/** The power-on bytes of the capability at `offset`, without its header. */
export function writeSriov(config: ConfigSpace, offset: number, spec: Sriov): void {
  config.set(offset + SrIov.INITIAL_VFS, 2, spec.totalVfs);
  config.set(offset + SrIov.TOTAL_VFS, 2, spec.totalVfs);
  config.set(offset + SrIov.VF_OFFSET, 2, spec.offset);
  config.set(offset + SrIov.VF_STRIDE, 2, spec.stride);
  config.set(offset + SrIov.VF_DEVICE_ID, 2, spec.vfDeviceId);
  config.set(offset + SrIov.SUPPORTED_PAGE_SIZES, 4, SR_IOV_PAGE_SIZES);
  config.set(offset + SrIov.SYSTEM_PAGE_SIZE, 4, 1);
  spec.bars.forEach((bar, index) => {
    if (bar === null) return;
    const bits = (bar.type === 'memory64' ? Bar.TYPE_64 : 0) | (bar.prefetchable === true ? Bar.PREFETCHABLE : 0);
    config.set(offset + SrIov.VF_BAR0 + 4 * index, 4, bits);
  });
}

/** What software can change in the header of a VF: bus mastering alone; ids and BARs are the PF's to tell (PCIe 9.3.4). */
export function restrictVfHeader(config: ConfigSpace): void {
  config.set(Header.VENDOR_ID, 4, 0xffff_ffff);
  config.set(Header.INTERRUPT_PIN, 1, 0);
  config.bytes.fill(0, Header.BAR0, Header.BAR0 + 24);
}

/** @throws RangeError naming the field of the declaration that cannot be. */
export function checkSriov(spec: FunctionSpec): void {
  const { sriov } = spec;
  if (sriov === undefined) return;
  const fail = (field: string, why: string): never => {
    throw new RangeError(`${spec.name}: sriov.${field}: ${why}`);
  };
  if (spec.express === undefined) fail('totalVfs', 'SR-IOV is a part of PCI Express, and the function has no express');
  if (!(Number.isInteger(sriov.totalVfs) && sriov.totalVfs >= 1 && sriov.totalVfs <= 255))
    fail('totalVfs', `expected 1 to 255, got ${sriov.totalVfs}`);
  if (!(Number.isInteger(sriov.offset) && sriov.offset >= 1))
    fail('offset', `expected at least 1, got ${sriov.offset}`);
  if (!(Number.isInteger(sriov.stride) && sriov.stride >= 1))
    fail('stride', `expected at least 1, got ${sriov.stride}`);
  if (sriov.offset + sriov.stride * (sriov.totalVfs - 1) > 255)
    fail('totalVfs', `VF ${sriov.totalVfs - 1} would leave the bus of its PF, which is not built`);
  sriov.bars.forEach((bar, index) => {
    if (bar === null) return;
    if (bar.type === 'io') fail(`bars[${index}]`, 'a virtual function has no I/O BARs');
    if (!Number.isInteger(Math.log2(bar.size)) || bar.size < SMALLEST_VF_BAR)
      fail(`bars[${index}].size`, `expected a power of two from ${SMALLEST_VF_BAR}, got ${bar.size}`);
  });
}

/** A VF model has the BARs that its PF declares for it. */
function checkAgreement(pf: FunctionSpec, vf: FunctionSpec): void {
  const shape = (bar: BarSpec | null | undefined): string =>
    bar == null ? 'none' : `${bar.type} of ${bar.size} bytes`;
  for (let index = 0; index < 6; index += 1) {
    const [declared, made] = [shape(pf.sriov?.bars[index]), shape(vf.bars[index])];
    if (declared !== made)
      throw new RangeError(`${vf.name}: bars[${index}]: the physical function says ${declared}, the model has ${made}`);
  }
}
