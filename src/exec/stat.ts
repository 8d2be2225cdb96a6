/** struct stat and struct statx of a node, as the architecture lays them out. */
import type { TreeNode } from '../kernel/sysfs/node.ts';
import { contents } from '../kernel/sysfs/text-file.ts';

interface Facts {
  readonly mode: number;
  readonly size: number;
  readonly inode: number;
  readonly major: number;
  readonly minor: number;
  readonly links: number;
}

const S_IFCHR = 0o020000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
/** What sysfs says of an attribute's size, whatever is in it. */
const ATTRIBUTE_SIZE = 4096;
/** A device number of sysfs: no file system here has it. */
const DEVICE = 0x16;

export function factsOf(path: string, node: TreeNode): Facts {
  const inode = hash(path);
  const plain = { inode, major: 0, minor: 0, links: 1 };
  switch (node.kind) {
    case 'directory':
      return { ...plain, mode: S_IFDIR | 0o755, size: 0, links: 2 };
    case 'link':
      return { ...plain, mode: S_IFLNK | 0o777, size: path.startsWith('/sys') ? 0 : node.target.length };
    case 'file': {
      const value = node.read?.();
      return {
        ...plain,
        mode: S_IFREG | node.mode,
        size: value instanceof Uint8Array ? contents(value).length : ATTRIBUTE_SIZE,
      };
    }
    case 'device':
      return { ...plain, ...numbersOf(path), mode: S_IFCHR | node.mode, size: 0 };
  }
}

export function statBytes(facts: Facts): Uint8Array {
  const x64 = process.arch === 'x64';
  const bytes = new Uint8Array(x64 ? 144 : 128);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, DEVICE, true);
  view.setUint32(8, facts.inode, true);
  if (x64) {
    view.setUint32(16, facts.links, true);
    view.setUint32(24, facts.mode, true);
    view.setUint32(40, makedev(facts), true);
  } else {
    view.setUint32(16, facts.mode, true);
    view.setUint32(20, facts.links, true);
    view.setUint32(32, makedev(facts), true);
  }
  view.setUint32(48, facts.size, true);
  view.setUint32(56, ATTRIBUTE_SIZE, true);
  return bytes;
}

/** STATX_BASIC_STATS, 256 bytes. */
export function statxBytes(facts: Facts): Uint8Array {
  const bytes = new Uint8Array(256);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x7ff, true);
  view.setUint32(4, ATTRIBUTE_SIZE, true);
  view.setUint32(16, facts.links, true);
  view.setUint16(28, facts.mode, true);
  view.setUint32(32, facts.inode, true);
  view.setUint32(40, facts.size, true);
  view.setUint32(128, facts.major, true);
  view.setUint32(132, facts.minor, true);
  view.setUint32(140, DEVICE, true);
  return bytes;
}

/** The misc devices have fixed minors (VFIO_MINOR 196; iommufd's is dynamic); the others are of dynamic majors. */
function numbersOf(path: string): { major: number; minor: number } {
  const number = Number(/(\d+)$/.exec(path)?.[1] ?? 0);
  if (path === '/dev/vfio/vfio') return { major: 10, minor: 196 };
  if (path === '/dev/iommu') return { major: 10, minor: 124 };
  return { major: path.startsWith('/dev/vfio/devices/') ? 511 : 243, minor: number };
}

const makedev = ({ major, minor }: Facts): number => ((major << 8) | (minor & 0xff)) >>> 0;

/** FNV-1a, 32 bits: the same path has the same inode. */
function hash(path: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < path.length; i += 1) value = Math.imul(value ^ path.charCodeAt(i), 0x0100_0193);
  return value >>> 0 || 1;
}
