/** Device models by name. */
import type { BlockStore } from '../ports/block-store.ts';
import type { PciFunction } from '../ports/pci.ts';
import { Bell } from './bell.ts';
import { Edu } from './edu.ts';
import { EndpointTest } from './endpoint-test/endpoint-test.ts';
import { Ioat } from './ioat/ioat.ts';
import { NvmeDrive } from './nvme/drive.ts';
import type { DeviceOptions } from './options.ts';

/** Opens a file as a disk. @throws RangeError when it cannot be. */
export type OpenStore = (path: string, readOnly: boolean) => BlockStore;

const models: Readonly<Record<string, (options: DeviceOptions, open?: OpenStore) => PciFunction>> = {
  bell: (options) => new Bell(options),
  edu: (options) => new Edu(options),
  ioat: (options) => new Ioat(options),
  'nvme-drive': nvmeDrive,
  'pci-endpoint-test': (options) => new EndpointTest(options),
};

/** Names that {@link createDevice} knows. */
export const deviceNames: readonly string[] = Object.keys(models);

/**
 * A new device. `open` opens the files that options name; without it no option may.
 *
 * @throws RangeError for a name that is not among {@link deviceNames}, and for an option that the model does not have or cannot be,
 *   naming it: `bell: msix: expected an integer from 0 to 2048, got 2049`.
 * @example
 * const device = createDevice('bell', { msix: 2048 });
 */
export function createDevice(name: string, options: DeviceOptions = {}, open?: OpenStore): PciFunction {
  if (!Object.hasOwn(models, name)) {
    throw new RangeError(`device: no model is called "${name}"; there are ${deviceNames.join(', ')}`);
  }
  return models[name](options, open);
}

function nvmeDrive(options: DeviceOptions, open?: OpenStore): NvmeDrive {
  const { file, readOnly } = options;
  // Without a file system behind it the drive itself says what is wrong with the option.
  if (typeof file !== 'string' || file === '' || open === undefined) return new NvmeDrive(options);
  return new NvmeDrive(options, { store: open(file, readOnly === true) });
}
