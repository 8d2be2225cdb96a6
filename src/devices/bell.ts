/**
 * `bell`: belfry's own test device. It rings: a write of a vector's number raises that vector. It has a small DMA engine, and a mode in
 * which every interrupt follows a sequence number that the device writes into memory first, so that a driver can tell a lost
 * interrupt from a late one.
 *
 * Vendor 0x1b36 (whose ids QEMU hands to virtual devices), device 0xbe11: an id of this project that nobody assigned.
 * BAR 0 holds the registers below, BAR 2 the MSI-X table unless an option moves it, BAR 4 plain memory.
 */
import type {
  BarRange,
  BarSpec,
  FunctionSpec,
  MsixSpec,
  PasidSpec,
  PciFunction,
  PciPort,
  Registers,
  SriovSpec,
} from '../ports/pci.ts';
import { type DeviceOptions, OptionReader } from './options.ts';

export const BELL_VENDOR = 0x1b36;
export const BELL_DEVICE = 0xbe11;
/** A virtual function of the bell: the same, without a pin and without power management. */
export const BELL_VF_DEVICE = 0xbe12;
/** VF 0 sits at device 10, function 0 of the bus of its physical function at 00.0. */
const VF_OFFSET = 0x80;
const VF_STRIDE = 1;
const MOST_VFS = 64;
/** An SR-IOV device's VF BARs are never smaller, so that no kernel's page size makes them grow. */
const SMALLEST_VF_BAR = 0x1_0000;

/** Offsets in BAR 0. Each register is 32 bits; accesses of other sizes read zero and are dropped. */
export const BellRegister = {
  /** Reads {@link BELL_ID}. */
  ID: 0x00,
  /** Write: raises the vector with this number. */
  RING: 0x04,
  /** 1 asserts the INTx pin, 0 releases it. */
  LINE: 0x08,
  /** Bits of {@link BellStatus}. */
  STATUS: 0x0c,
  DMA_IOVA_LO: 0x10,
  DMA_IOVA_HI: 0x14,
  /** Offset in BAR 4 where the DMA's other end is. */
  DMA_LOCAL: 0x18,
  /** Bytes. */
  DMA_LENGTH: 0x1c,
  /** Bits of {@link BellDma}; a write with START begins. */
  DMA_COMMAND: 0x20,
  /** Raised when a DMA that asked for it completes. */
  DMA_VECTOR: 0x24,
  /** IOVA of the table of sequence numbers: 32 bits for each vector. */
  SEQUENCE_LO: 0x28,
  SEQUENCE_HI: 0x2c,
  /** 1: before each interrupt, write its vector's next number into the table. */
  SEQUENCE_CONTROL: 0x30,
  /** Interrupts raised since the last reset, modulo 2^32. */
  RAISED: 0x34,
  /** Sequence numbers that could not be written; their interrupts were not raised. */
  SEQUENCE_FAILED: 0x38,
  /** {@link BELL_PASID} and a PASID: the address space of the DMA. 0: that of the function itself. */
  DMA_PASID: 0x3c,
} as const;

export const BELL_ID = 0x0001_be11;
/** DMA_PASID holds a PASID. */
export const BELL_PASID = 0x8000_0000;
export const BellStatus = { BUSY: 1, DONE: 2, FAILED: 4 } as const;
/** TO_MEMORY: from BAR 4 to the IOVA; without it the other way. */
export const BellDma = { START: 1, TO_MEMORY: 2, INTERRUPT: 4 } as const;

const PAGE = 4096;
const REGISTER_BYTES = 0x40;
const WORDS = REGISTER_BYTES / 4;

export class Bell implements PciFunction, Registers {
  readonly spec: FunctionSpec;
  private readonly memorySize: number;
  private readonly options: DeviceOptions;
  private port: PciPort | null = null;
  private readonly words = new Int32Array(WORDS);
  /** The next sequence number of each vector. */
  private readonly sequence = new Map<number, number>();

  /**
   * Options: `msix` 0 to 2048 vectors (32), `msi` 0, 1, 2, 4, 8, 16 or 32 messages (32), `perVectorMask` of MSI (true), `address64` of MSI
   * (true), `tableBar` 0, 2 or 4 (2), `tableOffset`, `pbaBar`, `pbaOffset` (after the table), `memory` bytes of BAR 4 (65536),
   * `intx` (true), `express` (true), `flr` (true), `acs` (false), `vfs` virtual functions that SR-IOV can make of it, 0 to 64 (0),
   * `pasid` bits of its PASIDs, 0 (none) to 20 (0), `pasidExecute` and `pasidPrivileged` (false).
   * `virtual` makes one of those.
   * @throws RangeError naming the option.
   */
  constructor(options: DeviceOptions = {}, virtual = false) {
    this.options = options;
    const read = new OptionReader('bell', options);
    this.memorySize = 2 ** Math.ceil(Math.log2(read.integer('memory', 0x1_0000, PAGE, 2 ** 28)));
    const spec = bellSpec(read, this.memorySize, this);
    const vfs = read.integer('vfs', 0, 0, MOST_VFS);
    if (vfs > 0 && spec.express === undefined) throw read.error('vfs', 'expected 0 without express', vfs);
    read.finish();
    this.spec = virtual ? virtualSpec(spec) : vfs === 0 ? spec : { ...spec, sriov: sriovSpec(spec, vfs) };
  }

  virtualFunction(): PciFunction {
    return new Bell(this.options, true);
  }

  connect(port: PciPort): void {
    this.port = port;
  }

  reset(): void {
    this.words.fill(0);
    this.sequence.clear();
  }

  /** Raises `vector` as a write to RING does: at once, or behind its sequence number. */
  ring(vector: number): void {
    const port = this.port;
    if (port === null) return;
    if ((this.words[BellRegister.SEQUENCE_CONTROL >> 2] & 1) === 0) {
      this.raise(port, vector);
      return;
    }
    const next = (this.sequence.get(vector) ?? 0) + 1;
    this.sequence.set(vector, next);
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, next, true);
    port.dmaWrite(this.pair(BellRegister.SEQUENCE_LO) + vector * 4, bytes, (ok) => {
      if (ok) this.raise(port, vector);
      else this.words[BellRegister.SEQUENCE_FAILED >> 2]++;
    });
  }

  read(offset: number, size: number): number {
    if (size !== 4 || offset >= REGISTER_BYTES) return 0;
    if (offset === BellRegister.ID) return BELL_ID;
    return this.words[offset >> 2];
  }

  write(offset: number, size: number, value: number): void {
    if (size !== 4 || offset >= REGISTER_BYTES) return;
    switch (offset) {
      case BellRegister.RING:
        this.ring(value >>> 0);
        return;
      case BellRegister.LINE:
        this.words[offset >> 2] = value & 1;
        this.port?.setInterruptLine((value & 1) !== 0);
        return;
      case BellRegister.DMA_COMMAND:
        this.words[offset >> 2] = value;
        if ((value & BellDma.START) !== 0) this.startDma(value);
        return;
      case BellRegister.ID:
      case BellRegister.STATUS:
      case BellRegister.RAISED:
      case BellRegister.SEQUENCE_FAILED:
        return;
      default:
        this.words[offset >> 2] = value;
    }
  }

  private raise(port: PciPort, vector: number): void {
    this.words[BellRegister.RAISED >> 2]++;
    port.raise(vector);
  }

  private pair(lo: number): number {
    return (this.words[(lo >> 2) + 1] >>> 0) * 2 ** 32 + (this.words[lo >> 2] >>> 0);
  }

  private startDma(command: number): void {
    const { words, port } = this;
    const status = BellRegister.STATUS >> 2;
    if (port === null || (words[status] & BellStatus.BUSY) !== 0) return;
    const local = words[BellRegister.DMA_LOCAL >> 2] >>> 0;
    const length = words[BellRegister.DMA_LENGTH >> 2] >>> 0;
    if (local + length > this.memorySize) {
      words[status] = BellStatus.DONE | BellStatus.FAILED;
      return;
    }
    words[status] = BellStatus.BUSY;
    const done = (ok: boolean): void => {
      words[status] = BellStatus.DONE | (ok ? 0 : BellStatus.FAILED);
      if ((command & BellDma.INTERRUPT) !== 0) this.ring(words[BellRegister.DMA_VECTOR >> 2] >>> 0);
    };
    const iova = this.pair(BellRegister.DMA_IOVA_LO);
    const memory = port.barMemory(4, 0, this.memorySize).subarray(local, local + length);
    const named = words[BellRegister.DMA_PASID >> 2] >>> 0;
    const pasid = named >= BELL_PASID ? named - BELL_PASID : undefined;
    const store = (ok: boolean, bytes: Uint8Array): void => {
      if (ok) memory.set(bytes);
      done(ok);
    };
    if ((command & BellDma.TO_MEMORY) !== 0) port.dmaWrite(iova, memory, done, pasid);
    else port.dmaRead(iova, length, store, pasid);
  }
}

function bellSpec(read: OptionReader, memorySize: number, registers: Registers): FunctionSpec {
  const msi = read.oneOf('msi', 32, [0, 1, 2, 4, 8, 16, 32]);
  const perVectorMask = read.boolean('perVectorMask', true);
  const address64 = read.boolean('address64', true);
  const vectors = read.integer('msix', 32, 0, 2048);
  const msix = vectors === 0 ? null : placeTable(read, vectors, memorySize);
  if (vectors === 0) placeTable(read, 1, memorySize);
  const intx = read.boolean('intx', true);
  const express = read.boolean('express', true);
  const flr = read.boolean('flr', true);
  const acs = read.boolean('acs', false);
  const pasid = pasidSpec(read, express);
  return {
    name: 'bell',
    vendorId: BELL_VENDOR,
    deviceId: BELL_DEVICE,
    revision: 1,
    classCode: 0xff0000,
    bars: bellBars(msix, memorySize, registers),
    ...(msi > 0 ? { msi: { vectors: msi, perVectorMask, address64 } } : {}),
    ...(msix !== null ? { msix } : {}),
    ...(intx ? { interruptPin: 1 } : {}),
    ...(express ? { express: { type: 'endpoint', flr, acs } } : {}),
    ...(pasid !== null ? { pasid } : {}),
    powerManagement: true,
  };
}

function pasidSpec(read: OptionReader, express: boolean): PasidSpec | null {
  const bits = read.integer('pasid', 0, 0, 20);
  const execute = read.boolean('pasidExecute', false);
  const privileged = read.boolean('pasidPrivileged', false);
  if (bits > 0 && !express) throw read.error('pasid', 'expected 0 without express', bits);
  return bits === 0 ? null : { bits, execute, privileged };
}

/** A virtual function has the BARs of the physical one, each at least 64 KiB, and shares its PASID capability. */
function virtualSpec({
  interruptPin: _pin,
  powerManagement: _power,
  pasid: _pasid,
  ...spec
}: FunctionSpec): FunctionSpec {
  const bars = spec.bars.map((bar) => (bar === null ? null : { ...bar, size: Math.max(bar.size, SMALLEST_VF_BAR) }));
  return { ...spec, name: 'bell VF', deviceId: BELL_VF_DEVICE, bars };
}

const sriovSpec = (spec: FunctionSpec, totalVfs: number): SriovSpec => ({
  totalVfs,
  vfDeviceId: BELL_VF_DEVICE,
  offset: VF_OFFSET,
  stride: VF_STRIDE,
  bars: virtualSpec(spec).bars,
});

/** Offsets at which each BAR's own contents end, and the table may begin. */
const ownEnd = (bar: number, memorySize: number): number => (bar === 0 ? PAGE : bar === 4 ? memorySize : 0);

function placeTable(read: OptionReader, vectors: number, memorySize: number): MsixSpec {
  const largest = 2 ** 30;
  const bar = read.oneOf('tableBar', 2, [0, 2, 4]);
  const offset = read.integer('tableOffset', ownEnd(bar, memorySize), ownEnd(bar, memorySize), largest);
  const end = offset + vectors * 16;
  const pbaBar = read.oneOf('pbaBar', bar, [0, 2, 4]);
  const free =
    Math.ceil((pbaBar === bar ? Math.max(end, ownEnd(bar, memorySize)) : ownEnd(pbaBar, memorySize)) / PAGE) * PAGE;
  const pba = read.integer('pbaOffset', free, ownEnd(pbaBar, memorySize), largest);
  if (offset % 8 !== 0) throw read.error('tableOffset', 'expected a multiple of 8', offset);
  if (pba % 8 !== 0) throw read.error('pbaOffset', 'expected a multiple of 8', pba);
  const pbaEnd = pba + Math.ceil(vectors / 64) * 8;
  if (pbaBar === bar && pba < end && offset < pbaEnd) {
    throw read.error('pbaOffset', `expected a place outside of the table at [${offset}, ${end})`, pba);
  }
  return { vectors, table: { bar, offset }, pba: { bar: pbaBar, offset: pba } };
}

function bellBars(msix: MsixSpec | null, memorySize: number, registers: Registers): (BarSpec | null)[] {
  const size = (bar: number): number => {
    const table = msix?.table.bar === bar ? msix.table.offset + msix.vectors * 16 : 0;
    const pba = msix?.pba.bar === bar ? msix.pba.offset + Math.ceil(msix.vectors / 64) * 8 : 0;
    const used = Math.max(ownEnd(bar, memorySize), table, pba);
    return used === 0 ? 0 : 2 ** Math.ceil(Math.log2(Math.max(used, PAGE)));
  };
  const high = (bar: number, ranges: readonly BarRange[]): BarSpec | null =>
    size(bar) === 0 ? null : { type: 'memory64', prefetchable: true, size: size(bar), ranges };
  return [
    { type: 'memory32', size: size(0), ranges: [{ kind: 'registers', offset: 0, size: REGISTER_BYTES, registers }] },
    null,
    high(2, []),
    null,
    high(4, [{ kind: 'memory', offset: 0, size: memorySize }]),
    null,
  ];
}
