/** A guest map from JSON (`--guest FILE`). Addresses are numbers, or strings such as "0x0808_0000". */
import * as z from 'zod';
import { type GuestMap, guestMapProblems } from './guest-map.ts';

const address = z
  .union([z.number(), z.string().regex(/^(0x[0-9a-fA-F_]+|[0-9_]+)$/, 'expected a number or "0x…"')])
  .transform((value) => Number(typeof value === 'string' ? value.replaceAll('_', '') : value))
  .pipe(
    z
      .number()
      .int()
      .min(0)
      .max(2 ** 48),
  );
/** The first of four lines that follow each other: SPI 987 is a GIC's last. */
const MOST_INTX = 984;
const range = z.strictObject({ base: address, size: address });
const gic = z.strictObject({
  type: z.literal('gic'),
  version: z.union([z.literal(2), z.literal(3)]),
  distributor: address,
  redistributors: address.exactOptional(),
  cpuInterface: address.exactOptional(),
  its: address.exactOptional(),
  v2m: z.strictObject({ base: address, spiBase: address, spiCount: address }).exactOptional(),
});
const guestMap = z.strictObject({
  name: z.string(),
  architecture: z.enum(['arm64', 'x86']),
  ram: z.array(range),
  interrupts: z.discriminatedUnion('type', [gic, z.strictObject({ type: z.literal('apic') })]),
  pci: z.strictObject({
    ecam: range,
    mmio32: range,
    mmio64: range.exactOptional(),
    intx: z.number().int().min(0).max(MOST_INTX),
  }),
});

/** A guest map that cannot be used, with every reason. */
export class GuestMapError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(`the guest map cannot be used: ${problems.join('; ')}`);
    this.name = 'GuestMapError';
    this.problems = problems;
  }
}

/** @throws GuestMapError naming each field that is wrong, and each two ranges that overlap */
export function parseGuestMap(text: string): GuestMap {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new GuestMapError([`no JSON: ${error instanceof Error ? error.message : String(error)}`]);
  }
  const parsed = guestMap.safeParse(json);
  if (!parsed.success) {
    throw new GuestMapError(parsed.error.issues.map((issue) => `${issue.path.join('.') || 'map'}: ${issue.message}`));
  }
  const problems = guestMapProblems(parsed.data);
  if (problems.length > 0) throw new GuestMapError(problems);
  return parsed.data;
}
