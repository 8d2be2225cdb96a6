/**
 * A nested device rings while its page table is replaced: stage 1s of user space's own, a vIOMMU's bypass, the stage 2 alone, tables that
 * the kernel makes for an IOAS, of this IOAS and of another, each after each other. After every word that the kernel writes meanwhile the
 * device rings too. What is between two tables that both lead to the doorbell loses nothing; a stage 1 that does not map the doorbell loses
 * each with a record in the vEVENTQ, under the virtual stream id; an entry that cannot change at once loses what comes while it is invalid,
 * and nothing else.
 *
 * BELFRY_REPLACES is the number of replaces (`npm run nightly`: 10,000).
 */
import { describe, expect, it } from 'vitest';
import { BellDma, BellRegister } from '../src/devices/index.ts';
import {
  IOMMU_OPTION_SW_MSI_SIZE,
  IOMMU_OPTION_SW_MSI_START,
  VFIO_IRQ_SET_ACTION_PREPARE,
  VFIO_IRQ_SET_DATA_MSI_IOVA,
} from '../src/uapi/belfry.ts';
import * as uapi from '../src/uapi/iommufd.ts';
import { VFIO_DEVICE_SET_IRQS, vfio_irq_set } from '../src/uapi/vfio-irq.ts';
import { CdevDevice, Hwpt, Ioas, Iommufd } from '../src/vfio/index.ts';
import { VirtualSmmu } from '../src/vfio/virtual-smmu.ts';
import { during } from './support/counts.ts';
import { afterEachWrite } from './support/fire.ts';
import { DEVICE, testHost } from './support/host.ts';
import { msixEntry } from './support/messages.ts';
import { BYPASS_ENTRY, writeStage1 } from './support/stage1.ts';

const REPLACES = Number(process.env['BELFRY_REPLACES'] ?? 1500);
const VECTORS = 4;
const PAGE = 4096;
/** What DMA is written to: each table has a page of its own there, or none. */
const IOVA = 0x10_0000;
const VSID = 0x42;
const DRIVER_WINDOW = 0x800_0000;
const DEPTH = 4096;
const ELSEWHERE = 0x7_1234_5000;

/** What the device can be moved to, and what becomes there of an interrupt and of a write to IOVA. */
interface Place {
  readonly name: string;
  readonly table: Hwpt | Ioas;
  /** The doorbell is mapped. */
  readonly rings: boolean;
  /** First byte of the page that a write to IOVA finds. */
  readonly memory: Uint8Array | null;
  /** What its stage 1 refuses is the vIOMMU's to record, and not the host's to log. */
  readonly watched: boolean;
  /** Which stage 2 the entry has; null: a stage 1 of the kernel's alone. */
  readonly stage2: 0 | 1 | null;
  /** What the entry says of walks and stalls of a stage 1 of user space's; null without one. */
  readonly attributes: bigint | null;
}

function bed(window: number) {
  const host = testHost('arm-its', { abi: 'belfry', options: { msix: VECTORS } });
  const { kernel, process } = host.process();
  const iommufd = Iommufd.open(kernel);
  const device = CdevDevice.open(kernel, DEVICE);
  device.bind(iommufd);
  const option = (option_id: number, val64: number) =>
    iommufd.request('IOMMU_OPTION', uapi.IOMMU_OPTION, uapi.iommu_option, { option_id, object_id: device.id, val64 });
  if (window !== DRIVER_WINDOW) {
    option(IOMMU_OPTION_SW_MSI_START, window);
    option(IOMMU_OPTION_SW_MSI_SIZE, 1);
  }
  const spaces = [Ioas.create(iommufd), Ioas.create(iommufd)] as const;
  const pages = spaces.map((space) => space.mapDma({ length: PAGE, iova: IOVA }));
  const parents = spaces.map((space) => Hwpt.create(device, space, { nestParent: true }));
  device.attach(parents[0]!);
  const smmu = VirtualSmmu.create(device, parents[0]!, VSID, DEPTH);
  const far = iommufd.request('IOMMU_VIOMMU_ALLOC', uapi.IOMMU_VIOMMU_ALLOC, uapi.iommu_viommu_alloc, {
    type: uapi.IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
    dev_id: device.id,
    hwpt_id: parents[1]!.id,
  }).out_viommu_id;
  let asid = 1;
  const stage1 = (doorbell: number | null, asLinux = true) => {
    const own = spaces[0].mapDma({ length: PAGE });
    const { tables, entry } = writeStage1(spaces[0], asid++, asLinux);
    tables.map(IOVA, own.iova, PAGE, 'memory');
    if (doorbell !== null) tables.map(doorbell, window, PAGE, 'device');
    return { table: Hwpt.nested(device, spaces[0], smmu.id, entry), memory: own.bytes, attributes: entry[1] };
  };
  const nested = (name: string, doorbell: number | null, asLinux = true): Place => ({
    name,
    ...stage1(doorbell, asLinux),
    rings: doorbell !== null,
    watched: true,
    stage2: 0,
  });
  const plain = (name: string, table: Hwpt | Ioas, space: 0 | 1): Place => ({
    name,
    table,
    rings: true,
    memory: pages[space]!.bytes,
    watched: name === 'bypass',
    stage2: name.endsWith('IOAS') ? null : space,
    attributes: null,
  });
  const all = {
    first: () => nested('first stage 1', window),
    second: () => nested('second stage 1', window),
    foreign: () => nested('stage 1 with other attributes', window, false),
    silent: () => nested('stage 1 without the doorbell', null),
    bypass: () => plain('bypass', Hwpt.nested(device, spaces[0], smmu.id, BYPASS_ENTRY), 0),
    parent: () => plain('stage 2', parents[0]!, 0),
    auto: () => plain('IOAS', spaces[0], 0),
    farAuto: () => plain('other IOAS', spaces[1], 1),
    farParent: () => plain('other stage 2', parents[1]!, 1),
    farBypass: () => plain('other bypass', Hwpt.nested(device, spaces[1], far, BYPASS_ENTRY), 1),
  };
  return { host, kernel, process, iommufd, device, smmu, all, nested };
}

type Bed = ReturnType<typeof bed>;

/** VFIO_IRQ_SET_ACTION_PREPARE of all vectors. */
function prepare(device: CdevDevice, iova: number): void {
  const argsz = vfio_irq_set.size + VECTORS * 8;
  const bytes = new Uint8Array(argsz);
  const flags = VFIO_IRQ_SET_ACTION_PREPARE | VFIO_IRQ_SET_DATA_MSI_IOVA;
  vfio_irq_set.patch(bytes, { argsz, flags, index: device.msix.index, start: 0, count: VECTORS });
  bytes.set(new Uint8Array(BigUint64Array.from(Array(VECTORS).fill(BigInt(iova))).buffer), vfio_irq_set.size);
  expect(device.kernel.ioctl(device.fd, VFIO_DEVICE_SET_IRQS, bytes)).toBe(0);
}

/** Every ordered pair of n, one behind the other, and back to 0: [0, 1, 0, 2, 0, … 1, 2, 1, 3, … 0]. */
function tour(n: number): number[] {
  const path = [0];
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) path.push(j, i);
    if (i + 1 < n) path.push(i + 1);
  }
  return [...path, 0];
}

/** Rings all the time, and says after each replace whether everything that was sent ended where it may. */
function underFire(
  { host, kernel, device, smmu }: Bed,
  places: readonly Place[],
  replaces: number,
  prepared: number | null = null,
) {
  const fn = host.machine.pci.function(DEVICE)!;
  const dev = host.pciDevices.find(({ name }) => name === DEVICE)!;
  const registers = device.bar(0);
  device.config.busMaster = true;
  if (device.table === null) device.attach(places[0]!.table);
  else if (device.table !== places[0]!.table) device.replace(places[0]!.table);
  if (prepared !== null) prepare(device, prepared);
  const { vectors } = device.msix.enable(VECTORS);
  const messages = vectors.map((_, i) => msixEntry(host, dev, i));
  const path = tour(places.length);
  const seen = { sent: 0, delivered: 0, recorded: 0, invalid: 0, broken: new Set<string>() };
  let vector = 0;
  /** What became of the interrupts since the last look. */
  let [rung, arrived] = [0, 0];
  const ring = (): void => {
    fn.raise(vector);
    host.machine.work.drain();
    rung++;
    arrived += vectors[vector]!.take();
    vector = (vector + 1) % VECTORS;
  };
  const lost = (): { recorded: number; invalid: number } => {
    const events = smmu.events();
    for (const { name, streamId, input } of events) {
      if (name === 'F_TRANSLATION') expect([streamId, Number(input)]).toEqual([VSID, messages[0]!.address]);
      else expect([name, streamId]).toEqual(['C_BAD_STE', VSID]);
    }
    const invalid = events.filter(({ name }) => name === 'C_BAD_STE').length;
    return { recorded: events.length - invalid, invalid };
  };
  const look = (what: string, check: (counts: { arrived: number; recorded: number; other: number }) => void): void => {
    const { recorded, invalid } = lost();
    const other = rung - arrived - recorded;
    check({ arrived, recorded, other });
    seen.sent += rung;
    seen.delivered += arrived;
    seen.recorded += recorded;
    seen.invalid += other;
    if (other > 0) seen.broken.add(what);
    expect(invalid).toBeLessThanOrEqual(other);
    [rung, arrived] = [0, 0];
  };
  const counts = during(host.machine.tap, () => {
    for (let i = 1; i <= replaces; i++) {
      const [from, to] = [
        places[path[(i - 1) % (path.length - 1)]!]!,
        places[path[((i - 1) % (path.length - 1)) + 1]!]!,
      ];
      const what = `${from.name} -> ${to.name}`;
      ring();
      look(what, (now) => expect({ what, ...now }).toEqual({ what, ...outcome(from) }));
      const quiet = afterEachWrite(host, ring);
      device.replace(to.table);
      quiet();
      const gap = isBreaking(from, to);
      const silent = !from.rings || !to.rings;
      // The events are the guest's once the new entry stands (arm_smmu_attach_commit_vmaster): those of the last step before are logged.
      const logged = !to.rings && !from.watched;
      look(what, ({ recorded, other }) => {
        const mayLose = gap || logged;
        expect({ what, other: mayLose ? 0 : other, recorded: silent ? 0 : recorded }).toEqual({
          what,
          other: 0,
          recorded: 0,
        });
        expect({ what, gap: gap && other === 0 }).toEqual({ what, gap: false });
      });
      ring();
      look(what, (now) => expect({ what, ...now }).toEqual({ what, ...outcome(to) }));
      if (i % 50 !== 0) continue;
      expect(vectors.map((_, at) => msixEntry(host, dev, at))).toEqual(messages);
      for (const { memory } of places) memory?.fill(0xee, 0, 4);
      registers.write32(BellRegister.DMA_IOVA_LO, IOVA);
      registers.write32(BellRegister.DMA_IOVA_HI, 0);
      registers.write32(BellRegister.DMA_LOCAL, 0);
      registers.write32(BellRegister.DMA_LENGTH, 4);
      registers.write32(BellRegister.DMA_COMMAND, BellDma.START | BellDma.TO_MEMORY);
      kernel.settle();
      const written = places.filter(({ memory }) => memory !== null && memory[0] !== 0xee).map(({ memory }) => memory);
      expect(written.every((memory) => memory === to.memory) && written.length > 0).toBe(true);
    }
  });
  device.msix.disable();
  const lossless = { coalesced: 0, pending: 0 };
  expect(counts).toMatchObject({ sent: seen.sent, delivered: seen.delivered, ...lossless });
  expect(Object.values(counts.lost).reduce((sum, n) => sum + n, 0)).toBe(seen.recorded + seen.invalid);
  return { ...seen, addresses: [...new Set(messages.map(({ address }) => address))] };
}

/**
 * Two words of the entry differ in what the SMMU uses, so that it cannot change at once (IHI 0070 3.21.3; arm_smmu_write_entry): the VMID, which a
 * stage 1 alone has too, and with it the configuration, or the other stage 2's table; the attributes and the descriptor of another stage 1.
 */
function isBreaking(from: Place, to: Place): boolean {
  if (from.stage2 !== to.stage2) return true;
  return from.attributes !== null && to.attributes !== null && from.attributes !== to.attributes;
}

const outcome = ({ rings }: Place) => ({ arrived: rings ? 1 : 0, recorded: rings ? 0 : 1, other: 0 });

/** All of it closed: what is left of the memory, the descriptors, the interrupts. */
function close({ host, process, iommufd, device, smmu }: Bed): void {
  const dev = host.pciDevices.find(({ name }) => name === DEVICE)!;
  const group = host.groups!.groups.find(({ devices }) => devices.includes(dev))!;
  device.close();
  expect(group.domain).toBe(group.defaultDomain);
  smmu.close();
  iommufd.close();
  expect([group.dmaOwner, process.descriptors.length, process.lockedPages, host.msi.mode(dev)]).toEqual([
    null,
    0,
    0,
    null,
  ]);
  host.kernel.exit(process);
  expect(host.irqs.interrupts().filter(({ action }) => action.startsWith('vfio'))).toEqual([]);
}

describe('a page table replaced under fire, with stage 1s of user space’s own', () => {
  it.each([
    ['the driver’s', DRIVER_WINDOW],
    ['a moved', 0x4000_0000],
  ])(
    'two stage 1s, a bypass and the stage 2 itself, by %s window: nothing is lost',
    (_which, window) => {
      const made = bed(window);
      const { first, second, bypass, parent } = made.all;
      const places = [first, second, bypass, parent].map((make) => make());
      const { sent, delivered, addresses } = underFire(made, places, REPLACES);
      expect([delivered, addresses]).toEqual([sent, [window + 0x40]]);
      expect(sent).toBeGreaterThan(REPLACES * 3);
      close(made);
    },
    300_000,
  );

  it('an IOVA that stage 1s alone have: nothing is lost between them', () => {
    const made = bed(DRIVER_WINDOW);
    const places = ['first', 'second', 'third'].map((name) => made.nested(name, ELSEWHERE));
    const { sent, delivered, addresses } = underFire(made, places, Math.ceil(REPLACES / 4), ELSEWHERE);
    expect([delivered, addresses]).toEqual([sent, [ELSEWHERE + 0x40]]);
    close(made);
  }, 300_000);

  it('a stage 1 that does not map the doorbell loses each, with a record under the virtual stream id', () => {
    const made = bed(DRIVER_WINDOW);
    const { first, silent, bypass, parent } = made.all;
    const places = [first, silent, bypass, parent].map((make) => make());
    const { delivered, recorded } = underFire(made, places, Math.ceil(REPLACES / 4));
    expect(recorded).toBeGreaterThan(REPLACES / 8);
    expect(delivered).toBeGreaterThan(recorded);
    close(made);
  }, 300_000);

  it.each([
    ['the driver’s', DRIVER_WINDOW],
    ['a moved', 0x4000_0000],
  ])(
    'tables of the kernel’s, of this IOAS and of another, too, by %s window: what comes while an entry is invalid is lost, and nothing else',
    (_which, window) => {
      const made = bed(window);
      const { first, foreign, bypass, parent, auto, farAuto, farParent, farBypass } = made.all;
      const places = [first, foreign, bypass, parent, auto, farAuto, farParent, farBypass].map((make) => make());
      underFire(made, places, 2);
      const { sent, delivered, invalid, broken } = underFire(made, places, REPLACES);
      expect(delivered + invalid).toBe(sent);
      // Of 56 ways: 16 between 4 with this stage 2 and 2 without one, 16 to 2 with the other, 8 between those, and 2 of different attributes.
      expect(broken.size).toBe(42);
      close(made);
    },
    300_000,
  );
});
