/** A function made from what a real one shows. It has the real one's configuration space, BARs and capabilities, and none of its behaviour. */
import {
  Bar,
  CapabilityId,
  CONFIG_SIZE,
  findCapability,
  Header,
  Header0,
  MSIX_BAR_MASK,
  Msi,
  MsiFlags,
  Msix,
  msiCapable,
  msixVectors,
} from '../arch/pci/index.ts';
import type { BarRange, BarSpec, FunctionSpec, PciFunction, PciPort } from '../ports/pci.ts';
import { type Capture, reader } from './capture.ts';

/** BARs up to this size are backed with bytes; larger ones read as zero outside of the MSI-X table. */
export const CAPTURED_MEMORY_LIMIT = 2 ** 20;

export interface CapturedOptions {
  /** The name in messages; default: lspci's slot and words. */
  readonly name?: string;
}

/**
 * A function that a machine can carry, from a capture of {@link parseLspci} or {@link parseSysfs}.
 *
 * @example
 * const [igb] = parseLspci(text);
 * const device = capturedFunction(igb);
 * device.raise(3); // as if the device had something to tell
 */
export function capturedFunction(capture: Capture, options: CapturedOptions = {}): CapturedFunction {
  return new CapturedFunction(capture, options);
}

export class CapturedFunction implements PciFunction {
  readonly spec: FunctionSpec;
  private port: PciPort | null = null;

  constructor(capture: Capture, options: CapturedOptions = {}) {
    this.spec = specOf(capture, options.name ?? `${capture.slot} ${capture.title}`.trim());
  }

  connect(port: PciPort): void {
    this.port = port;
  }

  reset(): void {
    this.port?.setInterruptLine(false);
  }

  /** Raises a vector, as the real device would on an event of its own. False as {@link PciPort.raise}; also before a machine carries it. */
  raise(vector: number): boolean {
    return this.port?.raise(vector) ?? false;
  }

  /** Drives the INTx pin. */
  setInterruptLine(asserted: boolean): void {
    this.port?.setInterruptLine(asserted);
  }

  /** DMA in the device's name. */
  get dma(): Pick<PciPort, 'dmaRead' | 'dmaWrite'> | null {
    return this.port;
  }
}

function specOf(capture: Capture, name: string): FunctionSpec {
  const { config } = capture;
  const read = reader(config);
  const msi = findCapability(read, CapabilityId.MSI);
  const msix = findCapability(read, CapabilityId.MSIX);
  const express = findCapability(read, CapabilityId.EXPRESS);
  const pin = read(Header.INTERRUPT_PIN, 1);
  return {
    name,
    vendorId: read(Header.VENDOR_ID, 2),
    deviceId: read(Header.DEVICE_ID, 2),
    subsystemVendorId: read(Header0.SUBSYSTEM_VENDOR_ID, 2),
    subsystemId: read(Header0.SUBSYSTEM_ID, 2),
    revision: read(Header.REVISION, 1),
    classCode: read(Header.CLASS_CODE, 3),
    bars: capture.bars.map((bar) => (bar === null ? null : { ...bar, ranges: rangesOf(bar) })),
    ...romOf(capture.romSize),
    ...(msi === 0 ? {} : { msi: msiOf(read(msi + Msi.FLAGS, 2)) }),
    ...(msix === 0 ? {} : { msix: msixOf(read, msix) }),
    ...(pin === 0 ? {} : { interruptPin: pin }),
    ...(express === 0 || config.length === CONFIG_SIZE ? {} : { express: { type: 'endpoint' } }),
    captured: config,
  };
}

const rangesOf = (bar: BarSpec): BarRange[] =>
  bar.type !== 'io' && bar.size <= CAPTURED_MEMORY_LIMIT ? [{ kind: 'memory', offset: 0, size: bar.size }] : [];

/** An empty image: every byte reads 0xff. */
function romOf(size: number): { rom?: { size: number; image: Uint8Array } } {
  const fits = Number.isInteger(Math.log2(size)) && size >= -Bar.ROM_MASK && size <= 2 ** 24;
  return fits ? { rom: { size, image: new Uint8Array(0) } } : {};
}

const msiOf = (flags: number): NonNullable<FunctionSpec['msi']> => ({
  vectors: msiCapable(flags),
  address64: (flags & MsiFlags.ADDRESS_64) !== 0,
  perVectorMask: (flags & MsiFlags.PER_VECTOR_MASK) !== 0,
});

function msixOf(read: (offset: number, size: number) => number, at: number): NonNullable<FunctionSpec['msix']> {
  const place = (register: number): { bar: number; offset: number } => ({
    bar: register & MSIX_BAR_MASK,
    offset: (register & ~MSIX_BAR_MASK) >>> 0,
  });
  return {
    vectors: msixVectors(read(at + Msix.FLAGS, 2)),
    table: place(read(at + Msix.TABLE, 4)),
    pba: place(read(at + Msix.PBA, 4)),
  };
}
