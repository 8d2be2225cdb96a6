/**
 * Accesses of programs to mapped BARs that are no plain memory: the stand-in has no bytes there, so each access stops its thread with SIGBUS. The
 * instruction is done here, on the device, and the thread goes on behind it.
 */
import type { Host } from '../kernel/boot/boot.ts';
import type { Libc } from '../libc/index.ts';
import type { ProcessMemory } from '../libc/process-memory.ts';
import type { BarMemory, TrappedBar } from './bar-memory.ts';
import { readMaps } from './maps.ts';
import type { OpenFiles } from './open-files.ts';
import { ThreadRegisters } from './registers.ts';
import { type Fault, Tracer } from './tracer.ts';
import { decode } from './x86/decode.ts';
import { execute, type Memory } from './x86/execute.ts';
import type { Width } from './x86/instruction.ts';

const SIGBUS = 7;
const SIGSEGV = 11;
const BUS_ADRERR = 2;
const LONGEST_INSTRUCTION = 15;
const PAGE = 4096;

export interface RegisterNeeds {
  readonly host: Host;
  readonly libc: Libc;
  readonly memory: ProcessMemory;
  readonly files: OpenFiles;
  readonly bars: BarMemory;
  /** Called after an access, before the thread goes on: what it set off happens. */
  readonly settle: () => void;
}

/** A mapping of a device's stand-in in a program. */
interface Mapped {
  readonly start: number;
  readonly end: number;
  /** The file of the stand-in, and where in it `start` lies. */
  readonly path: string;
  readonly offset: number;
}

export class RegisterAccess {
  readonly tracer: Tracer;
  /** Accesses that were done here. */
  count = 0;
  /** Called for an access that could not be done, with a sentence. */
  onRefusal: (why: string, thread: number) => void = () => {};
  private readonly needs: RegisterNeeds;
  private readonly registers: ThreadRegisters;
  private readonly code = new Uint8Array(LONGEST_INSTRUCTION);
  private readonly scratch = new Uint8Array(16);
  /** By thread. What is in it is true until one of its ranges may go. */
  private readonly known = new Map<number, readonly Mapped[]>();
  /** A range has gone once: when exactly another thread's mapping goes is not known, so nothing is remembered any more. */
  private changing = false;

  constructor(needs: RegisterNeeds) {
    this.needs = needs;
    const forget = (thread: number): void => void this.known.delete(thread);
    this.tracer = new Tracer(needs.libc, (fault) => this.fault(fault), forget);
    this.registers = new ThreadRegisters(this.tracer.ptrace);
  }

  /** Can programs of this machine have registers mapped at all? */
  static get possible(): boolean {
    return process.arch === 'x64';
  }

  /** A program is about to let go of [start, start + length), or to put something else there. */
  losing(start: number, length: number): void {
    for (const areas of this.known.values()) {
      if (areas.some((area) => area.start < start + length && start < area.end)) this.changing = true;
    }
    if (this.changing) this.known.clear();
  }

  /** The signal that the thread gets: 0 when the access is done. */
  private fault({ thread, signal, code: reason, address }: Fault): number {
    if (signal !== SIGBUS || reason !== BUS_ADRERR || this.deviceAt(thread, Number(address)) === null) return signal;
    const { registers } = this;
    if (!registers.take(thread)) return signal;
    const code = this.fetch(thread, registers.rip);
    // It was killed meanwhile.
    if (code.length === 0) return signal;
    const instruction = decode(code);
    if (instruction === null) {
      this.onRefusal(
        `the instruction at ${hex(registers.rip)} cannot be done on registers: ${this.codeText()}`,
        thread,
      );
      return signal;
    }
    const done = execute(instruction, registers, this.memoryOf(thread));
    // What was done of a string instruction before it failed shows in rcx, rsi and rdi.
    if (!registers.put()) return signal;
    this.count += 1;
    this.needs.settle();
    return done ? 0 : SIGSEGV;
  }

  private memoryOf(thread: number): Memory {
    return {
      load: (address, width) => {
        const at = this.deviceAt(thread, Number(address));
        if (at !== null) return this.readDevice(at, width);
        const bytes = this.scratch.subarray(0, width);
        return this.needs.memory.read(thread, Number(address), bytes) === width ? joined(bytes) : null;
      },
      store: (address, width, value) => {
        const at = this.deviceAt(thread, Number(address));
        if (at !== null) {
          this.writeDevice(at, width, value);
          return true;
        }
        const bytes = this.scratch.subarray(0, width);
        for (let i = 0; i < width; i += 1) bytes[i] = Number((value >> BigInt(8 * i)) & 0xffn);
        return this.needs.memory.write(thread, Number(address), bytes) === width;
      },
    };
  }

  /** Host-physical address of a byte that a thread has mapped of a device; null: it is none, or accesses are off. */
  private deviceAt(thread: number, address: number): number | null {
    const area = this.areaAt(thread, address);
    if (area === null) return null;
    const offset = area.offset + (address - area.start);
    const bar = this.trappedAt(area.path, offset);
    return bar === null ? null : this.needs.bars.physical(bar, offset);
  }

  private trappedAt(path: string, offset: number): TrappedBar | null {
    const open = this.needs.files.named(path);
    return open === null ? null : this.needs.bars.trapped(open, offset);
  }

  private areaAt(thread: number, address: number): Mapped | null {
    const inside = ({ start, end }: Mapped): boolean => start <= address && address < end;
    const found = this.known.get(thread)?.find(inside);
    if (found !== undefined) return found;
    const areas = (readMaps(thread) ?? []).filter(({ path }) => this.needs.files.named(path) !== null);
    if (!this.changing) this.known.set(thread, areas);
    return areas.find(inside) ?? null;
  }

  /** Registers take 1, 2 and 4 bytes at their multiples: what is wider or crooked comes in pieces, from the low end. */
  private readDevice(at: number, width: Width): bigint {
    const { bus } = this.needs.host.machine;
    let value = 0n;
    for (let done = 0; done < width; ) {
      const size = pieceAt(at + done, width - done);
      value |= BigInt.asUintN(8 * size, BigInt(bus.read(at + done, size))) << BigInt(8 * done);
      done += size;
    }
    return value;
  }

  private writeDevice(at: number, width: Width, value: bigint): void {
    const { bus } = this.needs.host.machine;
    for (let done = 0; done < width; ) {
      const size = pieceAt(at + done, width - done);
      bus.write(at + done, size, Number(BigInt.asUintN(8 * size, value >> BigInt(8 * done))));
      done += size;
    }
  }

  /** The bytes at rip: as many as there are, since the next page may not be mapped. */
  private fetch(thread: number, rip: bigint): Uint8Array {
    const at = Number(rip);
    this.code.fill(0);
    const first = Math.min(LONGEST_INSTRUCTION, PAGE - (at % PAGE));
    let got = Math.max(0, this.needs.memory.read(thread, at, this.code.subarray(0, first)));
    if (got === first && first < LONGEST_INSTRUCTION) {
      got += Math.max(0, this.needs.memory.read(thread, at + first, this.code.subarray(first)));
    }
    return this.code.subarray(0, got);
  }

  private codeText(): string {
    return [...this.code].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
  }
}

const hex = (value: bigint): string => `0x${value.toString(16)}`;

function joined(bytes: Uint8Array): bigint {
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i -= 1) value = (value << 8n) | BigInt(bytes[i]!);
  return value;
}

/** The largest power of two up to 4 that fits and divides the address. */
function pieceAt(address: number, left: number): number {
  if (left >= 4 && address % 4 === 0) return 4;
  return left >= 2 && address % 2 === 0 ? 2 : 1;
}
