/** Devices as a host names them: models, the captures that ship with belfry, and a user's own. Whoever has a file system hands it in. */
import type { PciFunction } from '../ports/pci.ts';
import type { Capture } from './capture.ts';
import { parseLspci, parseSysfs } from './capture-text.ts';
import { capturedFunction } from './captured.ts';
import { type DeviceOptions, OptionReader } from './options.ts';
import { createDevice, deviceNames, type OpenStore } from './registry.ts';

/** The files that captures are in. */
export interface CaptureFiles {
  /** The bytes of `captures/<name>` as belfry ships it, or null. */
  shipped(name: string): Uint8Array | null;
  /** The bytes of a user's file, or null when there is none. @throws RangeError when it cannot be read. */
  read(path: string): Uint8Array | null;
  /** Opens a file as a disk, for a model whose option names one. Without it no option may. */
  readonly open?: OpenStore;
}

/** Captures that ship, by the name that {@link loadDevice} takes, and their file. `edu` alone is the model with its behaviour. */
const SHIPPED: Readonly<Record<string, string>> = { nvme: 'nvme.txt', igb: 'igb.txt', 'edu-capture': 'edu.txt' };
export const captureNames: readonly string[] = Object.keys(SHIPPED);

/**
 * A device as a host file names it: a model (`bell`), a shipped capture (`nvme`, `edu-capture`), or the path of a capture: a text file of
 * lspci output, or sysfs's `config`, whose neighbour `resource` is read when it is there. Option `device` picks one of several in a text, from 0.
 *
 * @throws RangeError for an unknown name or option; CaptureError for a file that cannot be read as a capture.
 */
export function loadDevice(name: string, options: DeviceOptions, files: CaptureFiles): PciFunction {
  if (deviceNames.includes(name)) return createDevice(name, options, files.open);
  const captures = openCapture(name, files);
  const read = new OptionReader(name, options);
  const which = read.integer('device', 0, 0, captures.length - 1);
  read.finish();
  return capturedFunction(captures[which]);
}

/** The captures in a shipped or own file. @throws RangeError when there is no such file; CaptureError when it is no capture. */
export function openCapture(name: string, files: CaptureFiles): Capture[] {
  const bytes = Object.hasOwn(SHIPPED, name) ? files.shipped(SHIPPED[name]) : files.read(name);
  if (bytes === null) {
    const known = [...deviceNames, ...captureNames].join(', ');
    throw new RangeError(`device: "${name}" is neither a model nor a capture (${known}), and no file`);
  }
  const [, directory, file] = /^(.*[\\/])?([^\\/]*)$/.exec(name) ?? [];
  // sysfs's file is 64, 256 or 4096 bytes of which some are no text; lspci's output has no zero byte.
  if (file !== 'config' && !bytes.includes(0)) return parseLspci(new TextDecoder().decode(bytes));
  const resource = files.read(`${directory ?? ''}resource`);
  return [parseSysfs(bytes, resource === null ? undefined : new TextDecoder().decode(resource))];
}
