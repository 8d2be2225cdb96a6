import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { TailField } from './field.ts';
import * as uapi from './index.ts';
import { Struct } from './struct.ts';
import { NOT_IN_LINUX, TABLES } from './tables.ts';

/** `[offset, size]`, and `'signed'` behind them; of a flexible tail the size of one element. */
type FieldFact = readonly [number, number] | readonly [number, number, 'signed'];
interface Facts {
  readonly package: string;
  readonly version: string;
  /** What the headers have, and neither the tables nor LEFT_OUT name. */
  readonly notInTables: readonly string[];
  readonly structs: Readonly<Record<string, { size: number; align: number; fields: Record<string, FieldFact> }>>;
  /** A number beyond 2^53 is a decimal string. */
  readonly constants: Readonly<Record<string, number | string>>;
}

const facts = JSON.parse(readFileSync(new URL('./uapi.facts.json', import.meta.url), 'utf8')) as Facts;
const entries = TABLES.flatMap(({ exports }) => Object.entries(exports));
const structs = entries.flatMap(([name, value]) =>
  value instanceof Struct ? [[name, value as Struct<never>] as const] : [],
);
const constants = entries.flatMap(([name, value]) =>
  typeof value === 'number' || typeof value === 'bigint' ? [[name, value] as const] : [],
);

/** C writes it 1 << 31, a negative int, and keeps it in a __u32. */
const NEGATIVE_IN_C = new Set(['VFIO_REGION_TYPE_PCI_VENDOR_TYPE']);

describe(`the tables are what ${facts.package} ${facts.version} says`, () => {
  it('stands on the headers of Linux 7.2', () => {
    expect(facts.version).toMatch(/^7\.2\./);
    expect(structs.length).toBeGreaterThan(85);
    expect(constants.length).toBeGreaterThan(300);
  });

  it('every struct: size, alignment, and each field with its offset, size and sign', () => {
    for (const [name, struct] of structs) {
      expect(struct.name, name).toBe(name);
      expect({ name, fields: fieldsOf(struct), size: struct.size, align: struct.align }).toEqual({
        name,
        ...facts.structs[name],
      });
    }
  });

  it('every number', () => {
    for (const [name, value] of constants) {
      if (NOT_IN_LINUX.has(name)) continue;
      const fact = BigInt(facts.constants[name] ?? 'missing');
      expect(`${name} ${BigInt(value)}`).toBe(`${name} ${NEGATIVE_IN_C.has(name) ? BigInt.asUintN(32, fact) : fact}`);
    }
  });

  it('no fact without a table', () => {
    const named = new Set(entries.map(([name]) => name));
    const known = [...Object.keys(facts.structs), ...Object.keys(facts.constants)];
    expect(known.filter((name) => !named.has(name))).toEqual([]);
  });

  it('nothing in the headers of VFIO and iommufd is forgotten', () => {
    expect(facts.notInTables).toEqual([]);
  });

  it('what no table mirrors is listed as not in Linux', () => {
    const mirrored = new Set(entries.map(([name]) => name));
    const others = Object.entries(uapi)
      .filter(([, value]) => value instanceof Struct || typeof value === 'number' || typeof value === 'bigint')
      .map(([name]) => name)
      .filter((name) => !mirrored.has(name));
    expect(new Set([...others, 'ENOTSUPP'])).toEqual(NOT_IN_LINUX);
    for (const name of NOT_IN_LINUX) expect(facts.constants[name], name).toBeUndefined();
  });
});

function fieldsOf(struct: Struct<never>): Record<string, FieldFact> {
  const named = struct.layout.filter(({ field }) => field.kind !== 'hole');
  return Object.fromEntries(
    named.map(({ name, field, offset }) => {
      const size = field.kind === 'tail' ? (field as TailField<unknown, unknown>).element.size : field.size;
      return [name, isSigned(struct, name) ? [offset, size, 'signed'] : [offset, size]];
    }),
  );
}

/** Does a scalar of all ones read negative? */
function isSigned(struct: Struct<never>, name: string): boolean {
  const { field } = struct.layout.find((placement) => placement.name === name)!;
  if (field.kind !== 'scalar' && field.kind !== 'overlay') return false;
  return Number(field.read(new DataView(new Uint8Array(8).fill(0xff).buffer), 0)) < 0;
}

describe('what the specification says by hand', () => {
  it('numbers that appear in traces', () => {
    expect(uapi.VFIO_GET_API_VERSION).toBe(0x3b64);
    expect(uapi.VFIO_IOMMU_MAP_DMA).toBe(0x3b71);
    expect(uapi.VFIO_DEVICE_FEATURE).toBe(0x3b75);
    expect(uapi.IOMMU_HW_QUEUE_ALLOC).toBe(0x3b94);
    expect(uapi.KVM_SET_GSI_ROUTING).toBe(0x4008ae6a);
    expect(uapi.KVM_IRQFD).toBe(0x4020ae76);
    expect(uapi.KVM_IOEVENTFD).toBe(0x4040ae79);
    expect(uapi.KVM_CREATE_DEVICE).toBe(0xc00caee0);
    expect(uapi.KVM_SET_DEVICE_ATTR).toBe(0x4018aee1);
    expect(uapi._IOC_DECODE(uapi.KVM_SIGNAL_MSI)).toEqual({ direction: 1, size: 32, type: 0xae, nr: 0xa5 });
  });

  it("belfry's own request", () => {
    const { vfio_device_feature_belfry_doorbell: doorbell } = uapi;
    expect(doorbell.size).toBe(32);
    expect(doorbell.layout.map(({ name, offset, field }) => `${name}@${offset}:${field.size}`).join(' ')).toBe(
      'flags@0:4 index@4:4 start@8:4 count@12:4 iova@16:8 size@24:8',
    );
    expect(uapi.VFIO_DEVICE_FEATURE_BELFRY_DOORBELL).toBe(0xbe11);
    expect(uapi.VFIO_DEVICE_FEATURE_BELFRY_DOORBELL & ~uapi.VFIO_DEVICE_FEATURE_MASK).toBe(0);
  });

  it('one number, several meanings: the kind of file decides', () => {
    expect(uapi.requestName('container', 0x3b70)).toBe('VFIO_IOMMU_GET_INFO');
    expect(uapi.requestName('device', 0x3b70)).toBe('VFIO_DEVICE_GET_PCI_HOT_RESET_INFO');
    expect(uapi.requestName('container', 0x3b75)).toBe('VFIO_IOMMU_DIRTY_PAGES');
    expect(uapi.requestName('device', 0x3b75)).toBe('VFIO_DEVICE_FEATURE');
    expect(uapi.requestName('iommufd', 0x3b71)).toBe('VFIO_IOMMU_MAP_DMA');
    expect(uapi.requestName('iommufd', 0x3b85)).toBe('IOMMU_IOAS_MAP');
    expect(uapi.requestName('group', 0x3b70)).toBe('ioctl 0x3b70');
    expect(uapi.requestName('vm', 0xc00caee0)).toBe('KVM_CREATE_DEVICE');
  });

  it('errno names', () => {
    expect(uapi.errnoName(-22)).toBe('EINVAL');
    expect(uapi.errnoName(524)).toBe('ENOTSUPP');
    expect(uapi.errnoName(7777)).toBe('errno 7777');
  });
});
