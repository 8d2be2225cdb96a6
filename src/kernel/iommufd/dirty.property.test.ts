/** Random programs of DMA, mappings and dirty tracking: the bitmap says what a model of leaves says. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { BellDma, BellRegister } from '../../devices/index.ts';
import * as uapi from '../../uapi/iommufd.ts';
import { allocate } from './testing.ts';
import { CdevLab } from './testing-machine.ts';

const PAGE = 4096;
const BLOCK = 2 ** 21;
const BASE = 0x100_0000;
/** Two areas of pages that touch, one behind a hole, and two blocks. */
const AREAS = [
  { iova: BASE, leaf: PAGE, leaves: 5 },
  { iova: BASE + 5 * PAGE, leaf: PAGE, leaves: 3 },
  { iova: BASE + 10 * PAGE, leaf: PAGE, leaves: 2 },
  { iova: BASE + BLOCK, leaf: BLOCK, leaves: 2 },
] as const;

const where = fc.record({ area: fc.nat(AREAS.length - 1), leaf: fc.nat(4), offset: fc.nat(1023) });
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ op: fc.constant('write' as const), at: where }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('read' as const), at: where }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constantFrom('map' as const, 'unmap' as const), area: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constantFrom('on' as const, 'off' as const) }) },
  { weight: 5, arbitrary: fc.record({ op: fc.constant('get' as const), area: fc.nat(3), clear: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('get all' as const), clear: fc.boolean() }) },
);

class Rig {
  readonly lab = new CdevLab('arm-its');
  readonly bitmap = allocate(this.lab.client, PAGE);
  readonly memory = AREAS.map(({ leaf, leaves }) => allocate(this.lab.client, leaf * leaves).address);
  /** Of each area: null while it is not mapped, else which leaves are dirty. */
  model: (boolean[] | null)[] = AREAS.map(() => null);

  constructor() {
    const { lab } = this;
    const dev = lab.bind(0) as number;
    const ioas = lab.iommufd.ioas();
    const hwpt = lab.iommufd.hwpt(dev, ioas, uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING) as number;
    lab.iommufd.attach(lab.devices[0]!, hwpt);
  }

  reset(): void {
    for (const area of AREAS.keys()) this.unmap(area);
  }

  map(area: number): void {
    const { iova, leaf, leaves } = AREAS[area]!;
    const answer = this.lab.iommufd.mapAt(2, iova, this.memory[area]!, leaf * leaves);
    if (answer !== (this.model[area] === null ? 0 : 'EEXIST')) throw new Error(`map ${area}: ${answer}`);
    // A fresh descriptor can be written and is not clean.
    this.model[area] ??= new Array<boolean>(leaves).fill(true);
  }

  unmap(area: number): void {
    const { iova, leaf, leaves } = AREAS[area]!;
    this.lab.iommufd.unmap(2, iova, leaf * leaves);
    this.model[area] = null;
  }

  dma({ area, leaf, offset }: { area: number; leaf: number; offset: number }, write: boolean): void {
    const { iova, leaf: bytes, leaves } = AREAS[area]!;
    const at = iova + (leaf % leaves) * bytes + offset * 4;
    const register = (to: number, value: number): unknown =>
      this.lab.client.pwrite(this.lab.devices[0]!, new Uint8Array(Int32Array.of(value).buffer), to);
    register(BellRegister.DMA_IOVA_LO, at);
    register(BellRegister.DMA_LENGTH, 4);
    register(BellRegister.DMA_COMMAND, BellDma.START | (write ? BellDma.TO_MEMORY : 0));
    this.lab.client.settle();
    const known = this.model[area];
    if (write && known != null) known[leaf % leaves] = true;
  }

  set(enable: boolean): void {
    const fields = { hwpt_id: 3, flags: enable ? 1 : 0 };
    const { iommufd } = this.lab;
    expect(iommufd.call(uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, uapi.iommu_hwpt_set_dirty_tracking, fields).result).toBe(0);
    if (enable) for (const known of this.model) known?.fill(false);
  }

  /** Areas that follow each other without a hole from the first one on, and the range from there to the end of the last. */
  get(first: number, length: number, clear: boolean): void {
    const { iova } = AREAS[first]!;
    this.bitmap.bytes.fill(0);
    const fields = { hwpt_id: 3, flags: clear ? 0 : 1, iova, length, page_size: PAGE, data: this.bitmap.address };
    const { iommufd } = this.lab;
    const { result } = iommufd.call(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP, uapi.iommu_hwpt_get_dirty_bitmap, fields);
    const expected = new Uint8Array(PAGE);
    let reached = iova;
    for (const [area, { iova: start, leaf, leaves }] of AREAS.entries()) {
      const known = this.model[area];
      if (known == null || start !== reached || start >= iova + length) continue;
      reached += leaf * leaves;
      for (const [i, dirty] of known.entries()) {
        const from = (start + i * leaf - iova) / PAGE;
        if (dirty) for (let bit = from; bit < from + leaf / PAGE; bit++) expected[bit >> 3]! |= 1 << (bit & 7);
        if (clear) known[i] = false;
      }
    }
    const differs = expected.findIndex((byte, i) => byte !== this.bitmap.bytes[i]);
    if (result !== 0 || differs >= 0) {
      throw new Error(
        `get ${first}: ${result}; byte ${differs} is ${this.bitmap.bytes[differs]}, not ${expected[differs]}`,
      );
    }
  }
}

it('the bitmap says which leaves were written since they were mapped or made clean', { timeout: 30_000 }, () => {
  const rig = new Rig();
  const seen = { dirty: 0, faults: 0 };
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      rig.reset();
      for (const each of steps) {
        if (each.op === 'write' || each.op === 'read') rig.dma(each.at, each.op === 'write');
        else if (each.op === 'map') rig.map(each.area);
        else if (each.op === 'unmap') rig.unmap(each.area);
        else if (each.op === 'get') rig.get(each.area, AREAS[each.area]!.leaf * AREAS[each.area]!.leaves, each.clear);
        else if (each.op === 'get all') rig.get(0, 5 * BLOCK, each.clear);
        else rig.set(each.op === 'on');
        seen.dirty += rig.model.flat().filter((dirty) => dirty === true).length;
      }
    }),
    { numRuns: 1000 },
  );
  expect(seen.dirty).toBeGreaterThan(1000);
  expect(rig.lab.faults).toBeGreaterThan(100);
});
