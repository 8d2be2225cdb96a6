/** The command line of `belfry ring`, checked. */
import { parseArgs } from 'node:util';
import { ADDRESS_LIMIT } from '../../ports/address.ts';
import type { GuestIommu } from '../../vmm/index.ts';
import { UsageError } from '../usage.ts';

export type DoorbellOption =
  | { readonly policy: 'auto' | 'window' | 'none' }
  | { readonly policy: 'address'; readonly iova: bigint };

export interface RingOptions {
  /** Preset or path of a host file. */
  readonly host: string;
  /** Model with options, capture, or null for what the host has. */
  readonly device: string | null;
  readonly doorbell: DoorbellOption;
  readonly iommu: GuestIommu;
  /** null: 3, or what the device has. */
  readonly vectors: number | null;
  /** null: one for each vector. */
  readonly count: number | null;
  readonly acknowledge: boolean;
  readonly allowUnsafeInterrupts: boolean;
  readonly guest: string | null;
  /** Says of a refused set-up which check of which call it was, and what would pass. */
  readonly explain: boolean;
  readonly json: boolean;
  readonly trace: string | null;
}

const MAX_VECTORS = 2048;
const MAX_COUNT = 1e12;

/** @throws UsageError naming the option. */
export function parseRingOptions(args: readonly string[]): RingOptions {
  const values = parse(args);
  return {
    host: values.host ?? 'arm-its',
    device: values.device ?? null,
    doorbell: doorbell(values.doorbell ?? 'auto'),
    iommu: iommu(values.iommu ?? 'type1'),
    vectors:
      values.vectors === undefined
        ? null
        : integer('--vectors', values.vectors, 1, MAX_VECTORS, 'MSI-X has at most 2,048 vectors'),
    count: values.count === undefined ? null : integer('--count', values.count, 1, MAX_COUNT),
    acknowledge: values['no-ack'] !== true,
    allowUnsafeInterrupts: values['allow-unsafe-interrupts'] === true,
    guest: values.guest ?? null,
    explain: values.explain === true,
    json: values.json === true,
    trace: values.trace ?? null,
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: false,
      options: {
        kernel: { type: 'string' },
        host: { type: 'string' },
        device: { type: 'string' },
        doorbell: { type: 'string' },
        iommu: { type: 'string' },
        vectors: { type: 'string' },
        count: { type: 'string' },
        'no-ack': { type: 'boolean' },
        'allow-unsafe-interrupts': { type: 'boolean' },
        guest: { type: 'string' },
        explain: { type: 'boolean' },
        json: { type: 'boolean' },
        trace: { type: 'string' },
      },
    }).values;
  } catch (error) {
    throw new UsageError((error as Error).message.split('. ')[0] as string, 'ring');
  }
}

function integer(option: string, text: string, low: number, high: number, why?: string): number {
  const plain = text.replaceAll('_', '').replaceAll(',', '');
  const value = /^\d+(e\d+)?$/.test(plain) ? Number(plain) : Number.NaN;
  if (!Number.isSafeInteger(value))
    throw new UsageError(`${option}: expected a whole number, got ${JSON.stringify(text)}`, 'ring');
  if (value < low || value > high) {
    throw new UsageError(
      `${option}: ${value} is not in ${low} to ${high}${why === undefined ? '' : `; ${why}`}`,
      'ring',
    );
  }
  return value;
}

function doorbell(text: string): DoorbellOption {
  if (text === 'auto' || text === 'window' || text === 'none') return { policy: text };
  if (!/^0x[0-9a-f_]+$/i.test(text) || !/[0-9a-f]/i.test(text.slice(2))) {
    throw new UsageError(
      `--doorbell: expected auto, window, none or an address such as 0x90000000, got ${JSON.stringify(text)}`,
      'ring',
    );
  }
  const iova = BigInt(text.replaceAll('_', ''));
  if (iova >= 1n << 64n) throw new UsageError(`--doorbell: ${text} does not fit 64 bits`, 'ring');
  return { policy: 'address', iova };
}

function iommu(text: string): GuestIommu {
  if (text === 'type1' || text === 'iommufd' || text === 'nested') return text;
  throw new UsageError(`--iommu: expected type1, iommufd or nested, got ${JSON.stringify(text)}`, 'ring');
}

/** Is the address one that a 53-bit number holds? Beyond it no IOMMU has an aperture. */
export const representable = (iova: bigint): boolean => iova < BigInt(ADDRESS_LIMIT);
