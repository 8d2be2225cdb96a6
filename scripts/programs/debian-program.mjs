/** Programs of Debian unstable, unpacked into the cache and started by their own C library's loader. */
import { join } from 'node:path';
import { Debian } from '../../lab/debian.mjs';
import { loaderOf } from '../../lab/qemu.mjs';

/** @returns the tree of `packages` with all that they depend on, and the version of the first one; Skip where it cannot be had */
export async function debianTree(label, packages) {
  const debian = Debian.open();
  debian.update();
  const tree = await debian.unpackWithDependencies(label, packages);
  return { tree, version: debian.version(packages[0]) };
}

/** The words that start `path` of a tree; for a script, nothing but its path. */
export function started(tree, path) {
  const { command, args, libraries } = loaderOf(tree);
  return { argv: [command, ...args, join(tree, path)], libraries };
}
