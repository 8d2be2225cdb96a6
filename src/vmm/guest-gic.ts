/** A guest's software for its GIC: the distributor, SPIs, and MSIs through an ITS or a GICv2m frame. */
import {
  GICD_CTLR,
  GICD_CTLR_ENABLE_GRP0,
  GICD_CTLR_ENABLE_GRP1,
  GICD_ICFGR,
  GICD_IPRIORITYR,
  GICD_IROUTER,
  GICD_ISENABLER,
  GICD_ITARGETSR,
} from '../arch/gic/distributor.ts';
import { V2M_MSI_SETSPI_NS, V2M_MSI_TYPER, v2mTypeBase, v2mTypeCount } from '../arch/gic/v2m.ts';
import type { GuestCpu } from '../ports/guest.ts';
import type { GuestController, GuestInterrupt } from './guest-controller.ts';
import { GuestError } from './guest-error.ts';
import { GuestIts } from './guest-its.ts';
import type { GuestGic as GicMap } from './guest-map.ts';
import type { VirtualMachine } from './vm.ts';

const PRIORITY = 0xa0;

export class GuestGic implements GuestController {
  readonly #vm: VirtualMachine;
  readonly #map: GicMap;
  readonly #cpu: GuestCpu;
  readonly #index: number;
  readonly #its: GuestIts | null;
  readonly #spis = new Set<number>();

  constructor(vm: VirtualMachine, map: GicMap, cpu: GuestCpu, index: number) {
    this.#vm = vm;
    this.#map = map;
    this.#cpu = cpu;
    this.#index = index;
    cpu.mmioWrite(map.distributor + GICD_CTLR, 4, map.version === 3 ? GICD_CTLR_ENABLE_GRP1 : GICD_CTLR_ENABLE_GRP0);
    this.#its = map.its === undefined ? null : new GuestIts(vm, map, cpu, index);
  }

  allocateMsis(device: number, count: number): readonly GuestInterrupt[] {
    if (this.#its !== null) return this.#its.allocate(device, count);
    const frame = this.#map.v2m;
    if (frame === undefined) throw new GuestError('the guest has neither an ITS nor a GICv2m frame');
    return this.#spiBlock(count).map((intid) => {
      this.#enable(intid, false);
      return { cpu: this.#index, intid, message: { address: frame.base + V2M_MSI_SETSPI_NS, data: intid } };
    });
  }

  freeMsis(device: number, interrupts: readonly GuestInterrupt[]): void {
    if (this.#its !== null) this.#its.free(device, interrupts);
    for (const { intid } of interrupts) this.#spis.delete(intid);
  }

  enableLine(gsi: number): { readonly cpu: number; readonly intid: number } {
    this.#enable(gsi + 32, true);
    return { cpu: this.#index, intid: gsi + 32 };
  }

  /** A contiguous, aligned block of the frame's SPIs: plain MSI puts the vector's number into the low bits of its data. */
  #spiBlock(count: number): number[] {
    const typer = this.#vm.v2m?.read(V2M_MSI_TYPER) ?? 0;
    const first = v2mTypeBase(typer);
    const size = 2 ** Math.ceil(Math.log2(count));
    for (let base = Math.ceil(first / size) * size; base + count <= first + v2mTypeCount(typer); base += size) {
      const block = Array.from({ length: count }, (_, i) => base + i);
      if (block.some((intid) => this.#spis.has(intid))) continue;
      for (const intid of block) this.#spis.add(intid);
      return block;
    }
    throw new GuestError(`the guest's GICv2m frame has no ${count} free SPIs`);
  }

  #enable(intid: number, level: boolean): void {
    const { distributor, version } = this.#map;
    const cpu = this.#cpu;
    const shift = (intid % 16) * 2;
    const at = distributor + GICD_ICFGR + Math.floor(intid / 16) * 4;
    const config = (cpu.mmioRead(at, 4) ?? 0) & ~(2 << shift);
    cpu.mmioWrite(at, 4, (config | (level ? 0 : 2 << shift)) >>> 0);
    cpu.mmioWrite(distributor + GICD_IPRIORITYR + intid, 1, PRIORITY);
    if (version === 3) cpu.mmioWrite(distributor + GICD_IROUTER + intid * 8, 4, this.#index);
    else cpu.mmioWrite(distributor + GICD_ITARGETSR + intid, 1, 1 << this.#index);
    cpu.mmioWrite(distributor + GICD_ISENABLER + Math.floor(intid / 32) * 4, 4, (1 << (intid % 32)) >>> 0);
  }
}
