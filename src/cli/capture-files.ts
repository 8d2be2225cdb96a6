/** The files that captures and disks are in, on this machine. */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { CaptureFiles } from '../devices/index.ts';
import { openFileStore } from './file-store.ts';

export const captureFiles: CaptureFiles = {
  // The directory is beside src/ and dist/ alike.
  shipped: (name) => read(fileURLToPath(new URL(`../../captures/${name}`, import.meta.url))),
  read,
  open: openFileStore,
};

function read(path: string): Uint8Array | null {
  if (!existsSync(path)) return null;
  try {
    return readFileSync(path);
  } catch (error) {
    throw new RangeError(`device: "${path}" cannot be read: ${(error as Error).message}`);
  }
}
