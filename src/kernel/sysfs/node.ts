/** Nodes of the tree that user space sees (/sys, /dev, /proc), made on demand from what the kernel holds. */
import type { File } from '../files.ts';
import type { Process } from '../process.ts';

export type TreeNode = DirectoryNode | LinkNode | TextNode | DeviceNode;

export interface DirectoryNode {
  readonly kind: 'directory';
  /** Names, in the order that `ls` would sort them. */
  names(): readonly string[];
  child(name: string): TreeNode | null;
}

export interface LinkNode {
  readonly kind: 'link';
  /** Absolute or relative to the directory that holds the link. */
  readonly target: string;
}

export interface TextNode {
  readonly kind: 'file';
  /** 0o444, 0o644, 0o200. */
  readonly mode: number;
  /** The contents now: text, or the bytes of a binary attribute. */
  read?(): string | Uint8Array;
  /** What a write to the attribute does; 0 or -errno. */
  write?(process: Process, text: string): number;
  /** The same for a binary attribute, which has a position: what was written, 0 behind its end, or -errno. */
  writeAt?(bytes: Uint8Array, offset: number): number;
}

export interface DeviceNode {
  readonly kind: 'device';
  readonly mode: number;
  /** Owner; what chown or udev would change. */
  readonly uid: number;
  /** An open file, or -errno. */
  open(process: Process): File | number;
}

/** A directory whose entries are computed at each look. */
export function directory(
  entries: () => ReadonlyMap<string, TreeNode> | Readonly<Record<string, TreeNode>>,
): DirectoryNode {
  const get = (): ReadonlyMap<string, TreeNode> => {
    const found = entries();
    return found instanceof Map ? found : new Map(Object.entries(found));
  };
  return {
    kind: 'directory',
    names: () => [...get().keys()].sort(byNumberThenName),
    child: (name) => get().get(name) ?? null,
  };
}

export const link = (target: string): LinkNode => ({ kind: 'link', target });

/** A read-only attribute; a line feed is added, as sysfs_emit's callers do. */
export const attribute = (read: () => string): TextNode => ({ kind: 'file', mode: 0o444, read: () => `${read()}\n` });

/** An attribute that can be written; `read` null makes it write-only. */
export function control(read: (() => string) | null, write: (process: Process, text: string) => number): TextNode {
  return read === null
    ? { kind: 'file', mode: 0o200, write }
    : { kind: 'file', mode: 0o644, read: () => `${read()}\n`, write };
}

/** Numbers by value, before names. */
export function byNumberThenName(a: string, b: string): number {
  const [left, right] = [Number(a), Number(b)];
  if (Number.isNaN(left) !== Number.isNaN(right)) return Number.isNaN(left) ? 1 : -1;
  if (!Number.isNaN(left) && left !== right) return left - right;
  return a < b ? -1 : 1;
}
