/** Models and captures, carried by a machine. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CapabilityId, capabilities, extendedCapabilities } from '../src/arch/pci/index.ts';
import { captureFiles } from '../src/cli/capture-files.ts';
import {
  Bell,
  BellRegister,
  type CapturedFunction,
  CaptureError,
  capturedFunction,
  createDevice,
  Edu,
  EduRegister,
  loadDevice,
  parseLspci,
  parseSysfs,
} from '../src/devices/index.ts';
import { ALL_ON, BELL, barBase, capabilityOf, enableMsix, program, RAM, rig } from '../src/machine/pci/testing/rig.ts';
import { Count, Loss } from '../src/ports/ledger.ts';
import type { PciFunction } from '../src/ports/pci.ts';

function carry(model: PciFunction) {
  const made = rig();
  const fn = made.root.addFunction(made.root.rootBus, 8, model);
  made.root.start();
  return { ...made, fn };
}

const captured = (name: string): CapturedFunction => loadDevice(name, {}, captureFiles) as CapturedFunction;
/** Bytes that software or firmware sets: COMMAND, STATUS, cache line, latency, header type's multi-function bit, BARs, ROM, interrupt line. */
const HEADER_STATE = new Set([
  4,
  5,
  6,
  7,
  12,
  13,
  14,
  15,
  ...Array.from({ length: 24 }, (_, index) => 0x10 + index),
  0x30,
  0x31,
  0x32,
  0x33,
  0x3c,
]);

describe('captured functions', () => {
  it('show the captured bytes but for what software had set', () => {
    for (const [name, bdf] of [
      ['nvme', 4096],
      ['igb', 4096],
      ['edu-capture', 256],
    ] as const) {
      const model = captured(name);
      const { fn } = carry(model);
      const caps = capabilities((offset, size) => fn.configRead(offset, size));
      // Message control, address and data of MSI and MSI-X; PMCSR; PCIe device status.
      const state = new Set(HEADER_STATE);
      for (const { id, offset } of caps) {
        const span =
          id === CapabilityId.MSI
            ? [2, 24]
            : id === CapabilityId.MSIX
              ? [2, 4]
              : id === CapabilityId.POWER_MANAGEMENT
                ? [4, 6]
                : id === CapabilityId.EXPRESS
                  ? [10, 11]
                  : [0, 0];
        for (let at = span[0]; at < span[1]; at++) state.add(offset + at);
      }
      expect(fn.config.size).toBe(bdf);
      for (let at = 0; at < bdf; at++)
        if (!state.has(at)) expect([at, fn.configRead(at, 1)]).toEqual([at, model.spec.captured![at]]);
    }
  });

  it('nvme: 65 vectors at BAR 0 + 0x2000 fire, FLR resets', () => {
    const model = captured('nvme');
    const { fn, bell, ledger, lost } = carry(model);
    const where = capabilities((offset, size) => fn.configRead(offset, size)).map(({ id, offset }) => [id, offset]);
    expect(where).toEqual([
      [0x11, 0x40],
      [0x10, 0x80],
      [0x01, 0x60],
    ]);
    fn.configWrite(0x04, 2, ALL_ON);
    enableMsix(fn);
    for (let vector = 0; vector < 65; vector++) program(fn, vector, 100 + vector);
    for (let vector = 0; vector < 65; vector++) expect(model.raise(vector)).toBe(true);
    expect(model.raise(65)).toBe(false);
    expect(bell.arrivals.map(({ data }) => data)).toEqual(Array.from({ length: 65 }, (_, vector) => 100 + vector));
    expect([ledger[Count.SENT], lost(Loss.NOT_ENABLED)]).toEqual([66, 1]);
    fn.configWrite(0x88, 2, 0x8000);
    expect([fn.configRead(0x04, 2), fn.configRead(0x42, 2)]).toEqual([0, 64]);
  });

  it('igb: BARs of three kinds, MSI-X in BAR 3, MSI with a mask, D3hot to D0 resets', () => {
    const model = captured('igb');
    const { fn, bell, bus } = carry(model);
    fn.configWrite(0x10, 4, 0xffff_ffff);
    fn.configWrite(0x18, 4, 0xffff_ffff);
    expect([fn.configRead(0x10, 4), fn.configRead(0x18, 4)]).toEqual([0xfffe_0000, 0xffff_ffe1]);
    fn.reset();
    fn.configWrite(0x1c, 4, 0x6100_0000);
    fn.configWrite(0x10, 4, 0x6200_0000);
    fn.configWrite(0x04, 2, ALL_ON);
    enableMsix(fn);
    program(fn, 9, 9);
    expect(model.raise(9)).toBe(true);
    expect(bell.arrivals).toHaveLength(1);
    bus.write32(0x6200_0100, 0x1234);
    expect(bus.read32(0x6200_0100)).toBe(0x1234);
    // Its PMCSR at 0x44 lacks NoSoftRst.
    fn.configWrite(0x44, 2, 3);
    expect(bus.claimant(0x6200_0000)).toBeNull();
    fn.configWrite(0x44, 2, 0);
    expect(fn.configRead(0x04, 2)).toBe(0);
    expect(
      extendedCapabilities((offset, size) => fn.configRead(offset, size)).map(({ id, offset }) => [id, offset]),
    ).toEqual([
      [0x01, 0x100],
      [0x0e, 0x150],
      [0x10, 0x160],
    ]);
  });

  it('whatever is accepted as a capture can be carried, reset and driven', () => {
    const [nvme, igb] = [
      parseLspci(readFileSync(new URL('../captures/nvme.txt', import.meta.url), 'utf8'))[0],
      parseLspci(readFileSync(new URL('../captures/igb.txt', import.meta.url), 'utf8'))[0],
    ];
    const edit = fc.record({ at: fc.integer({ min: 0, max: 0x1ff }), value: fc.integer({ min: 0, max: 255 }) });
    const write = fc.record({
      at: fc.integer({ min: 0, max: 0x1ff }),
      size: fc.constantFrom(1, 2, 4),
      value: fc.integer({ min: 0, max: 0xffff_ffff }),
    });
    let carried = 0;
    fc.assert(
      fc.property(
        fc.constantFrom('nvme', 'igb'),
        fc.array(edit, { maxLength: 8 }),
        fc.array(write, { maxLength: 12 }),
        (base, edits, writes) => {
          const config = (base === 'nvme' ? nvme : igb).config.slice();
          for (const { at, value } of edits) config[at] = value;
          let model: CapturedFunction;
          try {
            model = capturedFunction(parseSysfs(config));
          } catch (error) {
            if (error instanceof CaptureError) return;
            throw error;
          }
          let made: ReturnType<typeof carry>;
          try {
            made = carry(model);
          } catch (error) {
            // A table far away in a BAR makes that BAR larger than the window of the machine: said, and no fault.
            if (error instanceof RangeError && error.message.includes('do not fit')) return;
            throw error;
          }
          const { fn, ledger, bell, allLost } = made;
          fn.configWrite(0x04, 2, ALL_ON);
          for (const { at, size, value } of writes) {
            fn.configWrite(at, size, value);
            model.raise(value & 7);
          }
          fn.reset();
          expect(ledger[Count.SENT]).toBe(
            bell.arrivals.length + ledger[Count.COALESCED] + ledger[Count.PENDING] + allLost(),
          );
          carried++;
        },
      ),
      { numRuns: 1000 },
    );
    expect(carried).toBeGreaterThan(75);
  });
});

describe('bell on a machine', () => {
  it('rings through its register, behind a sequence number that is in memory first', () => {
    const { fn, bell, bus, work } = carry(new Bell({ msix: 2048 }));
    fn.configWrite(0x04, 2, ALL_ON);
    enableMsix(fn);
    program(fn, 2047, 77);
    const registers = barBase(fn, 0);
    bus.write32(registers + BellRegister.RING, 2047);
    expect(bell.arrivals).toEqual([{ requester: 8, address: BELL + 0x40, data: 77 }]);
    bus.write32(registers + BellRegister.SEQUENCE_LO, RAM | 0);
    bus.write32(registers + BellRegister.SEQUENCE_HI, RAM / 2 ** 32);
    bus.write32(registers + BellRegister.SEQUENCE_CONTROL, 1);
    bus.write32(registers + BellRegister.RING, 2047);
    bus.write32(registers + BellRegister.RING, 2047);
    const seen: number[] = [];
    const message = bell.message.bind(bell);
    bell.message = (tx) => {
      seen.push(bus.memory.read32(RAM + 4 * 2047));
      return message(tx);
    };
    work.drain();
    expect(seen).toEqual([1, 2]);
  });

  it('1,024 of them with 2,048 vectors each are carried in far less than 1 GiB', () => {
    const before = process.memoryUsage();
    const { root } = rig();
    for (let bus = 0; bus < 128; bus++) {
      const on = root.addBridge(root.rootBus, bus, 'root-port', true).secondary;
      for (let fn = 0; fn < 8; fn++) root.addFunction(on, fn, createDevice('bell', { msix: 2048 }));
    }
    root.start();
    expect(root.functions).toHaveLength(1024);
    const after = process.memoryUsage();
    const bytes = after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers;
    expect(bytes).toBeLessThan(256 * 2 ** 20);
  });
});

describe('edu on a machine', () => {
  it('as a driver uses it: identity, MSI, DMA there and back', () => {
    const { fn, bus, bell, clock, work } = carry(new Edu({ dmaMask: Number.MAX_SAFE_INTEGER }));
    fn.configWrite(0x04, 2, ALL_ON);
    const at = barBase(fn, 0);
    expect(bus.read32(at + EduRegister.ID)).toBe(0x010000ed);
    const msi = capabilityOf(fn, CapabilityId.MSI);
    expect([msi, fn.configRead(msi + 2, 2)]).toEqual([0x40, 0x80]);
    fn.configWrite(msi + 4, 4, BELL + 0x40);
    fn.configWrite(msi + 12, 2, 0x4021);
    fn.configWrite(msi + 2, 2, 0x81);
    bus.memory.write(RAM + 0x100, Uint8Array.of(0xde, 0xad, 0xbe, 0xef));
    const dma = (source: number, destination: number, command: number): void => {
      for (const [register, value] of [
        [EduRegister.DMA_SOURCE, source],
        [EduRegister.DMA_DESTINATION, destination],
        [EduRegister.DMA_COUNT, 4],
      ] as const) {
        bus.write32(at + register, value | 0);
        bus.write32(at + register + 4, Math.floor(value / 2 ** 32));
      }
      bus.write32(at + EduRegister.DMA_COMMAND, command);
      clock.advance(100_000_000);
      work.drain();
    };
    dma(RAM + 0x100, 0x4_0000, 5);
    dma(0x4_0000, RAM + 0x200, 7);
    expect(bus.memory.read32(RAM + 0x200) >>> 0).toBe(0xefbe_adde);
    expect(bell.arrivals.map(({ data }) => data)).toEqual([0x4021, 0x4021]);
  });

  it('generates the configuration space that QEMU shows', () => {
    const { fn } = carry(new Edu());
    const real = captured('edu-capture').spec.captured!;
    const differs = Array.from({ length: 256 }, (_, at) => at).filter(
      (at) => !HEADER_STATE.has(at) && fn.configRead(at, 1) !== real[at],
    );
    expect(differs).toEqual([]);
  });
});
