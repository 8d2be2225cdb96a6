/** Devices by name or by file: models, the captures that ship with belfry, and a user's own. Needs a file system; registry.ts does not. */
import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { PciFunction } from '../ports/pci.ts';
import type { Capture } from './capture.ts';
import { parseLspci, parseSysfs } from './capture-text.ts';
import { capturedFunction } from './captured.ts';
import { type DeviceOptions, OptionReader } from './options.ts';
import { createDevice, deviceNames } from './registry.ts';

/** The directory of the captures that ship: beside src/ and dist/ alike. */
const SHIPPED = fileURLToPath(new URL('../../captures/', import.meta.url));

/** Captures that ship with belfry. `edu` is also a model; as a capture it is `capture:edu`. */
export const captureNames: readonly string[] = ['nvme', 'igb', 'edu'];

/**
 * A device as a host file names it: a model (`bell`), a shipped capture (`nvme`, `capture:edu`), or the path of a capture: a text file of
 * lspci output, or sysfs's `config`, whose neighbour `resource` is read when it is there. Option `device` picks one of several in a text, from 0.
 *
 * @throws RangeError for an unknown name or option; CaptureError for a file that cannot be read as a capture.
 */
export function loadDevice(name: string, options: DeviceOptions = {}): PciFunction {
  if (deviceNames.includes(name)) return createDevice(name, options);
  const captures = openCapture(name);
  const read = new OptionReader(name, options);
  const which = read.integer('device', 0, 0, captures.length - 1);
  read.finish();
  return capturedFunction(captures[which]);
}

/** The captures in a shipped or own file. @throws RangeError when there is no such file; CaptureError when it is no capture. */
export function openCapture(name: string): Capture[] {
  const bare = name.startsWith('capture:') ? name.slice('capture:'.length) : name;
  const path = captureNames.includes(bare) ? join(SHIPPED, `${bare}.txt`) : bare;
  if (!existsSync(path)) {
    const known = [
      ...deviceNames,
      ...captureNames.map((each) => (deviceNames.includes(each) ? `capture:${each}` : each)),
    ];
    throw new RangeError(`device: "${name}" is neither a model nor a capture (${known.join(', ')}), and no file`);
  }
  return readCapture(path);
}

function readCapture(path: string): Capture[] {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw new RangeError(`device: "${path}" cannot be read: ${(error as Error).message}`);
  }
  // sysfs's file is 64, 256 or 4096 bytes of which some are no text; lspci's output has no zero byte.
  if (basename(path) !== 'config' && !bytes.includes(0)) return parseLspci(new TextDecoder().decode(bytes));
  const resource = join(dirname(path), 'resource');
  return [parseSysfs(bytes, existsSync(resource) ? readFileSync(resource, 'utf8') : undefined)];
}
