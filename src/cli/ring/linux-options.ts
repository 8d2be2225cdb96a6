/** The command line of `belfry ring --kernel linux`, checked. */
import { parseArgs } from 'node:util';
import { UsageError } from '../usage.ts';

/** How the device's memory is mapped; null: the container where the kernel offers one, else iommufd. */
export type LinuxIommu = 'type1' | 'iommufd' | 'nested' | null;

export interface LinuxOptions {
  /** `0000:00:06.0`; null: the first that vfio-pci has. */
  readonly device: string | null;
  readonly iommu: LinuxIommu;
  /** Where the vectors are to write; null: the kernel's window. */
  readonly doorbell: number | null;
  /** null: 3, or what the device has. */
  readonly vectors: number | null;
  /** null: one for each vector. */
  readonly count: number | null;
  readonly json: boolean;
}

const MAX_VECTORS = 2048;
const MAX_COUNT = 1e9;
/** Of the simulated host alone. */
const SIMULATED = ['host', 'guest', 'trace'] as const;
const SIMULATED_SWITCHES = ['no-ack', 'allow-unsafe-interrupts', 'explain'] as const;
const ADDRESS_BITS = 48;

/** Does the command line ask for the kernel of this machine? @throws UsageError for a kernel that is neither */
export function wantsLinux(args: readonly string[]): boolean {
  const { kernel } = parseArgs({ args: [...args], strict: false, options: { kernel: { type: 'string' } } }).values;
  if (kernel === undefined || kernel === 'sim') return false;
  if (kernel === 'linux') return true;
  throw new UsageError(
    `--kernel: expected sim or linux, got ${typeof kernel === 'string' ? JSON.stringify(kernel) : 'nothing'}`,
    'ring',
  );
}

/** @throws UsageError naming the option */
export function parseLinuxOptions(args: readonly string[]): LinuxOptions {
  const values = parse(args);
  for (const name of [...SIMULATED, ...SIMULATED_SWITCHES]) {
    if (values[name] !== undefined)
      throw new UsageError(`--${name} is of the simulated kernel; this machine is what it is`, 'ring');
  }
  const iommu = values.iommu ?? null;
  if (iommu !== null && iommu !== 'type1' && iommu !== 'iommufd' && iommu !== 'nested')
    throw new UsageError(`--iommu: expected type1, iommufd or nested, got ${JSON.stringify(iommu)}`, 'ring');
  return {
    device: values.device === undefined ? null : deviceName(values.device),
    iommu,
    doorbell: doorbell(values.doorbell ?? 'auto'),
    vectors: whole('--vectors', values.vectors, MAX_VECTORS),
    count: whole('--count', values.count, MAX_COUNT),
    json: values.json === true,
  };
}

function parse(args: readonly string[]) {
  try {
    const text = { type: 'string' } as const;
    const flag = { type: 'boolean' } as const;
    return parseArgs({
      args: [...args],
      allowPositionals: false,
      options: {
        ...{ kernel: text, device: text, doorbell: text, iommu: text, vectors: text, count: text, json: flag },
        ...{ host: text, guest: text, trace: text },
        ...{ 'no-ack': flag, 'allow-unsafe-interrupts': flag, explain: flag },
      },
    }).values;
  } catch (error) {
    throw new UsageError((error as Error).message.split('. ')[0] as string, 'ring');
  }
}

function deviceName(text: string): string {
  if (/^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/i.test(text)) return text.toLowerCase();
  throw new UsageError(`--device: expected a PCI device such as 0000:00:06.0, got ${JSON.stringify(text)}`, 'ring');
}

function doorbell(text: string): number | null {
  if (text === 'auto' || text === 'window') return null;
  const address = /^0x[0-9a-f_]+$/i.test(text) ? Number(text.replaceAll('_', '')) : Number.NaN;
  if (address < 2 ** ADDRESS_BITS) return address;
  throw new UsageError(
    `--doorbell: expected auto, window or an address of ${ADDRESS_BITS} bits, got ${JSON.stringify(text)}`,
    'ring',
  );
}

function whole(option: string, text: string | undefined, most: number): number | null {
  if (text === undefined) return null;
  const plain = text.replaceAll('_', '').replaceAll(',', '');
  const value = /^\d+(e\d+)?$/.test(plain) ? Number(plain) : Number.NaN;
  if (Number.isSafeInteger(value) && value >= 1 && value <= most) return value;
  throw new UsageError(`${option}: expected a whole number from 1 to ${most}, got ${JSON.stringify(text)}`, 'ring');
}
