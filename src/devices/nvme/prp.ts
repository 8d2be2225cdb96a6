/** Physical region pages: where a command's data lies (4.3), and moving it. */
import type { HostMemory } from './host-memory.ts';
import { NvmeStatus } from './registers.ts';

export interface Segment {
  readonly address: number;
  readonly length: number;
}

/**
 * The segments of `length` bytes at PRP1 and PRP2. PRP1 may start within a page; what PRP2 is depends on how many pages follow: nothing, the
 * second page, or a list of pages whose last entry leads to the next list when there are more. Answers a status, and segments with SUCCESS.
 */
export function resolvePrps(
  memory: HostMemory,
  pageBytes: number,
  prps: readonly [number, number],
  length: number,
  answer: (status: number, segments: Segment[]) => void,
): void {
  const [first, second] = prps;
  const segments: Segment[] = [];
  if (first % 4 !== 0) {
    answer(NvmeStatus.INVALID_PRP_OFFSET, segments);
    return;
  }
  const left = addPart(segments, first, Math.min(length, pageBytes - (first % pageBytes)), length);
  if (left === 0) answer(NvmeStatus.SUCCESS, segments);
  else if (left > pageBytes) readList({ memory, pageBytes, segments, answer, lists: 0 }, second, left);
  else if (second % pageBytes !== 0) answer(NvmeStatus.INVALID_PRP_OFFSET, segments);
  else {
    addPart(segments, second, left, left);
    answer(NvmeStatus.SUCCESS, segments);
  }
}

interface ListWalk {
  readonly memory: HostMemory;
  readonly pageBytes: number;
  readonly segments: Segment[];
  readonly answer: (status: number, segments: Segment[]) => void;
  /** Lists read so far. */
  lists: number;
}

function readList(walk: ListWalk, at: number, left: number): void {
  const { memory, pageBytes, segments, answer } = walk;
  const room = (pageBytes - (at % pageBytes)) / 8;
  const needed = Math.ceil(left / pageBytes);
  // A list of one entry that leads to the next brings nothing; more of those than pages are a circle.
  walk.lists += 1;
  if (at % 8 !== 0 || walk.lists > needed + 2 + segments.length) {
    answer(NvmeStatus.INVALID_PRP_OFFSET, segments);
    return;
  }
  const count = Math.min(room, needed);
  memory.read(at, count * 8, (ok, bytes) => {
    if (!ok) {
      answer(NvmeStatus.DATA_TRANSFER_ERROR, segments);
      return;
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const entry = (index: number): number =>
      view.getUint32(index * 8 + 4, true) * 2 ** 32 + view.getUint32(index * 8, true);
    const pages = needed > room ? count - 1 : count;
    let rest = left;
    for (let index = 0; index < pages; index++) {
      const page = entry(index);
      if (page % pageBytes !== 0) {
        answer(NvmeStatus.INVALID_PRP_OFFSET, segments);
        return;
      }
      rest = addPart(segments, page, Math.min(rest, pageBytes), rest);
    }
    if (rest === 0) answer(NvmeStatus.SUCCESS, segments);
    else readList(walk, entry(pages), rest);
  });
}

/** Pages that follow each other become one segment. Returns what is left. */
function addPart(segments: Segment[], address: number, length: number, left: number): number {
  const last = segments.at(-1);
  if (last !== undefined && last.address + last.length === address) {
    segments[segments.length - 1] = { address: last.address, length: last.length + length };
  } else segments.push({ address, length });
  return left - length;
}

/** From the host. All segments are read, and `then` hears of it once. */
export function gather(
  memory: HostMemory,
  segments: readonly Segment[],
  then: (ok: boolean, bytes: Uint8Array) => void,
): void {
  const bytes = new Uint8Array(segments.reduce((sum, { length }) => sum + length, 0));
  let [offset, waiting, allOk] = [0, segments.length, true];
  for (const { address, length } of segments) {
    const at = offset;
    offset += length;
    memory.read(address, length, (ok, part) => {
      if (ok) bytes.set(part, at);
      else allOk = false;
      waiting -= 1;
      if (waiting === 0) then(allOk, bytes);
    });
  }
}

/** To the host: as much of `bytes` as there are segments for. */
export function scatter(
  memory: HostMemory,
  segments: readonly Segment[],
  bytes: Uint8Array,
  then: (ok: boolean) => void,
): void {
  let [offset, waiting, allOk] = [0, segments.length, true];
  for (const { address, length } of segments) {
    const part = bytes.subarray(offset, offset + length);
    offset += length;
    memory.write(address, part, (ok) => {
      if (!ok) allOk = false;
      waiting -= 1;
      if (waiting === 0) then(allOk);
    });
  }
}
