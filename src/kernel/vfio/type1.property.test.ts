import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/vfio.ts';
import { testMemory } from '../test-context.ts';
import type { MapDomain } from './test-host.ts';
import { attachedHost, mapDma, unmapDma, WRITE } from './test-requests.ts';

const PAGE = 4096;
/** Pages of the buffer; a map of more than what is left of it faults. */
const BUFFER = 24;
/** IOVAs of the programs straddle the lower edge of the SW_MSI window, which begins at page 0x8000. */
const BASE = 0x7fe0;
const WINDOW = 0x8000;

interface Mapping {
  readonly iova: number;
  readonly pages: number;
  readonly from: number;
}

/** MAP_DMA and UNMAP_DMA as vfio_iommu_type1.c say, on pages, over a plain list. */
class Model {
  list: Mapping[] = [];
  readonly v2: boolean;

  constructor(v2: boolean) {
    this.v2 = v2;
  }

  map(iova: number, from: number, pages: number): number {
    if (pages === 0) return -22;
    if (this.touching(iova, pages).length > 0) return -17;
    if (iova + pages > WINDOW) return -22;
    if (from + pages > BUFFER) return -14;
    this.list.push({ iova, pages, from });
    return 0;
  }

  unmap(iova: number, pages: number): number {
    if (pages === 0) return -22;
    const found = this.touching(iova, pages);
    if (this.v2 && found.some((m) => m.iova < iova || m.iova + m.pages > iova + pages)) return -22;
    if (found.some((m) => m.iova < iova)) return 0;
    this.list = this.list.filter((m) => !found.includes(m));
    return found.reduce((sum, m) => sum + m.pages, 0);
  }

  private touching(iova: number, pages: number): Mapping[] {
    return this.list.filter((m) => m.iova < iova + pages && iova < m.iova + m.pages);
  }
}

const step = fc.record({
  what: fc.constantFrom('map', 'map', 'unmap'),
  iova: fc.integer({ min: BASE, max: WINDOW + 2 }),
  from: fc.integer({ min: 0, max: BUFFER - 1 }),
  pages: fc.integer({ min: 0, max: 9 }),
});

/** What the device can reach: the frame under each IOVA page. */
function reachable(domain: MapDomain, frame: number): [number, number][] {
  return [...domain.pages]
    .map(([iova, page]): [number, number] => [iova / PAGE, (page.pa - frame) / PAGE])
    .sort((a, b) => a[0] - b[0]);
}

function run(v2: boolean, runs: number): void {
  const memory = testMemory();
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40, size: 'max' }), fc.boolean(), (steps, byExit) => {
      const host = attachedHost({ v1: !v2, memory });
      const { client, container, context, type1 } = host;
      host.memory.free();
      const empty = context.memory.allocated;
      const buffer = client.process.memory.allocate(BUFFER * PAGE);
      const domain = host.groups[0].domain as MapDomain;
      const model = new Model(v2);
      const pinned = client.process.memory.pin(buffer, PAGE, true);
      if (typeof pinned === 'number') throw new Error('the buffer is not there');
      const frame = pinned.runs[0].pa;
      pinned.release();
      for (const { what, iova, from, pages } of steps) {
        if (what === 'map') {
          expect(mapDma(client, container, iova * PAGE, buffer + from * PAGE, pages * PAGE, WRITE)).toBe(
            model.map(iova, from, pages),
          );
        } else {
          const expected = model.unmap(iova, pages);
          expect(unmapDma(client, container, iova * PAGE, pages * PAGE)).toBe(
            expected < 0 ? expected : expected * PAGE,
          );
        }
      }
      const expected = model.list.flatMap((m) =>
        Array.from({ length: m.pages }, (_, i): [number, number] => [m.iova + i, m.from + i]),
      );
      expect(reachable(domain, frame)).toEqual(expected.sort((a, b) => a[0] - b[0]));
      expect(client.process.lockedPages).toBe(expected.length);
      expect(type1.dmaAvail).toBe(65535 - model.list.length);
      client.process.memory.unmap(buffer);
      expect(context.memory.allocated - empty).toBe(expected.length > 0 ? BUFFER * PAGE : 0);
      if (byExit) client.kernel.exit(client.process);
      else expect(unmapDma(client, container, 0, 0, uapi.VFIO_DMA_UNMAP_FLAG_ALL)).toBe(expected.length * PAGE);
      expect([client.process.lockedPages, domain.pages.size, type1.dmas.size, type1.dmaAvail]).toEqual([
        0, 0, 0, 65535,
      ]);
      if (!byExit) client.kernel.exit(client.process);
      expect(memory.allocated).toBe(0);
    }),
    { numRuns: runs },
  );
}

describe('random programs of MAP_DMA and UNMAP_DMA', () => {
  it('answer, reach and charge as the model does with v2, and leave nothing', () => run(true, 1000));
  it('answer, reach and charge as the model does with v1, and leave nothing', () => run(false, 1000));
});
