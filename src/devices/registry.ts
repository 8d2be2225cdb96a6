/** Device models by name. */
import type { PciFunction } from '../ports/pci.ts';
import { Bell } from './bell.ts';
import { Edu } from './edu.ts';
import { Ioat } from './ioat/ioat.ts';
import type { DeviceOptions } from './options.ts';

const models: Readonly<Record<string, (options: DeviceOptions) => PciFunction>> = {
  bell: (options) => new Bell(options),
  edu: (options) => new Edu(options),
  ioat: (options) => new Ioat(options),
};

/** Names that {@link createDevice} knows. */
export const deviceNames: readonly string[] = Object.keys(models);

/**
 * A new device.
 *
 * @throws RangeError for a name that is not among {@link deviceNames}, and for an option that the model does not have or cannot be,
 *   naming it: `bell: msix: expected an integer from 0 to 2048, got 2049`.
 * @example
 * const device = createDevice('bell', { msix: 2048 });
 */
export function createDevice(name: string, options: DeviceOptions = {}): PciFunction {
  if (!Object.hasOwn(models, name)) {
    throw new RangeError(`device: no model is called "${name}"; there are ${deviceNames.join(', ')}`);
  }
  return models[name](options);
}
