/** Where downloads and what is made of them are kept: outside of the tree, shared by all clones. */
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

export const cacheRoot = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'belfry', 'lab');

/** A directory of the cache, made when it is missing. */
export function cacheDirectory(...names) {
  const path = join(cacheRoot, ...names);
  mkdirSync(path, { recursive: true });
  return path;
}

/**
 * A directory that `make(path)` fills once: it appears under its name only when it is complete, so that a run that was
 * interrupted leaves nothing half done.
 */
export async function made(name, make) {
  const path = join(cacheRoot, name);
  if (existsSync(path)) return path;
  const unfinished = `${path}.unfinished-${process.pid}`;
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(unfinished, { recursive: true });
  try {
    await make(unfinished);
    if (existsSync(path)) rmSync(unfinished, { recursive: true, force: true });
    else renameSync(unfinished, path);
  } catch (error) {
    rmSync(unfinished, { recursive: true, force: true });
    throw error;
  }
  return path;
}

export async function sha256(path) {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}
