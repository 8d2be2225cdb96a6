/**
 * `nvme-drive`: an NVM Express 1.4 controller with one namespace in memory or in a file. What Linux' nvme driver, SPDK and drivers like them
 * need: queues, PRPs, the mandatory admin and I/O commands, asynchronous events, MSI-X, MSI and the pin.
 *
 * Vendor 0x1b36 (whose ids QEMU hands to virtual devices), device 0xbe13: an id of this project that nobody assigned; drivers find NVMe by its class.
 * BAR 0: 16 KiB, registers, doorbells at 0x1000, the MSI-X table at 0x2000, its pending bits at 0x3000.
 */
import type { BlockStore } from '../../ports/block-store.ts';
import type { FunctionSpec, PciFunction, PciPort, Registers } from '../../ports/pci.ts';
import { MemoryStore } from '../memory-store.ts';
import { type DeviceOptions, OptionReader } from '../options.ts';
import { AdminCommands } from './admin.ts';
import { type EngineOwner, QueueEngine } from './engine.ts';
import { AsyncEvents, ErrorEvent, EventType } from './events.ts';
import { Features } from './features.ts';
import { HostMemory } from './host-memory.ts';
import { Interrupts } from './interrupts.ts';
import { executeIo, startBlock } from './io.ts';
import { LogPage, Logs } from './logs.ts';
import { Namespace } from './namespace.ts';
import type { Command } from './queues.ts';
import { Cc, Csts, NVME_VERSION, NvmeStatus, NvmeRegister as R } from './registers.ts';

export const NVME_DRIVE_VENDOR = 0x1b36;
export const NVME_DRIVE_DEVICE = 0xbe13;
const TABLE = 0x2000;
const PENDING = 0x3000;
const BAR_BYTES = 0x4000;
const MOST_QUEUES = 255;
/** CAP: contiguous queues, 7.5 s to become ready, the NVM command set, pages of 4 KiB to 64 KiB. */
const CAP_LO = (1 << 16) | (15 << 24);
const CAP_HI = (1 << 5) | (4 << 20);
const LARGEST_PAGE = 0x1_0000;

export interface NvmeDriveParts {
  /** Where the blocks are; without it they are in memory, `size` bytes of them. */
  readonly store?: BlockStore;
}

export class NvmeDrive implements PciFunction, Registers, EngineOwner {
  readonly spec: FunctionSpec;
  readonly memory = new HostMemory();
  readonly interrupts: Interrupts;
  private readonly ownStore: MemoryStore | null;
  private readonly namespace: Namespace;
  private readonly engine: QueueEngine;
  private readonly features: Features;
  private readonly events: AsyncEvents;
  private readonly logs = new Logs();
  private readonly admin: AdminCommands;
  private readonly mostEntries: number;
  private cc = 0;
  private csts = 0;
  private aqa = 0;
  /** ASQ and ACQ: low and high word of each. */
  private readonly adminBases = new Uint32Array(4);

  /**
   * Options: `size` of the namespace in bytes, 1M to 8T (64M), or `file`, which whoever makes the drive opens, `blockSize` 512 or 4096 (512), `readOnly` (false), `serial` up to 20 characters
   * (BELFRY0001), `queues` 1 to 255 I/O queues of each kind (64), `entries` 2 to 65536 of a queue at most (1024), `msix` (true), `msi` 1 to 32 messages or
   * 0 (32), `intx` (true).
   * @throws RangeError naming the option.
   */
  constructor(options: DeviceOptions = {}, { store }: NvmeDriveParts = {}) {
    const read = new OptionReader('nvme-drive', options);
    const file = read.text('file', '', 4096);
    if (file !== '' && store === undefined) throw read.error('file', 'expected a carrier that opens files', file);
    if (store !== undefined && read.has('size')) throw new RangeError('nvme-drive: size: a file has its own');
    const size = store === undefined ? read.bytes('size', 2 ** 26, 2 ** 20, 2 ** 43) : store.size;
    const blockBytes = read.oneOf('blockSize', 512, [512, 4096]);
    const readOnly = read.boolean('readOnly', false);
    const serial = read.text('serial', 'BELFRY0001', 20);
    const queues = read.integer('queues', 64, 1, MOST_QUEUES);
    this.mostEntries = read.integer('entries', 1024, 2, 65536);
    this.spec = driveSpec(read, queues, this);
    read.finish();
    if (size < blockBytes) throw read.error('file', `expected at least ${blockBytes} bytes in it`, size);
    this.ownStore = store === undefined ? new MemoryStore(size) : null;
    this.namespace = new Namespace(store ?? this.ownStore!, blockBytes, readOnly);
    this.engine = new QueueEngine(this);
    this.interrupts = new Interrupts(() => this.engine.completions.values());
    this.features = new Features(queues);
    this.events = new AsyncEvents((command, status, result) => this.engine.answer(command, status, result));
    this.admin = new AdminCommands(this.adminContext(serial, queues));
  }

  connect(port: PciPort): void {
    this.memory.port = port;
    this.interrupts.port = port;
  }

  /** Conventional and function level reset: everything but the medium and what is counted. */
  reset(): void {
    this.memory.forget();
    this.forgetState();
    this.cc = 0;
    this.csts = 0;
    this.aqa = 0;
    this.adminBases.fill(0);
  }

  /**
   * Gives the namespace another size, and tells a host that asked for such notices.
   * @throws RangeError for a namespace in a file, and for a size below one block.
   */
  resize(bytes: number): void {
    if (this.ownStore === null) throw new RangeError('nvme-drive: resize: the namespace is in a file');
    if (!Number.isSafeInteger(bytes) || bytes < this.namespace.blockBytes)
      throw new RangeError(`nvme-drive: resize: expected at least ${this.namespace.blockBytes} bytes, got ${bytes}`);
    this.ownStore.resize(bytes);
    this.admin.namespaceChanged();
  }

  read(offset: number, size: number): number {
    const lane = offset & 3;
    if (lane + size > 4) return 0;
    const word = this.readWord(offset - lane);
    return size === 4 ? word : (word >>> (lane << 3)) & (size === 2 ? 0xffff : 0xff);
  }

  /** Registers take 32 bits; other sizes are dropped. */
  write(offset: number, size: number, value: number): void {
    if (size !== 4 || offset % 4 !== 0) return;
    if (offset >= R.DOORBELLS) this.ring((offset - R.DOORBELLS) >> 2, value >>> 0);
    else if (offset === R.INTMS) this.interrupts.setMask(value);
    else if (offset === R.INTMC) this.interrupts.clearMask(value);
    else if (offset === R.CC) this.configure(value & Cc.WRITABLE);
    else if (offset === R.AQA) this.aqa = value & 0x0fff_0fff;
    else if (offset >= R.ASQ && offset < R.ACQ + 8) {
      const word = (offset - R.ASQ) >> 2;
      this.adminBases[word] = word % 2 === 0 ? value & ~0xfff : value;
    }
  }

  execute(command: Command): void {
    if (command.queue.id === 0) this.admin.execute(command);
    else
      executeIo(
        {
          memory: this.memory,
          namespace: this.namespace,
          logs: this.logs,
          pageBytes: Cc.pageBytes(this.cc),
          answer: (answered, status) => this.engine.answer(answered, status),
        },
        command,
      );
  }

  answered(command: Command, status: number): void {
    if (status !== NvmeStatus.SUCCESS)
      this.logs.failed(command, status, command.queue.id === 0 ? 0 : startBlock(command));
  }

  /** Controller fatal status: nothing more happens before a reset. */
  fatal(): void {
    this.csts |= Csts.CFS;
    this.memory.stop(() => {});
  }

  private adminContext(serial: string, queues: number): ConstructorParameters<typeof AdminCommands>[0] {
    const { spec, engine, memory, namespace, logs, features, events, mostEntries } = this;
    const cc = (): number => this.cc;
    return {
      ...{ spec, serial, engine, memory, namespace, logs, features, events, mostEntries },
      vectors: queues + 1,
      get pageBytes() {
        return Cc.pageBytes(cc());
      },
      get entrySizes() {
        return { submission: Cc.sqEntryLog2(cc()) === 6, completion: Cc.cqEntryLog2(cc()) === 4 };
      },
    };
  }

  private readWord(offset: number): number {
    switch (offset) {
      case R.CAP:
        return CAP_LO | (this.mostEntries - 1);
      case R.CAP + 4:
        return CAP_HI;
      case R.VS:
        return NVME_VERSION;
      case R.INTMS:
      case R.INTMC:
        return this.interrupts.mask;
      case R.CC:
        return this.cc;
      case R.CSTS:
        return this.csts;
      case R.AQA:
        return this.aqa;
      default:
        return offset >= R.ASQ && offset < R.ACQ + 8 ? this.adminBases[(offset - R.ASQ) >> 2] | 0 : 0;
    }
  }

  private configure(cc: number): void {
    const before = this.cc;
    this.cc = cc;
    if (Cc.enabled(before) && !Cc.enabled(cc)) this.disable();
    else if (!Cc.enabled(before) && Cc.enabled(cc)) this.enable();
    if (Cc.shutdown(cc) !== 0 && Cc.shutdown(before) === 0) this.shutDown();
  }

  /** 7.6.1. A configuration that cannot be is a fatal error. */
  private enable(): void {
    const { cc, aqa, adminBases } = this;
    const pageBytes = Cc.pageBytes(cc);
    const [sqSize, cqSize] = [(aqa & 0xfff) + 1, (aqa >>> 16) + 1];
    const base = (word: number): number => adminBases[word + 1] * 2 ** 32 + adminBases[word];
    const placed = base(0) % pageBytes === 0 && base(2) % pageBytes === 0;
    const supported = Cc.commandSet(cc) === 0 && Cc.arbitration(cc) === 0 && pageBytes <= LARGEST_PAGE;
    if (!placed || !supported || sqSize < 2 || cqSize < 2) {
      this.csts = Csts.CFS;
      return;
    }
    this.engine.start({ base: base(0), size: sqSize }, { base: base(2), size: cqSize });
    this.csts = Csts.RDY;
  }

  /** Controller reset (7.3.2). RDY goes when the last access to the host's memory is done; AQA, ASQ and ACQ stay. */
  private disable(): void {
    this.forgetState();
    this.cc = 0;
    this.memory.stop(() => {
      if (!Cc.enabled(this.cc)) this.csts = 0;
    });
  }

  private forgetState(): void {
    this.engine.stop();
    this.events.reset();
    this.features.reset();
    this.interrupts.reset();
  }

  /** 7.6.2: what was written is kept. */
  private shutDown(): void {
    this.namespace.store.flush();
    this.csts = (this.csts & ~Csts.SHST_MASK) | Csts.SHST_COMPLETE;
  }

  private ring(doorbell: number, value: number): void {
    if ((this.csts & (Csts.RDY | Csts.CFS)) !== Csts.RDY || !Cc.enabled(this.cc)) return;
    const queue = doorbell >> 1;
    const taken = doorbell % 2 === 0 ? this.engine.ringTail(queue, value) : this.engine.ringHead(queue, value);
    if (taken === true) return;
    const info = taken === null ? ErrorEvent.INVALID_DOORBELL : ErrorEvent.INVALID_DOORBELL_VALUE;
    this.events.report(EventType.ERROR, info, LogPage.ERROR);
  }
}

function driveSpec(read: OptionReader, queues: number, registers: Registers): FunctionSpec {
  const vectors = queues + 1;
  const msix = read.boolean('msix', true);
  const msi = read.oneOf('msi', 32, [0, 1, 2, 4, 8, 16, 32]);
  const intx = read.boolean('intx', true);
  return {
    name: 'nvme-drive',
    vendorId: NVME_DRIVE_VENDOR,
    deviceId: NVME_DRIVE_DEVICE,
    subsystemVendorId: NVME_DRIVE_VENDOR,
    subsystemId: NVME_DRIVE_DEVICE,
    revision: 1,
    classCode: 0x010802,
    bars: [
      { type: 'memory64', size: BAR_BYTES, ranges: [{ kind: 'registers', offset: 0, size: TABLE, registers }] },
      null,
    ],
    ...(msi > 0 ? { msi: { vectors: msi, address64: true } } : {}),
    ...(msix ? { msix: { vectors, table: { bar: 0, offset: TABLE }, pba: { bar: 0, offset: PENDING } } } : {}),
    ...(intx ? { interruptPin: 1 } : {}),
    express: { type: 'endpoint', flr: true },
    powerManagement: true,
  };
}
