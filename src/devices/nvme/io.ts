/** Commands of the NVM command set (section 6) on the drive's namespace. */

import type { HostMemory } from './host-memory.ts';
import { MDTS } from './identify.ts';
import type { Logs } from './logs.ts';
import { NAMESPACE_ID, type Namespace } from './namespace.ts';
import { gather, resolvePrps, type Segment, scatter } from './prp.ts';
import type { Command } from './queues.ts';
import { IoOpcode, NvmeStatus } from './registers.ts';

const MOST_BYTES = 4096 << MDTS;
const ALL_NAMESPACES = 0xffff_ffff;
/** FUSE and PSDT: fused commands and SGLs are not supported. */
const UNSUPPORTED_FLAGS = 0xc3;
const FORCE_UNIT_ACCESS = 0x4000_0000;
const DEALLOCATE = 4;
const RANGE_BYTES = 16;

export interface IoContext {
  readonly memory: HostMemory;
  readonly namespace: Namespace;
  readonly logs: Logs;
  readonly pageBytes: number;
  answer(command: Command, status: number): void;
}

export function executeIo(context: IoContext, command: Command): void {
  const { namespace } = context;
  const { opcode } = command;
  const refusal = refuse(namespace, command);
  if (refusal !== NvmeStatus.SUCCESS) context.answer(command, refusal);
  else if (opcode === IoOpcode.FLUSH) {
    context.answer(command, namespace.store.flush() ? NvmeStatus.SUCCESS : NvmeStatus.WRITE_FAULT);
  } else if (opcode === IoOpcode.READ) read(context, command);
  else if (opcode === IoOpcode.WRITE_ZEROES) writeZeroes(context, command);
  else if (opcode === IoOpcode.DATASET_MANAGEMENT) datasetManagement(context, command);
  else
    fromHost(context, command, blockCount(command) * namespace.blockBytes, (bytes) => store(context, command, bytes));
}

/** The first logical block that the command names. */
export const startBlock = (command: Command): number => command.word(11) * 2 ** 32 + command.word(10);
const blockCount = (command: Command): number => (command.word(12) & 0xffff) + 1;

const WITH_BLOCKS: readonly number[] = [IoOpcode.READ, IoOpcode.WRITE, IoOpcode.COMPARE, IoOpcode.WRITE_ZEROES];
const CHANGES: readonly number[] = [IoOpcode.WRITE, IoOpcode.WRITE_ZEROES, IoOpcode.DATASET_MANAGEMENT];

/** What is wrong with a command before it begins. */
function refuse(namespace: Namespace, command: Command): number {
  const { opcode } = command;
  const known: readonly number[] = Object.values(IoOpcode);
  if (!known.includes(opcode)) return NvmeStatus.INVALID_OPCODE;
  if ((command.flags & UNSUPPORTED_FLAGS) !== 0) return NvmeStatus.INVALID_FIELD;
  const everywhere = opcode === IoOpcode.FLUSH && command.namespace === ALL_NAMESPACES;
  if (command.namespace !== NAMESPACE_ID && !everywhere) return NvmeStatus.INVALID_NAMESPACE;
  if (CHANGES.includes(opcode) && namespace.readOnly) return NvmeStatus.WRITE_PROTECTED;
  if (!WITH_BLOCKS.includes(opcode)) return NvmeStatus.SUCCESS;
  const count = blockCount(command);
  const moves = opcode !== IoOpcode.WRITE_ZEROES;
  if (moves && count * namespace.blockBytes > MOST_BYTES) return NvmeStatus.INVALID_FIELD;
  return namespace.holds(startBlock(command), count) ? NvmeStatus.SUCCESS : NvmeStatus.LBA_OUT_OF_RANGE;
}

function read(context: IoContext, command: Command): void {
  const { memory, namespace, logs } = context;
  withSegments(context, command, blockCount(command) * namespace.blockBytes, (segments) => {
    if (command.done) return;
    const bytes = namespace.read(startBlock(command), blockCount(command));
    if (bytes === null) {
      logs.mediaError();
      context.answer(command, NvmeStatus.UNRECOVERED_READ);
      return;
    }
    scatter(memory, segments, bytes, (ok) => {
      if (ok) logs.moved('read', bytes.length);
      context.answer(command, ok ? NvmeStatus.SUCCESS : NvmeStatus.DATA_TRANSFER_ERROR);
    });
  });
}

/** Write and Compare, whose data has come. */
function store({ namespace, logs, answer }: IoContext, command: Command, bytes: Uint8Array): void {
  const at = startBlock(command);
  if (command.opcode === IoOpcode.COMPARE) {
    const own = namespace.read(at, blockCount(command));
    if (own === null) logs.mediaError();
    const differs = own?.some((byte, index) => byte !== bytes[index]) ?? false;
    answer(
      command,
      own === null ? NvmeStatus.UNRECOVERED_READ : differs ? NvmeStatus.COMPARE_FAILURE : NvmeStatus.SUCCESS,
    );
    return;
  }
  const force = (command.word(12) & FORCE_UNIT_ACCESS) !== 0;
  const ok = namespace.write(at, bytes) && (!force || namespace.store.flush());
  if (ok) logs.moved('written', bytes.length);
  else logs.mediaError();
  answer(command, ok ? NvmeStatus.SUCCESS : NvmeStatus.WRITE_FAULT);
}

function writeZeroes({ namespace, logs, answer }: IoContext, command: Command): void {
  const ok = namespace.zero(startBlock(command), blockCount(command));
  if (!ok) logs.mediaError();
  answer(command, ok ? NvmeStatus.SUCCESS : NvmeStatus.WRITE_FAULT);
}

/** Ranges to deallocate, or hints that change nothing. A range beyond the end refuses the whole command before anything is done. */
function datasetManagement(context: IoContext, command: Command): void {
  const { namespace, logs } = context;
  const count = (command.word(10) & 0xff) + 1;
  fromHost(context, command, count * RANGE_BYTES, (bytes) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const ranges = Array.from({ length: count }, (_, index) => {
      const at = index * RANGE_BYTES;
      const start = view.getUint32(at + 12, true) * 2 ** 32 + view.getUint32(at + 8, true);
      return { start, blocks: view.getUint32(at + 4, true) };
    });
    if (!ranges.every(({ start, blocks }) => namespace.holds(start, blocks))) {
      context.answer(command, NvmeStatus.LBA_OUT_OF_RANGE);
      return;
    }
    const deallocate = (command.word(11) & DEALLOCATE) !== 0;
    const ok = !deallocate || ranges.every(({ start, blocks }) => blocks === 0 || namespace.zero(start, blocks));
    if (!ok) logs.mediaError();
    context.answer(command, ok ? NvmeStatus.SUCCESS : NvmeStatus.WRITE_FAULT);
  });
}

function fromHost(context: IoContext, command: Command, length: number, then: (bytes: Uint8Array) => void): void {
  withSegments(context, command, length, (segments) =>
    gather(context.memory, segments, (ok, bytes) => {
      // Aborted meanwhile: it must not change the medium any more.
      if (command.done) return;
      if (ok) then(bytes);
      else context.answer(command, NvmeStatus.DATA_TRANSFER_ERROR);
    }),
  );
}

function withSegments(
  context: IoContext,
  command: Command,
  length: number,
  then: (segments: readonly Segment[]) => void,
): void {
  resolvePrps(context.memory, context.pageBytes, command.prps, length, (status, segments) => {
    if (status === NvmeStatus.SUCCESS) then(segments);
    else context.answer(command, status);
  });
}
