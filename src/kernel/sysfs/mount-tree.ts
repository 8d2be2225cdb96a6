/** Where nodes are shown: the directories down to each mount point, kept as they come and go. */
import { byNumberThenName, type DirectoryNode, type TreeNode } from './node.ts';

/** A directory that exists because something is mounted below it. */
class MountDirectory implements DirectoryNode {
  readonly kind = 'directory';
  readonly entries = new Map<string, TreeNode>();

  names(): readonly string[] {
    return [...this.entries.keys()].sort(byNumberThenName);
  }

  child(name: string): TreeNode | null {
    return this.entries.get(name) ?? null;
  }
}

export class MountTree {
  readonly root: DirectoryNode;
  private readonly top = new MountDirectory();

  constructor() {
    this.root = this.top;
  }

  /** `path` is absolute. A directory that only leads to mount points is replaced by what is mounted on it. */
  mount(path: string, node: TreeNode): void {
    const [name, parents] = split(path);
    let here = this.top;
    for (const parent of parents) {
      const next = here.entries.get(parent);
      const directory = next instanceof MountDirectory ? next : new MountDirectory();
      if (next !== directory) here.entries.set(parent, directory);
      here = directory;
    }
    here.entries.set(name, node);
  }

  /** Directories that lead nowhere any more go too. */
  unmount(path: string): void {
    const [name, parents] = split(path);
    const way = [this.top];
    for (const parent of parents) {
      const next = way.at(-1)?.entries.get(parent);
      if (!(next instanceof MountDirectory)) return;
      way.push(next);
    }
    way.at(-1)?.entries.delete(name);
    for (let depth = way.length - 1; depth > 0 && way[depth]?.entries.size === 0; depth--) {
      way[depth - 1]?.entries.delete(parents[depth - 1] as string);
    }
  }
}

function split(path: string): [name: string, parents: string[]] {
  const parts = path.split('/').filter((part) => part !== '');
  const name = parts.pop();
  if (name === undefined) throw new RangeError(`path: nothing can be mounted at ${JSON.stringify(path)}`);
  return [name, parts];
}
