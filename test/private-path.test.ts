/**
 * No private path: what an interrupt passes lies in memory, and nowhere else. Each test breaks exactly one thing there, tells the
 * hardware as the architecture asks, and loses exactly the interrupts that pass it, for the right reason. Until the hardware is
 * told, what it has cached goes on; when the thing is whole again, so do the interrupts.
 */
import { describe, expect, it } from 'vitest';
import { hi32, lo32 } from '../src/arch/bits.ts';
import {
  encodeInv,
  encodeInvall,
  encodeMapc,
  GICR_PROPBASER,
  GITS_BASER,
  GITS_TRANSLATER,
  ITS_COMMAND_SIZE,
  LPI_FIRST,
  parseTableBase,
  propBaseAddress,
  translationEntryCollection,
  translationEntryLpi,
} from '../src/arch/gic/index.ts';
import { Event } from '../src/arch/smmuv3/index.ts';
import { VtdReg } from '../src/arch/vtd/index.ts';
import { addressHandle, DMAR_IRTA_REG, IRTE_SIZE } from '../src/arch/x86/index.ts';
import type { Host } from '../src/kernel/boot/boot.ts';
import { Count } from '../src/ports/ledger.ts';
import { KVM_IRQ_ROUTING_MSI, KVM_MSI_VALID_DEVID, kvm_irq_routing_entry } from '../src/uapi/kvm.ts';
import { during } from './support/counts.ts';
import { GuestRig } from './support/guest-rig.ts';
import { testHost } from './support/host.ts';
import { msixEntry } from './support/messages.ts';
import {
  everyContext,
  everyTranslation,
  guestIts,
  hostIts,
  invalidateContext,
  invalidatePage,
  invalidateSpace,
  invalidateStream,
  oneEntry,
  sendIts,
  sendVtd,
} from './support/queues.ts';
import { type Walk, walk, word } from './support/walk.ts';

const SID = 0x100;
const ITS = 0x5080_0000;
const REDISTRIBUTORS = 0x5010_0000;
const VTD = 0xfed9_0000;
/** Vectors 0 and 2 ring here, by the seed's rule; vector 1 has a page of its own, in another 2 MiB of the same 1 GiB. */
const SHARED = 0x0809_0040;
const OWN = 0x1234_5040;
const ALL = ['delivered', 'delivered', 'delivered'];

/** A guest with three vectors. */
class Scene {
  readonly host: Host;
  readonly rig: GuestRig;
  private served = -1;

  constructor(name: 'arm-its' | 'x86') {
    this.host = testHost(name, { options: { msix: 3 } });
    this.host.consumesIommuEvents = false;
    this.rig = new GuestRig(this.host);
    const { doorbell } = this.rig.assignment.device.device;
    if (name === 'arm-its') doorbell.set({ start: 1, count: 1, iova: OWN });
    this.rig.enable(3, (vector) => {
      this.served = vector;
    });
  }

  /** What becomes of one interrupt of each vector. */
  outcomes(): string[] {
    return [0, 1, 2].map((vector) => {
      this.served = -1;
      const counts = during(this.host.machine.tap, () => this.rig.ring(vector));
      expect(counts.sent).toBe(1);
      const [loss] = Object.keys(counts.lost);
      if (counts.delivered === 1) {
        expect(this.served).toBe(vector);
        return 'delivered';
      }
      return loss ?? (counts.pending === 1 ? 'pending' : 'coalesced');
    });
  }

  store(pa: number, value: bigint): void {
    this.host.machine.memory.write64(pa, lo32(value), hi32(value));
  }

  /** Replaces one word: it holds while cached, `broken` becomes of it once the hardware is told, and it can be repaired. */
  damage(pa: number, value: bigint, tell: () => void, broken: readonly string[]): void {
    const whole = word(this.host, pa);
    expect(this.outcomes()).toEqual(ALL);
    this.store(pa, value);
    expect(this.outcomes()).toEqual(ALL);
    tell();
    expect(this.outcomes()).toEqual(broken);
    expect(this.outcomes()).toEqual(broken);
    this.store(pa, whole);
    tell();
    expect(this.outcomes()).toEqual(ALL);
  }

  close(): void {
    this.rig.close();
  }
}

describe('SMMUv3', () => {
  const walks = ({ host }: Scene): [Walk, Walk] => [walk(host, SID, SHARED), walk(host, SID, OWN)];
  const events = ({ host }: Scene): number => host.machine.tap.ledger[Count.FAULTS]!;

  it('a leaf: the vector whose doorbell it maps', () => {
    const scene = new Scene('arm-its');
    const [, own] = walks(scene);
    expect(own.pa).toBe(ITS + GITS_TRANSLATER);
    const { at, descriptor } = own.steps.at(-1)!;
    scene.damage(at, descriptor & ~1n, () => invalidatePage(scene.host, own.asid, OWN), [
      'delivered',
      'IOMMU_FAULT',
      'delivered',
    ]);
    scene.close();
  });

  it('the other leaf: both vectors that share it', () => {
    const scene = new Scene('arm-its');
    const [shared] = walks(scene);
    const { at } = shared.steps.at(-1)!;
    scene.damage(at, 0n, () => invalidatePage(scene.host, shared.asid, SHARED), [
      'IOMMU_FAULT',
      'delivered',
      'IOMMU_FAULT',
    ]);
    scene.close();
  });

  it('a leaf that became read-only: F_PERMISSION', () => {
    const scene = new Scene('arm-its');
    const [, own] = walks(scene);
    const { at, descriptor } = own.steps.at(-1)!;
    scene.damage(at, descriptor | (1n << 7n), () => invalidatePage(scene.host, own.asid, OWN), [
      'delivered',
      'IOMMU_FAULT',
      'delivered',
    ]);
    scene.close();
  });

  it('a leaf that leads to ordinary memory: the write goes there', () => {
    const scene = new Scene('arm-its');
    const [, own] = walks(scene);
    const { at, descriptor } = own.steps.at(-1)!;
    const frame = scene.host.machine.memory.allocate(4096)!;
    const redirected = (descriptor & ~0xffff_ffff_f000n) | BigInt(frame);
    scene.damage(at, redirected, () => invalidatePage(scene.host, own.asid, OWN), [
      'delivered',
      'WENT_TO_MEMORY',
      'delivered',
    ]);
    // The message itself: event 1, at the register's offset in the page.
    expect(scene.host.machine.memory.read32(frame + 0x40)).toBe(1);
    scene.close();
  });

  it('a table of the last level: everything in its 2 MiB', () => {
    const scene = new Scene('arm-its');
    const [shared, own] = walks(scene);
    expect(shared.steps[2]!.at).not.toBe(own.steps[2]!.at);
    const tell = (): void => invalidateSpace(scene.host, shared.asid);
    scene.damage(shared.steps[2]!.at, 0n, tell, ['IOMMU_FAULT', 'delivered', 'IOMMU_FAULT']);
    scene.close();
  });

  it('the table above: everything in its 1 GiB', () => {
    const scene = new Scene('arm-its');
    const [shared, own] = walks(scene);
    expect(shared.steps[1]!.at).toBe(own.steps[1]!.at);
    const tell = (): void => invalidateSpace(scene.host, shared.asid);
    scene.damage(shared.steps[1]!.at, 0n, tell, ['IOMMU_FAULT', 'IOMMU_FAULT', 'IOMMU_FAULT']);
    scene.close();
  });

  it('a table entry that leads out of memory: an external abort of the walk', () => {
    const scene = new Scene('arm-its');
    const [shared, own] = walks(scene);
    const nowhere = (own.steps[2]!.descriptor & ~0xffff_ffff_f000n) | 0x4000_0000n;
    const tell = (): void => invalidateSpace(scene.host, shared.asid);
    scene.damage(own.steps[2]!.at, nowhere, tell, ['delivered', 'IOMMU_FAULT', 'delivered']);
    scene.close();
  });

  it('the stream table entry, not valid: C_BAD_STE, one record for each', () => {
    const scene = new Scene('arm-its');
    const [{ ste }] = walks(scene);
    const before = events(scene);
    const tell = (): void => invalidateStream(scene.host, SID);
    scene.damage(ste, word(scene.host, ste) & ~1n, tell, ['IOMMU_FAULT', 'IOMMU_FAULT', 'IOMMU_FAULT']);
    expect(events(scene) - before).toBe(6);
    const records: number[] = [];
    scene.host.iommuDriver!.drainEvents((record) => records.push(Number(record[0]! & 0xffn)));
    expect(records).toEqual(new Array(6).fill(Event.C_BAD_STE));
    scene.close();
  });

  it('the stream table entry, Config = abort: refused without a record', () => {
    const scene = new Scene('arm-its');
    const [{ ste }] = walks(scene);
    const before = events(scene);
    const tell = (): void => invalidateStream(scene.host, SID);
    scene.damage(ste, word(scene.host, ste) & ~0b1110n, tell, ['IOMMU_ABORT', 'IOMMU_ABORT', 'IOMMU_ABORT']);
    expect(events(scene)).toBe(before);
    scene.close();
  });

  it('the context descriptor: C_BAD_CD', () => {
    const scene = new Scene('arm-its');
    const [{ cd }] = walks(scene);
    const tell = (): void => invalidateContext(scene.host, SID);
    scene.damage(cd, word(scene.host, cd) & ~(1n << 31n), tell, ['IOMMU_FAULT', 'IOMMU_FAULT', 'IOMMU_FAULT']);
    const records: number[] = [];
    scene.host.iommuDriver!.drainEvents((record) => records.push(Number(record[0]! & 0xffn)));
    expect(records).toEqual(new Array(6).fill(Event.C_BAD_CD));
    scene.close();
  });
});

/** The tables of an ITS, found through its registers. */
function itsTables(host: Host) {
  const { bus } = host.machine;
  const table = (n: number) => {
    const at = ITS + GITS_BASER + n * 8;
    return parseTableBase(bus.read32(at), bus.read32(at + 4));
  };
  const [devices, collections] = [table(0), table(1)];
  const perPage = devices.pageSize / 8;
  const level1 = word(host, devices.address + Math.floor(SID / perPage) * 8);
  const page = devices.indirect ? Number(level1 & 0xf_ffff_ffff_f000n) : devices.address;
  const deviceEntry = page + (SID % perPage) * 8;
  const itt = Number(word(host, deviceEntry) & 0xf_ffff_ffff_ff00n);
  const event = (n: number) => {
    const entry = word(host, itt + n * 8);
    return {
      at: itt + n * 8,
      lpi: translationEntryLpi(lo32(entry)),
      collection: translationEntryCollection(hi32(entry)),
    };
  };
  return { deviceEntry, event, collection: (n: number) => collections.address + n * 8 };
}

describe('ITS', () => {
  const words = (): Int32Array => new Int32Array(ITS_COMMAND_SIZE / 4);
  const inv =
    ({ host }: Scene, event: number) =>
    (): void =>
      sendIts(hostIts(host, ITS), encodeInv(words(), SID, event));
  const invall =
    ({ host }: Scene, collection: number) =>
    (): void =>
      sendIts(hostIts(host, ITS), encodeInvall(words(), collection));

  it('the device table entry: every event of the device', () => {
    const scene = new Scene('arm-its');
    const { deviceEntry } = itsTables(scene.host);
    const lost = ['ITS_NO_DEVICE', 'ITS_NO_DEVICE', 'ITS_NO_DEVICE'];
    scene.damage(deviceEntry, 0n, invall(scene, 3), lost);
    scene.close();
  });

  it('one translation entry: that event alone', () => {
    const scene = new Scene('arm-its');
    const { event } = itsTables(scene.host);
    scene.damage(event(1).at, 0n, inv(scene, 1), ['delivered', 'ITS_NO_EVENT', 'delivered']);
    scene.close();
  });

  it('a translation entry that names another interrupt: it arrives as that one', () => {
    const scene = new Scene('arm-its');
    const { event } = itsTables(scene.host);
    expect(scene.outcomes()).toEqual(ALL);
    const [zero, two] = [event(0), event(2)];
    const whole = word(scene.host, two.at);
    scene.store(two.at, (whole & ~0xff_ffffn) | BigInt(zero.lpi));
    inv(scene, 2)();
    const counts = [0, 1, 2].map((vector) => scene.rig.guest.counts[vector]!);
    scene.rig.ring(2);
    expect([0, 1, 2].map((vector) => scene.rig.guest.counts[vector]! - counts[vector]!)).toEqual([1, 0, 0]);
    scene.close();
  });

  it('one collection: the events that are sent to its CPU', () => {
    const scene = new Scene('arm-its');
    const { event, collection } = itsTables(scene.host);
    // Each vector went to the CPU with the fewest interrupts.
    expect([0, 1, 2].map((n) => event(n).collection)).toEqual([0, 1, 2]);
    scene.damage(collection(2), 0n, invall(scene, 3), ['delivered', 'delivered', 'ITS_NO_COLLECTION']);
    scene.close();
  });

  it('one property byte: that interrupt waits, and comes when it is enabled again', () => {
    const scene = new Scene('arm-its');
    const { host, rig } = scene;
    const { event } = itsTables(host);
    const { bus, memory } = host.machine;
    const register = REDISTRIBUTORS + GICR_PROPBASER;
    const at = propBaseAddress(bus.read32(register), bus.read32(register + 4)) + event(1).lpi - LPI_FIRST;
    const byte = new Uint8Array(1);
    memory.read(at, byte);
    expect(byte[0]! & 1).toBe(1);
    expect(scene.outcomes()).toEqual(ALL);
    memory.write(at, new Uint8Array([byte[0]! & ~1]));
    expect(scene.outcomes()).toEqual(ALL);
    inv(scene, 1)();
    expect(scene.outcomes()).toEqual(['delivered', 'pending', 'delivered']);
    expect(scene.outcomes()).toEqual(['delivered', 'coalesced', 'delivered']);
    const served = rig.guest.counts[1]!;
    memory.write(at, byte);
    expect(rig.guest.counts[1]).toBe(served);
    const counts = during(host.machine.tap, () => {
      inv(scene, 1)();
      host.machine.work.drain();
    });
    expect(counts).toEqual({ sent: 0, delivered: 1, coalesced: 0, pending: -1, lost: {} });
    expect(rig.guest.counts[1]).toBe(served + 1);
    expect(scene.outcomes()).toEqual(ALL);
    scene.close();
  });

  it('a message in the vector itself: another event of the same device, or none', () => {
    const scene = new Scene('arm-its');
    const { host, rig } = scene;
    const entry = msixEntry(host, rig.dev, 1);
    const at = rig.dev.resources[2]!.base + 16 + 8;
    expect(entry).toEqual({ address: OWN, data: 1, masked: false });
    host.machine.bus.write32(at, 77);
    expect(scene.outcomes()).toEqual(['delivered', 'ITS_NO_EVENT', 'delivered']);
    host.machine.bus.write32(at, 1);
    expect(scene.outcomes()).toEqual(ALL);
    scene.close();
  });
});

describe('KVM', () => {
  const route = (gsi: number, data: number, address = 0x0809_0040): Uint8Array =>
    kvm_irq_routing_entry.bytes({
      gsi,
      type: KVM_IRQ_ROUTING_MSI,
      flags: KVM_MSI_VALID_DEVID,
      u: { msi: { address_lo: address, address_hi: 0, data, devid: 8 } },
    });

  it.each([
    ['no route', [route(256, 0), route(258, 2)], 'NO_ROUTE'],
    [
      "an address that is not the guest's ITS",
      [route(256, 0), route(257, 1, 0x0900_0040), route(258, 2)],
      'ROUTE_REFUSED',
    ],
    ['an event that the guest did not map', [route(256, 0), route(257, 3), route(258, 2)], 'GUEST_NOT_MAPPED'],
  ] as const)('%s: the interrupts of its gsi', (_what, routes, loss) => {
    const scene = new Scene('arm-its');
    expect(scene.outcomes()).toEqual(ALL);
    scene.rig.vm.kvm.setRouting([...routes]);
    expect(scene.outcomes()).toEqual(['delivered', loss, 'delivered']);
    scene.rig.vm.kvm.setRouting([route(256, 0), route(257, 1), route(258, 2)]);
    expect(scene.outcomes()).toEqual(ALL);
    scene.close();
  });

  it("the guest's own translation entry, in guest memory", () => {
    const scene = new Scene('arm-its');
    const { rig } = scene;
    const cpu = rig.guest.cpus[0]!;
    const read = (gpa: number): bigint => new DataView(rig.vm.memory(gpa, 8)!.slice().buffer).getBigUint64(0, true);
    const write = (gpa: number, value: bigint): void => {
      const bytes = rig.vm.memory(gpa, 8)!;
      new DataView(bytes.buffer, bytes.byteOffset).setBigUint64(0, value, true);
    };
    // KVM's table format (Documentation/virt/kvm/devices/arm-vgic-its.rst): ITT address [51:8] in bits [48:5].
    const its = 0x0808_0000;
    const high = cpu.mmioRead(its + GITS_BASER + 4, 4)!;
    const table = (high & 0xffff) * 2 ** 32 + ((cpu.mmioRead(its + GITS_BASER, 4)! & ~0xffff) >>> 0);
    const itt = Number((read(table + 8 * 8) >> 5n) & 0xfff_ffff_ffffn) * 256;
    const at = itt + 8;
    const whole = read(at);
    // MAPC again, as it is: what KVM has cached goes (vgic_its_cmd_handle_mapc).
    const tell = (): void => sendIts(guestIts(rig.vm, cpu, its), encodeMapc(new Int32Array(8), 0, 0, true));
    expect(scene.outcomes()).toEqual(ALL);
    write(at, 0n);
    expect(scene.outcomes()).toEqual(ALL);
    tell();
    expect(scene.outcomes()).toEqual(['delivered', 'GUEST_NOT_MAPPED', 'delivered']);
    write(at, whole);
    tell();
    expect(scene.outcomes()).toEqual(ALL);
    scene.close();
  });
});

describe('VT-d', () => {
  it('one entry of the interrupt remapping table: the vector that names it', () => {
    const scene = new Scene('x86');
    const { bus } = scene.host.machine;
    const table =
      (bus.read32(VTD + DMAR_IRTA_REG + 4) & 0xfffff) * 2 ** 32 + ((bus.read32(VTD + DMAR_IRTA_REG) & ~0xfff) >>> 0);
    const { address, data } = msixEntry(scene.host, scene.rig.dev, 1);
    const handle = addressHandle(address) + data;
    const at = table + handle * IRTE_SIZE;
    const tell = (): void => sendVtd(scene.host, VTD, [oneEntry(handle)]);
    scene.damage(at, word(scene.host, at) & ~1n, tell, ['delivered', 'REMAP_FAULT', 'delivered']);
    scene.close();
  });

  it("the requester in an entry: the device's own message is refused as another's", () => {
    const scene = new Scene('x86');
    const { bus } = scene.host.machine;
    const table =
      (bus.read32(VTD + DMAR_IRTA_REG + 4) & 0xfffff) * 2 ** 32 + ((bus.read32(VTD + DMAR_IRTA_REG) & ~0xfff) >>> 0);
    const { address, data } = msixEntry(scene.host, scene.rig.dev, 2);
    const handle = addressHandle(address) + data;
    const at = table + handle * IRTE_SIZE + 8;
    expect(word(scene.host, at) & 0xffffn).toBe(BigInt(SID));
    const tell = (): void => sendVtd(scene.host, VTD, [oneEntry(handle)]);
    scene.damage(at, word(scene.host, at) ^ 0x8n, tell, ['delivered', 'delivered', 'REMAP_FAULT']);
    scene.close();
  });

  it('the context entry: DMA is lost, and interrupts are not, since no table of it is on their way', () => {
    const scene = new Scene('x86');
    const { host, rig } = scene;
    const { bus } = host.machine;
    const root =
      (bus.read32(VTD + VtdReg.RTADDR + 4) & 0xfffff) * 2 ** 32 + ((bus.read32(VTD + VtdReg.RTADDR) & ~0xfff) >>> 0);
    const contexts = Number(word(host, root + 1 * 16) & ~0xfffn);
    const at = contexts + (SID & 0xff) * 16;
    const dma = (): boolean => {
      let done: boolean | null = null;
      rig.function.dmaWrite(0x10_0000, new Uint8Array([1, 2, 3, 4]), (ok) => {
        done = ok;
      });
      host.machine.work.drain();
      return done!;
    };
    const tell = (): void => sendVtd(host, VTD, [everyContext(), everyTranslation()]);
    expect(dma()).toBe(true);
    const whole = word(host, at);
    scene.store(at, whole & ~1n);
    expect(dma()).toBe(true);
    tell();
    expect(dma()).toBe(false);
    expect(scene.outcomes()).toEqual(ALL);
    scene.store(at, whole);
    tell();
    expect(dma()).toBe(true);
    scene.close();
  });
});
