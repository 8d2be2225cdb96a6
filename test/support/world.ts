/**
 * A host with two bells for random programs, and everything that must hold at each of their steps, whoever owns the devices.
 */

import { lo32 } from '../../src/arch/bits.ts';
import { GITS_BASER, parseTableBase, translationEntryLpi } from '../../src/arch/gic/index.ts';
import { CapabilityId, Command, Header, Power } from '../../src/arch/pci/index.ts';
import type { Bell } from '../../src/devices/index.ts';
import type { Host } from '../../src/kernel/boot/boot.ts';
import { ItsMsiParent } from '../../src/kernel/irq/its-parent.ts';
import { GicV2mMsiParent } from '../../src/kernel/irq/v2m-parent.ts';
import type { PciDevice } from '../../src/kernel/pci/pci-device.ts';
import type { HostFunction } from '../../src/machine/pci/function.ts';
import { type PresetName, presetInput } from '../../src/machine/presets.ts';
import { Count, LEDGER_SIZE } from '../../src/ports/ledger.ts';
import { pciName } from '../../src/ports/pci.ts';
import type { Hop } from '../../src/ports/tap.ts';
import { countsOf } from './counts.ts';
import { oneDevice, testHost } from './host.ts';
import { msixEntry } from './messages.ts';
import { word } from './walk.ts';

export const VECTORS = 8;
/** One instruction of a program: what, on which device, and two numbers that it makes something of. */
export type Step = readonly [op: number, device: number, a: number, b: number];

/** Whoever owns the devices during a program. */
export interface Owner {
  /** Does one step; what cannot be done now is refused or left out. */
  step(step: Step): void;
  /** Does the device reach the page at this IOVA now? */
  reaches(device: number, iova: number): boolean;
  /** The word that memory behind the IOVA must hold now that the device wrote `value` there. */
  wrote(iova: number, value: number): void;
  /** Compares all memory that the owner has with what it should hold. */
  checkMemory(): void;
  /** Gives everything back in order. */
  close(): void;
  /** The process is gone without a word. */
  kill(): void;
}

export class World {
  readonly host: Host;
  readonly names: readonly string[];
  readonly devs: readonly PciDevice[];
  readonly functions: readonly HostFunction[];
  /** Pages of a process that hands over nothing: their addresses, and what is in them. */
  readonly bystander: { readonly pa: number; readonly bytes: Uint8Array };
  private baseline: { memory: number; vectors: string } | null = null;
  private lastDevice = '';

  constructor(name: PresetName) {
    const input = presetInput(name);
    const options = { msix: VECTORS, msi: VECTORS };
    const [first] = oneDevice('bell', options);
    const slots = [first!, { ...first!, at: '02.0' }];
    this.host = testHost(name, { allowUnsafeInterrupts: true, input: { ...input, pci: { ...input.pci, slots } } });
    this.devs = this.host.pciDevices.filter((dev) => !dev.isBridge);
    this.names = this.devs.map((dev) => dev.name);
    this.functions = this.names.map((device) => this.host.machine.pci.function(device)!);
    this.bystander = this.makeBystander();
  }

  get counts() {
    return countsOf(this.host.machine.tap);
  }

  model(device: number): Bell {
    return this.functions[device]!.model as Bell;
  }

  settle(): void {
    this.host.machine.work.drain();
  }

  /** Every hop at a controller is looked at: whose message came there, and whose interrupt became of it. */
  observe(on: boolean): void {
    this.host.machine.tap.observer = on ? { hop: (hop) => this.check(hop) } : null;
  }

  /** The device writes 4 bytes; whether that worked, and where they went, must be what the owner says. */
  dma(owner: Owner, device: number, iova: number, value: number): void {
    const before = this.bystander.bytes.slice();
    const expected = owner.reaches(device, iova);
    let done: boolean | null = null;
    const bytes = new Uint8Array(Uint32Array.of(value).buffer);
    this.functions[device]!.dmaWrite(iova, bytes, (ok) => {
      done = ok;
    });
    this.settle();
    if (done !== expected) {
      throw new Error(`DMA of ${this.names[device]} to 0x${iova.toString(16)}: ${done}, expected ${expected}`);
    }
    if (expected) owner.wrote(iova, value);
    owner.checkMemory();
    if (!Buffer.from(before).equals(this.bystander.bytes)) throw new Error('DMA reached memory of another process');
  }

  /** An administrator sends one of the device's interrupts to another CPU: its message is composed anew, and keeps its IOVA. */
  moveInterrupt(device: number, which: number, cpu: number): void {
    const { msi, machine } = this.host;
    const dev = this.devs[device]!;
    const vectors = msi.vectors(dev);
    if (vectors.length === 0) return;
    const { desc } = vectors[which % vectors.length]!;
    const parent = msi.msiParent(dev);
    if (parent instanceof ItsMsiParent || parent instanceof GicV2mMsiParent) {
      parent.setAffinity(desc, cpu % machine.spec.cpus);
    }
    msi.recompose(desc.irq);
  }

  /** The doorbell pages of the host's controllers. */
  isDoorbell(pa: number): boolean {
    const { interrupts } = this.host.machine;
    if (interrupts.type !== 'gic') return false;
    return [...interrupts.its, ...interrupts.v2m].some(({ doorbells }) =>
      doorbells.some(({ base, size }) => pa >= base && pa < base + size),
    );
  }

  /** Whose message came to a controller, and whose interrupt the kernel made of it. */
  check(hop: Hop): void {
    if (hop.at === 'controller') {
      this.lastDevice = pciName({
        segment: hop.deviceId >>> 16,
        bus: (hop.deviceId >>> 8) & 0xff,
        device: (hop.deviceId >>> 3) & 31,
        function: hop.deviceId & 7,
      });
      if (!this.names.includes(this.lastDevice)) throw new Error(`a message of ${this.lastDevice}`);
    } else if (hop.at === 'irq' && !hop.action.includes(this.lastDevice)) {
      throw new Error(`a message of ${this.lastDevice} became ${hop.action}`);
    }
  }

  /** sent = delivered + coalesced + pending + lost. */
  checkLedger(): void {
    const { ledger } = this.host.machine.tap;
    let ended = ledger[Count.DELIVERED]! + ledger[Count.COALESCED]! + ledger[Count.PENDING]!;
    for (let slot = Count.LOST as number; slot < LEDGER_SIZE; slot++) ended += ledger[slot]!;
    if (ledger[Count.SENT] === ended && ledger[Count.PENDING]! >= 0) return;
    throw new Error(`the ledger is not even: ${JSON.stringify(this.counts)}`);
  }

  /** Each message that is programmed translates to a doorbell, through the tables that its device uses now. */
  checkMessages(): void {
    if (this.host.machine.spec.architecture === 'x86') return;
    for (const dev of this.devs) {
      const domain = dev.iommuGroup!.domain;
      for (const { desc } of this.host.msi.vectors(dev)) {
        const { addressHi, addressLo } = desc.message;
        const address = (addressHi >>> 0) * 2 ** 32 + (addressLo >>> 0);
        const pa = domain.lookup(address);
        if (!this.isDoorbell(pa)) throw new Error(`vector ${desc.index} of ${dev.name} writes to 0x${pa.toString(16)}`);
      }
    }
  }

  /** Nothing is left of a program: compared with what was there before the first. */
  checkNothingLeft(): void {
    this.observe(false);
    const { memory } = this.host.machine;
    for (const dev of this.devs) {
      if (this.host.msi.mode(dev) !== null) throw new Error(`${dev.name} still has vectors`);
      const group = this.host.groups!.groups.find(({ devices }) => devices.includes(dev))!;
      if (group.dmaOwner !== null || group.domain !== group.defaultDomain)
        throw new Error(`group ${group.id} is not free`);
    }
    const handlers = this.host.irqs.interrupts().filter(({ action }) => action.startsWith('vfio'));
    if (handlers.length > 0) throw new Error(`handlers are left: ${handlers.map(({ action }) => action)}`);
    if (this.counts.pending !== 0) throw new Error(`${this.counts.pending} interrupts are pending and nobody is there`);
    const vectors = this.firstVectors();
    const found = { memory: memory.allocated, vectors };
    this.baseline ??= found;
    if (found.memory !== this.baseline.memory || found.vectors !== this.baseline.vectors) {
      throw new Error(`left behind: ${JSON.stringify(found)}, before the programs ${JSON.stringify(this.baseline)}`);
    }
  }

  /** What a host driver gets first: the lowest LPI, SPI or remapping entry when all are free. */
  private firstVectors(): string {
    return this.devs
      .map((dev) => {
        // A closed device sleeps (D3hot); a driver wakes it first.
        dev.configWrite(dev.capability(CapabilityId.POWER_MANAGEMENT) + Power.CONTROL, 2, Power.D0);
        dev.configWrite(Header.COMMAND, 2, Command.MEMORY | Command.BUS_MASTER);
        const given = this.host.msi.allocIrqVectors(dev, VECTORS, VECTORS, 'msix');
        const { data, address } = msixEntry(this.host, dev, 0);
        const lpi = this.host.machine.spec.name === 'arm-its' ? this.lpi(dev.requester) : 0;
        this.host.msi.freeIrqVectors(dev);
        dev.configWrite(Header.COMMAND, 2, Command.MEMORY);
        return `${given}:${address.toString(16)}:${data}:${lpi}`;
      })
      .join(' ');
  }

  /** The LPI of event 0, by the ITS's tables in memory. */
  private lpi(device: number): number {
    const { bus, interrupts } = this.host.machine;
    const at = (interrupts.type === 'gic' ? interrupts.its[0]!.base : 0) + GITS_BASER;
    const table = parseTableBase(bus.read32(at), bus.read32(at + 4));
    const perPage = table.pageSize / 8;
    const level1 = word(this.host, table.address + Math.floor(device / perPage) * 8);
    const page = table.indirect ? Number(level1 & 0xf_ffff_ffff_f000n) : table.address;
    const itt = Number(word(this.host, page + (device % perPage) * 8) & 0xf_ffff_ffff_ff00n);
    return translationEntryLpi(lo32(word(this.host, itt)));
  }

  private makeBystander(): { pa: number; bytes: Uint8Array } {
    const { process, kernel } = this.host.process({ comm: 'bystander' });
    const buffer = kernel.allocate(4096);
    if (typeof buffer === 'number') throw new Error('no page for the bystander');
    buffer.bytes.fill(0xa5);
    const pinned = process.memory.pin(buffer.address, 4096, false);
    if (typeof pinned === 'number') throw new Error('the page cannot be found');
    const { pa } = pinned.runs[0]!;
    pinned.release();
    return { pa, bytes: buffer.bytes };
  }
}
