/** Which page of which object a frame or a user address is: pins are compared and counted by that. */
import type { ForeignMemory } from '../foreign-memory.ts';
import type { FrameWindow } from '../frame-window.ts';

export interface PageIdentity {
  /** A file by device and inode, or a process. */
  readonly object: string;
  /** Byte in it. */
  readonly at: number;
}

const PAGE = 4096;

/** Does the physical address hold the byte that the program has at `address`? False also where nothing is mapped. */
export function sameByte(window: FrameWindow, memory: ForeignMemory, pa: number, address: number): boolean {
  const frame = window.identity(pa);
  const user = memory.identity(address);
  return frame !== null && user !== null && frame.object === user.object && frame.at === user.at;
}

/** How often each page of [address, address + length) is pinned; null: not all of it is mapped. */
export function pinCounts(
  window: FrameWindow,
  memory: ForeignMemory,
  address: number,
  length: number,
): number[] | null {
  const counts: number[] = [];
  const pins = window.pins();
  for (let at = address; at < address + length; at += PAGE) {
    const page = memory.identity(at);
    if (page === null) return null;
    const start = page.at - (page.at % PAGE);
    counts.push(
      pins.filter(
        ({ object, at: from, length: bytes }) => object === page.object && from <= start && start < from + bytes,
      ).length,
    );
  }
  return counts;
}
