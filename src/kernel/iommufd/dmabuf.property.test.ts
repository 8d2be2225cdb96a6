/**
 * Random programs of exporting, mapping, copying and unmapping dma-bufs, while their owner turns decoding off, sleeps, resets and closes, against a
 * plain model: who is revoked, what each page table has, who holds a file. BELFRY_PROGRAMS=50 runs ten thousand.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Prot } from '../../ports/iommu.ts';
import * as uapi from '../../uapi/iommufd.ts';
import { vfio_device_feature_dma_buf as layout, VFIO_DEVICE_RESET, vfio_region_dma_range } from '../../uapi/vfio.ts';
import { DmaBufFile } from '../dma-buf.ts';
import { fileCount } from '../files.ts';
import { testMemory } from '../test-context.ts';
import type { MapDomain } from '../vfio/test-host.ts';
import { Rig } from '../vfio-pci/testing/rig.ts';
import { attachedHost, FIXED, READ, WRITE } from './testing.ts';

const PROGRAMS = 200 * Number(process.env['BELFRY_PROGRAMS'] ?? 1);
const PAGE = 4096;
const BAR_PAGES = 4;
const BAR = 0x60_0000_0000;
const GET_DMA_BUF = 0x1_000b;
const SET = 0x2_0000;
const COMMAND = 4;
const DEVICE_MEMORY = Prot.READ | Prot.WRITE | Prot.MMIO;
/** The device of attachedHost. */
const DEVICE = 2;
/** A descriptor that no program here opens. */
const CLOSED = 900;

const which = fc.nat({ max: 11 });
/** Low ones are most: what is to be mapped lies in the BAR more often than not. */
const page = fc.nat({ max: 8 }).map((n) => Math.max(0, n - 5));
const at = fc.integer({ min: 16, max: 40 });
/** Decoding on is the usual state. */
const mostly = fc.nat({ max: 3 }).map((n) => n > 0);

const step = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ op: fc.constant('export' as const), from: page, pages: fc.integer({ min: 1, max: 4 }) }),
  },
  {
    weight: 12,
    arbitrary: fc.record({
      op: fc.constant('map' as const),
      which,
      from: page,
      pages: fc.integer({ min: 1, max: 3 }),
      at,
    }),
  },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('copy' as const), which, at }) },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('unmap' as const), which }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('close' as const), which }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('table' as const), which }) },
  { weight: 5, arbitrary: fc.record({ op: fc.constant('memory' as const), on: mostly }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('power' as const), on: mostly }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('low power' as const), on: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('reset' as const) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('reopen' as const) }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

interface Buf {
  readonly file: DmaBufFile;
  fd: number;
  readonly from: number;
  readonly pages: number;
  open: boolean;
  revoked: boolean;
  /** Its device was closed: it never comes back. */
  dead: boolean;
}

/** One import: what was mapped, and shared by the copies of it. */
interface Import {
  readonly buf: Buf;
  revoked: boolean;
}

interface ModelArea {
  readonly at: number;
  readonly pages: number;
  /** Page of the BAR under `at`. */
  readonly from: number;
  readonly of: Import;
}

const pick = <T>(list: readonly T[], which: number): T | undefined => list[which % Math.max(1, list.length)];

class Program {
  readonly rig: Rig;
  readonly host: ReturnType<typeof attachedHost>;
  readonly bufs: Buf[] = [];
  areas: ModelArea[] = [];
  readonly tables: { readonly id: number; readonly domain: MapDomain }[] = [];
  memory = true;
  asleep = false;
  engaged = false;
  readonly power: number;

  /** Rig and memory serve many programs: each takes tens of milliseconds to make. */
  constructor(rig: Rig, memory: ReturnType<typeof testMemory>) {
    this.rig = rig.open();
    this.host = attachedHost({ memory });
    this.power = this.rig.dev.capability(1) + 4;
    this.rig.setConfig(COMMAND, 2, 6);
    this.tables.push({ id: 3, domain: this.host.groups[0]!.made.at(-1)! });
    this.export(0, BAR_PAGES);
  }

  get enabled(): boolean {
    return this.memory && !this.asleep;
  }

  run(each: Step): void {
    switch (each.op) {
      case 'export':
        this.export(each.from, each.pages);
        break;
      case 'map':
        this.map(pick(this.bufs, each.which), each);
        break;
      case 'copy':
        this.copy(pick(this.areas, each.which), each.at);
        break;
      case 'unmap':
        this.unmap(pick(this.areas, each.which));
        break;
      case 'close':
        this.close(pick(this.bufs, each.which));
        break;
      case 'table':
        this.table(each.which);
        break;
      case 'memory':
        this.memory = each.on;
        if (!each.on) this.revoke();
        this.restore();
        this.rig.setConfig(COMMAND, 2, each.on ? 6 : 4);
        break;
      case 'power':
        this.asleep = !each.on;
        if (this.asleep) this.revoke();
        this.restore();
        this.rig.setConfig(this.power, 2, each.on ? 0 : 3);
        break;
      case 'reset':
        this.revoke();
        this.asleep = false;
        this.restore();
        expect(this.rig.ioctl(VFIO_DEVICE_RESET, new Uint8Array(0)).result).toBe(0);
        break;
      case 'low power':
        this.lowPower(each.on);
        break;
      case 'reopen':
        this.reopen();
    }
    // Low power ends each request with a sleep, from which the next one wakes into D0.
    if (this.engaged) this.asleep = false;
  }

  private lowPower(on: boolean): void {
    if (on) this.revoke();
    else this.restore();
    const expected = on && this.engaged ? -22 : 0;
    expect(this.rig.core.feature(this.rig.process, SET | (on ? 3 : 5), 0, 0)).toBe(expected);
    this.engaged = on;
  }

  private reopen(): void {
    this.revoke();
    for (const buf of this.bufs) buf.dead = true;
    this.rig.core.closeDevice();
    expect(this.rig.core.openDevice(this.rig.process)).toBe(0);
    this.rig.setConfig(COMMAND, 2, 4);
    Object.assign(this, { memory: false, asleep: false, engaged: false });
  }

  private revoke(): void {
    for (const buf of this.bufs) buf.revoked = true;
    for (const { of } of this.areas) of.revoked = true;
  }

  private restore(): void {
    if (this.enabled) for (const buf of this.bufs) buf.revoked = buf.dead;
  }

  private export(from: number, pages: number): void {
    const { rig, host } = this;
    const bytes = new Uint8Array(layout.size + vfio_region_dma_range.size);
    layout.patch(bytes, { nr_ranges: 1, open_flags: 2 });
    vfio_region_dma_range.write(bytes, { offset: from * PAGE, length: pages * PAGE }, layout.size);
    const fd = rig.core.feature(rig.process, GET_DMA_BUF, rig.user(bytes), layout.size);
    expect(fd < 0).toBe(from + pages > BAR_PAGES);
    const file = rig.process.file(fd);
    if (!(file instanceof DmaBufFile)) return;
    const buf = {
      file,
      fd: host.client.process.install(file),
      from,
      pages,
      open: true,
      revoked: !this.enabled,
      dead: false,
    };
    rig.process.close(fd);
    this.bufs.push(buf);
  }

  private map(buf: Buf | undefined, { from, pages, at: page }: { from: number; pages: number; at: number }): void {
    if (buf === undefined) return;
    const { iommufd, id } = this.host;
    const flags = FIXED | READ | WRITE;
    const fields = { ioas_id: id, flags, fd: buf.fd, start: from * PAGE, length: pages * PAGE, iova: page * PAGE };
    const { result } = iommufd.call(uapi.IOMMU_IOAS_MAP_FILE, uapi.iommu_ioas_map_file, fields);
    const late = buf.revoked ? 'ENODEV' : this.taken(page, pages) ? 'EEXIST' : 0;
    expect(result).toBe(!buf.open ? 'EBADF' : from + pages > buf.pages ? 'EINVAL' : late);
    if (result === 0) this.areas.push({ at: page, pages, from: buf.from + from, of: { buf, revoked: false } });
  }

  private copy(area: ModelArea | undefined, page: number): void {
    if (area === undefined) return;
    const { iommufd, id } = this.host;
    const result = iommufd.copy(id, area.at * PAGE, area.pages * PAGE, id, page * PAGE);
    const free = !this.taken(page, area.pages);
    expect(result).toBe(free ? BigInt(page * PAGE) : 'EEXIST');
    if (free) this.areas.push({ ...area, at: page });
  }

  private unmap(area: ModelArea | undefined): void {
    if (area === undefined) return;
    this.areas = this.areas.filter((each) => each !== area);
    const { iommufd, id } = this.host;
    expect(iommufd.unmap(id, area.at * PAGE, area.pages * PAGE)).toBe(BigInt(area.pages * PAGE));
  }

  private close(buf: Buf | undefined): void {
    if (buf?.open !== true) return;
    buf.open = false;
    expect(this.host.client.close(buf.fd)).toBe(0);
    // Its number may come back with another file; one that never was open stands for it here.
    buf.fd = CLOSED;
  }

  /** A second page table of the IOAS comes or goes. */
  private table(choice: number): void {
    const { iommufd, id, groups } = this.host;
    const last = this.tables.length > 1 ? this.tables.at(-1) : undefined;
    if (last !== undefined && choice > 5) {
      this.tables.pop();
      expect(iommufd.destroy(last.id)).toBe(0);
    } else if (this.tables.length < 3) {
      this.tables.push({ id: Number(iommufd.hwpt(DEVICE, id)), domain: groups[0]!.made.at(-1)! });
    }
  }

  private taken(page: number, pages: number): boolean {
    return this.areas.some((area) => area.at < page + pages && page < area.at + area.pages);
  }

  /** Every page table has what the model has and nothing else; every file is held by its descriptor and its imports. */
  check(): void {
    const wanted = new Map<number, number>();
    for (const { at: page, pages, from, of } of this.areas) {
      for (let i = 0; i < pages && !of.revoked; i += 1) wanted.set((page + i) * PAGE, BAR + (from + i) * PAGE);
    }
    for (const { domain } of this.tables) {
      let same = domain.pages.size === wanted.size && domain.stale === 0;
      for (const [iova, { pa, prot }] of domain.pages) same &&= wanted.get(iova) === pa && prot === DEVICE_MEMORY;
      if (!same) expect(new Map([...domain.pages].map(([iova, { pa }]) => [iova, pa]))).toEqual(wanted);
      if (!same) throw new Error('the pages are there, and not as device memory, or not yet gone');
    }
    for (const buf of this.bufs) {
      const imports = new Set(this.areas.filter(({ of }) => of.buf === buf).map(({ of }) => of)).size;
      const holders = imports + (buf.open ? 1 : 0);
      if (buf.file.attachments === imports && fileCount(buf.file) === holders) continue;
      expect([buf.file.attachments, fileCount(buf.file)]).toEqual([imports, holders]);
    }
  }

  end(): void {
    const { host, bufs } = this;
    host.kernel.exit(host.client.process);
    for (const { file } of bufs) expect([file.attachments, fileCount(file)]).toEqual([0, 0]);
    for (const { domain } of this.tables) expect(domain.pages.size).toBe(0);
    this.rig.core.closeDevice();
  }
}

describe('dma-bufs between their owner and those who map them', () => {
  it('agree with the model after every step, and leave nothing', () => {
    const seen = new Map<string, number>();
    const [rig, memory] = [new Rig(), testMemory()];
    fc.assert(
      fc.property(fc.array(step, { minLength: 25, maxLength: 40 }), (steps) => {
        const program = new Program(rig, memory);
        for (const each of steps) {
          program.run(each);
          program.check();
          seen.set(each.op, (seen.get(each.op) ?? 0) + 1);
          if (program.areas.some(({ of }) => of.revoked))
            seen.set('revoked areas', (seen.get('revoked areas') ?? 0) + 1);
          if (program.areas.some(({ of }) => !of.revoked)) seen.set('live areas', (seen.get('live areas') ?? 0) + 1);
        }
        program.end();
      }),
      { numRuns: PROGRAMS },
    );
    for (const what of ['revoked areas', 'live areas', 'copy', 'reopen', 'low power']) {
      expect([what, (seen.get(what) ?? 0) > PROGRAMS / 3]).toEqual([what, true]);
    }
  });
});
