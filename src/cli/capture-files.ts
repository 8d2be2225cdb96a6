/** The files that captures are in, on this machine. */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { CaptureFiles } from '../devices/index.ts';

export const captureFiles: CaptureFiles = {
  // The directory is beside src/ and dist/ alike.
  shipped: (name) => read(fileURLToPath(new URL(`../../captures/${name}`, import.meta.url))),
  read,
};

function read(path: string): Uint8Array | null {
  if (!existsSync(path)) return null;
  try {
    return readFileSync(path);
  } catch (error) {
    throw new RangeError(`device: "${path}" cannot be read: ${(error as Error).message}`);
  }
}
