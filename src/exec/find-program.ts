/** Which file a program's name means, as execvp(3) looks for it. */
import { accessSync, constants, statSync } from 'node:fs';

/** What is searched where PATH is not set: glibc's `_CS_PATH`. */
const USUAL = '/bin:/usr/bin';

/** A path. When no file can be executed it is one whose exec fails as the search would: EACCES where something is in the way, else ENOENT. */
export function findProgram(name: string, path: string | undefined): string {
  if (name === '' || name.includes('/')) return name;
  const candidates = (path ?? USUAL).split(':').map((directory) => (directory === '' ? name : `${directory}/${name}`));
  return candidates.find(isProgram) ?? candidates.find(isThere) ?? candidates[0]!;
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** What may not even be looked at is in the way as well. */
function isThere(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch {
    return true;
  }
}
