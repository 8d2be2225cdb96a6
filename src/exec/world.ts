/** Which paths are the simulated host's, and real directories that list what is in it. */
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Found, lookup } from '../kernel/sysfs/lookup.ts';
import type { DirectoryNode, TreeNode } from '../kernel/sysfs/node.ts';

const WHOLE = [
  '/dev/vfio',
  '/dev/iommu',
  '/sys/bus/pci',
  '/sys/kernel/iommu_groups',
  '/sys/class/iommu',
  '/sys/class/vfio-dev',
];
const ROOT_BUS = /^\/sys\/devices\/pci[0-9a-f]{4}:[0-9a-f]{2}(\/|$)/;
const MODULE = /^\/sys\/module\/([^/]+)/;
/** A directory that lists what the real one has too: dpdk-devbind.py takes a module to be loaded when it is listed. */
const SHARED = /^\/sys\/module\/?$/;

export class World {
  readonly root: DirectoryNode;
  private readonly modules: ReadonlySet<string>;
  /** Where directories are made real; null until one is asked for. */
  private shadow: string | null = null;

  constructor(root: DirectoryNode) {
    this.root = root;
    const modules = lookup(root, '/sys/module')?.node;
    this.modules = new Set(modules?.kind === 'directory' ? modules.names() : []);
  }

  /** The absolute path in the simulated host, or null when the path is the real system's. */
  ownPath(path: string): string | null {
    const { shadow } = this;
    const plain = shadow !== null && path.startsWith(shadow) ? path.slice(shadow.length) : path;
    if (!plain.startsWith('/sys') && !plain.startsWith('/dev')) return null;
    const clean = plain.includes('//') || plain.includes('/.') ? tidy(plain) : plain;
    const owned =
      WHOLE.some(
        (prefix) => clean.startsWith(prefix) && (clean.length === prefix.length || clean[prefix.length] === '/'),
      ) ||
      ROOT_BUS.test(clean) ||
      SHARED.test(clean) ||
      this.modules.has(MODULE.exec(clean)?.[1] ?? '');
    return owned ? clean : null;
  }

  find(path: string, follow: boolean): Found | null {
    return lookup(this.root, path, follow);
  }

  /** A real directory with the same names and kinds of entries; its path. What is in the files is served when they are opened. */
  materialise(path: string, node: DirectoryNode): string {
    this.shadow ??= scratchDirectory();
    const real = join(this.shadow, path);
    mkdirSync(real, { recursive: true });
    const own = node.names();
    const others = SHARED.test(path) ? namesIn(path).filter((name) => !own.includes(name)) : [];
    const wanted = new Set([...own, ...others]);
    for (const name of readdirSync(real)) if (!wanted.has(name)) rmSync(join(real, name), { recursive: true });
    for (const name of others) place(join(real, name), { kind: 'link', target: join(path, name) });
    for (const name of own) {
      const child = node.child(name);
      if (child !== null) place(join(real, name), child);
    }
    return real;
  }

  remove(): void {
    if (this.shadow !== null) rmSync(this.shadow, { recursive: true, force: true });
    this.shadow = null;
  }
}

function namesIn(path: string): readonly string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

/** A new directory that listings are made in. @throws NoScratchDirectory */
function scratchDirectory(): string {
  const places = [tmpdir(), '/dev/shm', '/var/tmp'];
  for (const parent of places) {
    try {
      return mkdtempSync(join(parent, 'belfry-'));
    } catch {
      // The next one.
    }
  }
  throw new NoScratchDirectory(
    `a listing needs a directory that can be written, and ${places.join(', ')} cannot; TMPDIR names another`,
  );
}

export class NoScratchDirectory extends Error {
  override readonly name = 'ProblemError';
}

function place(path: string, node: TreeNode): void {
  if (node.kind === 'link') {
    rmSync(path, { recursive: true, force: true });
    symlinkSync(node.target, path);
  } else if (node.kind === 'directory') {
    if (existsSync(path) && !lstatSync(path).isDirectory()) rmSync(path);
    mkdirSync(path, { recursive: true });
  } else if (!existsSync(path)) {
    writeFileSync(path, '');
    chmodSync(path, node.mode);
  }
}

/** Without `//` and `/./`; `..` stays, since what it means depends on links, and so does a slash at the end. */
function tidy(path: string): string {
  const names = path.split('/').filter((name) => name !== '' && name !== '.');
  return `/${names.join('/')}${/\/\.?$/.test(path) ? '/' : ''}`;
}
