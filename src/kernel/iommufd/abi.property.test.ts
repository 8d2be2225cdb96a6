/**
 * Random programs over all of iommufd on a whole machine, against a plain model: IOAS, page tables, nest parents, virtual IOMMUs and their names and
 * queues, stage 1s, two devices in one group and one in another that are attached, replaced and detached, windows that move, vectors that are
 * enabled meanwhile. BELFRY_PROGRAMS=34 runs ten thousand.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createDevice } from '../../devices/index.ts';
import { defineMachine } from '../../machine/define.ts';
import { Machine } from '../../machine/machine.ts';
import { presetInput } from '../../machine/presets.ts';
import { IOMMU_OPTION_SW_MSI_SIZE, IOMMU_OPTION_SW_MSI_START } from '../../uapi/belfry.ts';
import * as uapi from '../../uapi/iommufd.ts';
import * as vfio from '../../uapi/vfio.ts';
import { bootLinux } from '../boot/boot.ts';
import type { SimKernelClient } from '../client.ts';
import { NestedDomain } from '../iommu/nested-domain.ts';
import { AbiModel, type EntryKind, ModelQueue, ModelViommu, STAGE2_APERTURE } from './abi-model.ts';
import { HwptNested, HwptPaging, Ioas } from './index.ts';
import {
  APERTURE,
  BUFFER,
  ModelDevice,
  ModelGroup,
  ModelHwpt,
  ModelIoas,
  ModelNested,
  type ModelTable,
  type Thing,
  WINDOW,
} from './ioas-model.ts';
import { allocate, Iommufd, named, READ, WRITE } from './testing.ts';

const PROGRAMS = 300 * Number(process.env['BELFRY_PROGRAMS'] ?? 1);
const PAGE = 4096;
const DOORBELL = 0x5081_0000;
const REGISTER = 0x40;
const VECTORS = 2;
const STE: Readonly<Record<EntryKind, [bigint, bigint]>> = {
  'stage 1': [0x10_0000n | (5n << 1n) | 1n, 0n],
  bypass: [(4n << 1n) | 1n, 0n],
  abort: [1n, 0n],
  // S2VMID and what follows are the kernel's; so is SHCFG.
  foreign: [0x10_0000n | (5n << 1n) | 1n, 1n << 44n],
};

const near = (page: number, by: number) => fc.integer({ min: Math.max(0, page - by), max: page + by });
const iova = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: 20 }) },
  { weight: 2, arbitrary: near(WINDOW.start, 4) },
  { weight: 1, arbitrary: near(WINDOW.last, 4) },
  // The two places that windows move to: one begins at 0.
  { weight: 2, arbitrary: near(0x100, 4) },
  { weight: 1, arbitrary: near(STAGE2_APERTURE, 5) },
  { weight: 1, arbitrary: near(APERTURE, 5) },
);
const pages = fc.integer({ min: 0, max: 6 });
/** Most ids are of an object of the kind that the request wants, the `pick`-th of those that are there; others are any. */
interface Ref {
  readonly pick: number;
  /** An id, or null. */
  readonly any: number | null;
}
const id: fc.Arbitrary<Ref> = fc.oneof(
  { weight: 7, arbitrary: fc.record({ pick: fc.nat({ max: 7 }), any: fc.constant(null) }) },
  { weight: 1, arbitrary: fc.record({ pick: fc.constant(0), any: fc.nat({ max: 12 }) }) },
);
const device = fc.nat({ max: 2 });
const dev = fc.oneof(
  { weight: 15, arbitrary: fc.integer({ min: 1, max: 3 }) },
  { weight: 1, arbitrary: fc.nat({ max: 12 }) },
);
const op = <T extends string, F>(weight: number, name: T, fields: { [K in keyof F]: fc.Arbitrary<F[K]> }) => ({
  weight,
  arbitrary: fc.record(fields).map((values) => ({ op: name, ...values })),
});
const kind = fc.constantFrom<EntryKind>('stage 1', 'stage 1', 'bypass', 'abort', 'foreign');

const step = fc.oneof(
  op(3, 'alloc', {}),
  op(3, 'destroy', { id }),
  op(6, 'map', { id, iova, from: fc.integer({ min: 0, max: BUFFER }), pages, write: fc.boolean() }),
  op(3, 'unmap', { id, iova, pages: fc.integer({ min: 0, max: 30 }) }),
  op(8, 'attach', { device, id }),
  op(3, 'detach', { device }),
  op(5, 'hwpt', { dev, id, nestParent: fc.boolean() }),
  op(4, 'nested', { dev, id, kind }),
  op(4, 'viommu', { dev, id }),
  op(4, 'vdevice', { dev, id, name: fc.nat({ max: 3 }) }),
  op(1, 'queue', { id }),
  op(1, 'closeQueue', { id }),
  op(2, 'window', { dev, start: fc.nat({ max: 1 }), mib: fc.nat({ max: 2 }) }),
  op(2, 'arm', { device }),
  op(2, 'disarm', { device }),
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** The kinds that requests are for. */
const WANTS: Readonly<Record<string, (thing: Thing) => boolean>> = {
  destroy: (thing) => !(thing instanceof ModelDevice),
  map: (thing) => thing instanceof ModelIoas,
  unmap: (thing) => thing instanceof ModelIoas,
  attach: (thing) => thing instanceof ModelIoas || thing instanceof ModelHwpt || thing instanceof ModelNested,
  hwpt: (thing) => thing instanceof ModelIoas,
  nested: (thing) => thing instanceof ModelViommu,
  viommu: (thing) => thing instanceof ModelHwpt,
  vdevice: (thing) => thing instanceof ModelViommu,
  queue: (thing) => thing instanceof ModelViommu,
  closeQueue: (thing) => thing instanceof ModelQueue,
};

/** Bells: two functions of one device, which share a group, and one in a group of its own. */
function machine() {
  const input = presetInput('arm-its');
  const bell = (at: string) => ({ at, kind: 'function' as const, device: 'bell', options: { msix: VECTORS } });
  const port = (at: string, below: ReturnType<typeof bell>[]) => ({ at, kind: 'root-port' as const, acs: true, below });
  const slots = [port('01.0', [bell('00.0'), bell('00.1')]), port('02.0', [bell('00.0')])];
  // Physical addresses of 44 bits, so that a stage 2 ends before a stage 1.
  const iommu = { type: 'smmuv3' as const, base: 0x5200_0000, oas: 44 as const };
  const spec = defineMachine({ ...input, iommu, pci: { ...input.pci, slots } });
  return bootLinux(new Machine(spec, createDevice), { abi: 'belfry' });
}

class Run {
  readonly model: AbiModel;
  readonly client: SimKernelClient;
  readonly iommufd: Iommufd;
  readonly host: ReturnType<typeof machine>;
  private readonly devices: readonly number[];
  private readonly modelDevices: readonly ModelDevice[];
  private readonly va: number;
  private readonly frame: number;
  private readonly entry;
  /** Descriptors of event queues by the queue's id. */
  private readonly queues = new Map<number, number>();

  constructor(host: ReturnType<typeof machine>) {
    this.host = host;
    this.client = host.process().kernel;
    this.iommufd = new Iommufd(this.client);
    this.va = allocate(this.client, BUFFER * PAGE).address;
    this.entry = allocate(this.client, PAGE);
    const pinned = this.client.process.memory.pin(this.va, BUFFER * PAGE, true);
    if (typeof pinned === 'number' || pinned.runs.length !== 1) throw new Error('the buffer is not there in one piece');
    this.frame = pinned.runs[0]!.pa;
    pinned.release();
    this.devices = [0, 1, 2].map((n) => this.client.open(`/dev/vfio/devices/vfio${n}`));
    expect(this.devices.map((fd) => this.iommufd.bind(fd))).toEqual([1, 2, 3]);
    const groups = [new ModelGroup(), new ModelGroup()];
    this.modelDevices = [0, 0, 1].map((group) => new ModelDevice(groups[group]!));
    this.model = new AbiModel(this.modelDevices);
  }

  /** What the kernel answers and what the model does, IOVAs and lengths in pages. */
  run(what: Step): [unknown, unknown] {
    const { model, iommufd, va } = this;
    const target = 'id' in what ? this.resolve(what.op, what.id) : 0;
    switch (what.op) {
      case 'alloc':
        return [iommufd.ioas(), model.alloc()];
      case 'destroy':
        return [iommufd.destroy(target), model.destroy(target)];
      case 'map': {
        const flags = READ | (what.write ? WRITE : 0);
        const address = va + what.from * PAGE;
        const done = iommufd.mapAt(target, what.iova * PAGE, address, what.pages * PAGE, flags);
        const expected = model.map(target, what.iova, address / PAGE, what.from, what.pages, what.write);
        return [done, typeof expected === 'number' ? 0 : expected];
      }
      case 'unmap': {
        const done = iommufd.unmap(target, what.iova * PAGE, what.pages * PAGE);
        return [typeof done === 'bigint' ? Number(done) / PAGE : done, model.unmap(target, what.iova, what.pages)];
      }
      case 'attach':
        return [
          iommufd.attach(this.devices[what.device]!, target),
          model.attach(this.modelDevices[what.device]!, target),
        ];
      case 'detach':
        return [iommufd.detach(this.devices[what.device]!), model.detach(this.modelDevices[what.device]!)];
      case 'hwpt': {
        const flags = what.nestParent ? uapi.IOMMU_HWPT_ALLOC_NEST_PARENT : 0;
        return [iommufd.hwpt(what.dev, target, flags), model.hwptAlloc(what.dev, target, what.nestParent)];
      }
      case 'nested':
        return [this.nested(what.dev, target, what.kind), model.nestedAlloc(what.dev, target, what.kind)];
      case 'viommu': {
        const fields = { type: uapi.IOMMU_VIOMMU_TYPE_ARM_SMMUV3, dev_id: what.dev, hwpt_id: target };
        const answer = iommufd.call(uapi.IOMMU_VIOMMU_ALLOC, uapi.iommu_viommu_alloc, fields);
        return [answer.result === 0 ? answer.out_viommu_id : answer.result, model.viommuAlloc(what.dev, target)];
      }
      case 'vdevice': {
        const fields = { viommu_id: target, dev_id: what.dev, virt_id: what.name };
        const answer = iommufd.call(uapi.IOMMU_VDEVICE_ALLOC, uapi.iommu_vdevice_alloc, fields);
        const made = answer.result === 0 ? answer.out_vdevice_id : answer.result;
        return [made, model.vdeviceAlloc(target, what.dev, what.name)];
      }
      case 'queue':
        return [this.queue(target), model.queueAlloc(target)];
      case 'closeQueue': {
        const fd = this.queues.get(target);
        const queue = model.things.get(target);
        if (fd === undefined || !(queue instanceof ModelQueue)) return [0, 0];
        this.queues.delete(target);
        queue.open = false;
        return [this.client.close(fd), 0];
      }
      case 'window':
        return [this.window(what.dev, what.start, what.mib), model.moveWindow(what.dev, what.start, what.mib)];
      case 'arm': {
        const modelDevice = this.modelDevices[what.device]!;
        // In no page table it is ENOSPC, and an event of the ITS is gone for good, as with Linux (its_irq_domain_alloc).
        if (model.armed.has(modelDevice) || modelDevice.group.hwpt === null) return [0, 0];
        return [this.arm(what.device), model.arm(modelDevice)];
      }
      case 'disarm':
        model.disarm(this.modelDevices[what.device]!);
        this.setIrqs(what.device, vfio.VFIO_IRQ_SET_DATA_NONE, 0);
        return [0, 0];
    }
  }

  /** Objects and their users, areas, ranges, translations, doorbells, messages: all as the model has them. */
  compare(): void {
    const { model, iommufd, frame } = this;
    const { objects } = iommufd.ctx;
    expect(objects.all.map((object) => object.id)).toEqual([...model.things.keys()].sort((a, b) => a - b));
    for (const object of objects.all) {
      const thing = model.things.get(object.id)!;
      expect([object.id, object.type, object.users]).toEqual([
        object.id,
        typeOf(thing),
        usersOf(thing, this.isAttached(thing)),
      ]);
      if (object instanceof Ioas && thing instanceof ModelIoas) {
        const areas = object.iopt.areas.all().map((area) => [Number(area.start) / PAGE, Number(area.length) / PAGE]);
        expect(areas).toEqual(
          thing.areas.map(({ iova: at, pages: count }) => [at, count]).sort((a, b) => a[0]! - b[0]!),
        );
        expect(iommufd.ranges(object.id).list).toEqual(usable(model, thing));
      } else if (object instanceof HwptPaging && thing instanceof ModelHwpt) {
        expect([object.autoDomain, object.nestParent]).toEqual([thing.auto, thing.nestParent]);
        const doorbells = [...object.presentSwMsi.values()].map((map) => map.iova / PAGE).sort((a, b) => a - b);
        expect(doorbells).toEqual([...thing.doorbells].sort((a, b) => a - b));
        for (const page of doorbells) expect(object.domain.lookup(page * PAGE)).toBe(DOORBELL);
        const { areas } = thing.ioas;
        for (const { iova: at, pages: count, from } of areas) {
          const found = Array.from({ length: count }, (_, i) => object.domain.lookup((at + i) * PAGE));
          expect(found).toEqual(found.map((_, i) => frame + (from + i) * PAGE));
          const covered = (page: number) =>
            thing.doorbells.has(page) || areas.some((area) => area.iova <= page && page < area.iova + area.pages);
          for (const page of [at - 1, at + count]) {
            if (page >= 0 && page < thing.aperture && !covered(page))
              expect(object.domain.lookup(page * PAGE)).toBe(-1);
          }
        }
      } else if (object instanceof HwptNested && thing instanceof ModelNested) {
        const { domain } = object;
        expect(domain).toBeInstanceOf(NestedDomain);
        expect([domain instanceof NestedDomain && domain.translates, model.things.get(object.paging.id)]).toEqual([
          thing.translates,
          thing.paging,
        ]);
      }
    }
    for (const [n, modelDevice] of this.modelDevices.entries()) this.compareMessage(n, modelDevice);
  }

  end(killed: boolean): void {
    const { client, host, iommufd } = this;
    const { ctx } = iommufd;
    if (!killed) {
      for (const fd of this.queues.values()) client.close(fd);
      for (const fd of this.devices) client.close(fd);
      iommufd.close();
      expect(ctx.objects.size).toBe(0);
      expect(client.process.lockedPages).toBe(0);
    }
    host.kernel.exit(client.process);
    expect([ctx.objects.size, ctx.groupCount]).toEqual([0, 0]);
    for (const group of host.groups!.groups)
      expect([group.dmaOwner, group.domain]).toEqual([null, group.defaultDomain]);
  }

  private resolve(wants: string, { pick, any }: Ref): number {
    if (any !== null) return any;
    const fits = WANTS[wants] ?? (() => true);
    const there = [...this.model.things].filter(([, thing]) => fits(thing)).map(([number]) => number);
    return there[pick % Math.max(1, there.length)] ?? 4;
  }

  private compareMessage(n: number, modelDevice: ModelDevice): void {
    const { msi } = this.host;
    const bell = this.host.pciDevices.filter((each) => each.deviceId === 0xbe11)[n]!;
    const window = this.model.armed.get(modelDevice);
    expect(msi.vectors(bell).length).toBe(window === undefined ? 0 : VECTORS);
    for (const { desc } of msi.vectors(bell)) {
      const { addressHi, addressLo } = desc.message;
      expect((addressHi >>> 0) * 2 ** 32 + (addressLo >>> 0)).toBe(window! * PAGE + REGISTER);
    }
  }

  private isAttached(thing: Thing): boolean {
    return thing instanceof ModelDevice && thing.group.attached.includes(thing);
  }

  private nested(dev_id: number, pt_id: number, entry: EntryKind): number | string {
    uapi.iommu_hwpt_arm_smmuv3.write(this.entry.bytes, { ste: STE[entry] });
    const data = { data_type: uapi.IOMMU_HWPT_DATA_ARM_SMMUV3, data_len: 16, data_uptr: this.entry.address };
    const answer = this.iommufd.call(uapi.IOMMU_HWPT_ALLOC, uapi.iommu_hwpt_alloc, { dev_id, pt_id, ...data });
    return answer.result === 0 ? answer.out_hwpt_id : answer.result;
  }

  private queue(viommu_id: number): number | string {
    const fields = { viommu_id, type: uapi.IOMMU_VEVENTQ_TYPE_ARM_SMMUV3, veventq_depth: 4 };
    const answer = this.iommufd.call(uapi.IOMMU_VEVENTQ_ALLOC, uapi.iommu_veventq_alloc, fields);
    if (answer.result !== 0) return answer.result;
    this.queues.set(answer.out_veventq_id, answer.out_veventq_fd);
    return answer.out_veventq_id;
  }

  private window(object_id: number, start: number, mib: number): (number | string)[] {
    const set = (option_id: number, val64: number) =>
      this.iommufd.call(uapi.IOMMU_OPTION, uapi.iommu_option, {
        option_id,
        op: uapi.IOMMU_OPTION_OP_SET,
        object_id,
        val64,
      }).result;
    return [set(IOMMU_OPTION_SW_MSI_START, start * 2 ** 20), set(IOMMU_OPTION_SW_MSI_SIZE, mib)];
  }

  private arm(n: number): number | string {
    return this.setIrqs(n, vfio.VFIO_IRQ_SET_DATA_EVENTFD, VECTORS);
  }

  private setIrqs(n: number, data: number, count: number): number | string {
    const fds = new Uint8Array(Int32Array.from({ length: count }, () => -1).buffer);
    const bytes = new Uint8Array(vfio.vfio_irq_set.size + fds.length);
    const flags = data | vfio.VFIO_IRQ_SET_ACTION_TRIGGER;
    vfio.vfio_irq_set.patch(bytes, {
      argsz: bytes.length,
      flags,
      index: vfio.VFIO_PCI_MSIX_IRQ_INDEX,
      start: 0,
      count,
    });
    bytes.set(fds, vfio.vfio_irq_set.size);
    return named(this.client.ioctl(this.devices[n]!, vfio.VFIO_DEVICE_SET_IRQS, bytes));
  }
}

function typeOf(thing: Thing): string {
  if (thing instanceof ModelIoas) return 'ioas';
  if (thing instanceof ModelHwpt) return 'hwpt-paging';
  if (thing instanceof ModelNested) return 'hwpt-nested';
  return thing instanceof ModelDevice ? 'device' : thing.type;
}

/** One for the table, and one for each that uses it. */
function usersOf(thing: Thing, attached: boolean): number {
  if (thing instanceof ModelIoas) return 1 + thing.hwpts.length;
  if (thing instanceof ModelHwpt || thing instanceof ModelNested) return 1 + thing.attached + thing.uses;
  if (thing instanceof ModelDevice) return 2 + (attached ? 1 : 0);
  if (thing instanceof ModelViommu) return 1 + thing.uses;
  return thing instanceof ModelQueue && thing.open ? 2 : 1;
}

function usable(model: AbiModel, ioas: ModelIoas): bigint[][] {
  const list: bigint[][] = [];
  let at = 0n;
  for (const { start, last } of model.reserved(ioas)) {
    const begin = BigInt(start) * 4096n;
    if (begin > at) list.push([at, begin - 1n]);
    at = last === Number.POSITIVE_INFINITY ? -1n : (BigInt(last) + 1n) * 4096n;
  }
  if (at >= 0n) list.push([at, 0xffff_ffff_ffff_ffffn]);
  return list;
}

const program = fc.array(step, { minLength: 10, maxLength: 50, size: 'max' });
const first: Ref = { pick: 0, any: null };
/** What a VMM does before it has a guest; half of the programs begin so. */
const NESTING: readonly Step[] = [
  { op: 'alloc' },
  { op: 'hwpt', dev: 1, id: first, nestParent: true },
  { op: 'viommu', dev: 1, id: first },
  ...[1, 2, 3].map((of) => ({ op: 'vdevice' as const, dev: of, id: first, name: of })),
  { op: 'nested', dev: 1, id: first, kind: 'stage 1' },
  { op: 'nested', dev: 1, id: first, kind: 'stage 1' },
];

/** Answers without which the programs would not be what they are for. */
const WANTED = [
  'destroy EBUSY',
  'map EEXIST',
  'map EINVAL',
  'attach EADDRINUSE',
  'attach EINVAL',
  'attach ENOENT',
  'hwpt ok',
  'hwpt EADDRINUSE',
  'nested ok',
  'nested EIO',
  'viommu EINVAL',
  'vdevice ok',
  'vdevice EEXIST',
  'arm 0',
  'attached to nested',
  'nested to paging',
  'paging to nested',
];

function moved(from: ModelTable | null, to: ModelTable): string {
  const name = (table: ModelTable) => (table instanceof ModelNested && table.translates ? 'nested' : 'paging');
  return from === null ? `attached to ${name(to)}` : `${name(from)} to ${name(to)}`;
}

describe('random programs over all of iommufd', () => {
  it('answer, name, map, reserve, translate, count and place doorbells as the model does, and leave nothing', () => {
    const host = machine();
    const seen = new Set<string>();
    const missing = (): string[] => WANTED.filter((answer) => !seen.has(answer));
    const runAll = (): void =>
      fc.assert(
        fc.property(program, fc.boolean(), fc.boolean(), (random, nesting, killed) => {
          const steps = nesting ? [...NESTING, ...random] : random;
          const run = new Run(host);
          try {
            for (const [i, what] of steps.entries()) {
              const before = run.model.groups.map(({ hwpt }) => hwpt);
              const [done, expected] = run.run(what);
              expect({ i, what, answer: done }).toEqual({ i, what, answer: expected });
              seen.add(`${what.op} ${typeof done === 'number' && what.op !== 'arm' ? 'ok' : done}`);
              for (const [group, { hwpt }] of run.model.groups.entries()) {
                if (hwpt !== null && hwpt !== before[group]) seen.add(moved(before[group] ?? null, hwpt));
              }
              if (i % 12 === 11) run.compare();
            }
            run.compare();
            run.end(killed);
          } finally {
            // The machine serves the next program, whatever became of this one.
            host.kernel.exit(run.client.process);
          }
        }),
        { numRuns: PROGRAMS, verbose: 1 },
      );
    runAll();
    // An answer that is rare gets some more programs to come.
    for (let more = 0; more < 9 && missing().length > 0; more++) runAll();
    expect(missing()).toEqual([]);
  });
});
