/** The command line of `belfry exec`. */
import { parseArgs } from 'node:util';
import type { DeviceOptions } from '../../devices/index.ts';
import { UsageError } from '../usage.ts';

export interface DeviceChoice {
  /** A model's name, a capture's, or a file's. */
  readonly name: string;
  readonly options: DeviceOptions;
  /** `0000:01:00.0`; null: the next free one behind a root port. */
  readonly slot: string | null;
}

export interface ExecOptions {
  /** A preset's name or a host file. */
  readonly host: string;
  readonly abi: 'linux-7.2' | 'belfry';
  /** `none`: the kernel before the RFC, which maps no doorbell. */
  readonly doorbell: 'window' | 'none';
  /** Empty: the host's own. */
  readonly devices: readonly DeviceChoice[];
  readonly allowUnsafeInterrupts: boolean;
  /** CONFIG_IOMMUFD_TEST. */
  readonly iommufdTest: boolean;
  readonly explain: boolean;
  readonly json: boolean;
  readonly quiet: boolean;
  /** Where Chrome trace JSON is written. */
  readonly trace: string | null;
  readonly argv: readonly string[];
}

const TABLE = {
  host: { type: 'string' },
  abi: { type: 'string' },
  device: { type: 'string', multiple: true },
  doorbell: { type: 'string' },
  'allow-unsafe-interrupts': { type: 'boolean' },
  'iommufd-test': { type: 'boolean' },
  explain: { type: 'boolean' },
  json: { type: 'boolean' },
  quiet: { type: 'boolean' },
  trace: { type: 'string' },
} as const;

/** @throws UsageError */
export function parseExecOptions(args: readonly string[]): ExecOptions {
  const end = args.indexOf('--');
  const own = end < 0 ? args : args.slice(0, end);
  const argv = end < 0 ? [] : args.slice(end + 1);
  if (end < 0) expectNoProgram(args);
  const values = parse(own);
  if (argv.length === 0) throw new UsageError('exec: expected -- and a program to run', 'exec');
  const abi = values.abi ?? 'linux-7.2';
  if (abi !== 'linux-7.2' && abi !== 'belfry')
    throw new UsageError(`--abi: expected linux-7.2 or belfry, got ${JSON.stringify(abi)}`, 'exec');
  const doorbell = values.doorbell ?? 'window';
  if (doorbell !== 'window' && doorbell !== 'none')
    throw new UsageError(`--doorbell: expected window or none, got ${JSON.stringify(doorbell)}`, 'exec');
  return {
    host: values.host ?? 'arm-its',
    abi,
    doorbell,
    devices: (values.device ?? []).map(deviceChoice),
    allowUnsafeInterrupts: values['allow-unsafe-interrupts'] ?? false,
    iommufdTest: values['iommufd-test'] ?? false,
    explain: values.explain ?? false,
    json: values.json ?? false,
    quiet: values.quiet ?? false,
    trace: values.trace ?? null,
    argv,
  };
}

/** The first word that belongs to no option of belfry's begins the program. */
function expectNoProgram(args: readonly string[]): void {
  const { tokens } = parseArgs({ args: [...args], options: TABLE, strict: false, tokens: true });
  const first = tokens.find(({ kind }) => kind !== 'option');
  const strange = tokens.find((token) => token.kind === 'option' && !(token.name in TABLE));
  if (first === undefined || (strange !== undefined && strange.index < first.index)) return;
  const whole = [...args.slice(0, first.index), '--', ...args.slice(first.index)].join(' ');
  throw new UsageError(`exec: expected -- before the program: belfry exec ${whole}`, 'exec');
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: TABLE, strict: true }).values;
  } catch (error) {
    throw new UsageError((error as Error).message.split('. ')[0] ?? '', 'exec');
  }
}

/** `bell,msix=16,slot=0000:02:00.0`. */
function deviceChoice(text: string): DeviceChoice {
  const [name = '', ...pairs] = text.split(',');
  const options: Record<string, number | string | boolean> = {};
  let slot: string | null = null;
  for (const pair of pairs) {
    const [key = '', value] = pair.split('=');
    if (key === '' || value === undefined)
      throw new UsageError(`--device: expected option=value behind ${name}, got ${JSON.stringify(pair)}`, 'exec');
    if (key === 'slot') slot = value;
    else options[key] = optionValue(value);
  }
  return { name, options, slot };
}

function optionValue(text: string): number | string | boolean {
  if (text === 'true' || text === 'false') return text === 'true';
  return /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : text;
}
