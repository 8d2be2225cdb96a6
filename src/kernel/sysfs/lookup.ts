/** Path walking over the tree: links are followed, `..` is understood. */
import type { DirectoryNode, TreeNode } from './node.ts';

/** Links followed in one walk before it is called a loop (Linux: 40). */
const MOST_LINKS = 40;

export interface Found {
  readonly node: TreeNode;
  /** The path without links. */
  readonly path: string;
}

/** The node at an absolute path; null when there is none. `follow` says whether a link at the very end is followed. */
export function lookup(root: DirectoryNode, path: string, follow = true): Found | null {
  const rest = split(path);
  const done: string[] = [];
  const nodes: TreeNode[] = [root];
  for (let links = 0; rest.length > 0; ) {
    const name = rest.shift()!;
    if (name === '..') {
      if (done.pop() !== undefined) nodes.pop();
      continue;
    }
    const here = nodes[nodes.length - 1];
    const next = here.kind === 'directory' ? here.child(name) : null;
    if (next === null) return null;
    if (next.kind === 'link' && (follow || rest.length > 0)) {
      links += 1;
      if (links > MOST_LINKS) return null;
      if (next.target.startsWith('/')) {
        done.length = 0;
        nodes.length = 1;
      }
      rest.unshift(...split(next.target));
      continue;
    }
    done.push(name);
    nodes.push(next);
  }
  return { node: nodes[nodes.length - 1], path: `/${done.join('/')}` };
}

const split = (path: string): string[] => path.split('/').filter((name) => name !== '' && name !== '.');
