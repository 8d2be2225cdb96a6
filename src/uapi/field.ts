/**
 * The kinds of field that a struct's table is made of. A field knows its size, its alignment (LP64, as the C compiler
 * aligns it), and how to read and write itself; `struct.ts` places fields one behind the other.
 */

/** `Out` is what reading gives; `In` is what writing takes. */
export interface Field<Out = unknown, In = Out> {
  readonly kind: 'scalar' | 'array' | 'nested' | 'union' | 'overlay' | 'hole' | 'tail';
  /** Bytes; 0 for a tail. */
  readonly size: number;
  readonly align: number;
  read(view: DataView, at: number): Out;
  /** `path` names the field in errors: `vfio_irq_set.count`. @throws RangeError, TypeError */
  write(view: DataView, at: number, value: In, path: string): void;
}

export type OutOf<F> = F extends Field<infer Out, infer _In> ? Out : never;
export type InOf<F> = F extends Field<infer _Out, infer In> ? In : never;

function integer(name: string, size: 1 | 2 | 4, signed: boolean): Field<number> {
  const low = signed ? -(2 ** (size * 8 - 1)) : 0;
  const high = signed ? 2 ** (size * 8 - 1) - 1 : 2 ** (size * 8) - 1;
  return {
    kind: 'scalar',
    size,
    align: size,
    read(view, at) {
      if (size === 1) return view.getUint8(at);
      if (size === 2) return view.getUint16(at, true);
      return signed ? view.getInt32(at, true) : view.getUint32(at, true);
    },
    write(view, at, value, path) {
      if (!Number.isInteger(value) || value < low || value > high) {
        throw new RangeError(`${path}: expected ${name}, an integer from ${low} to ${high}, got ${String(value)}`);
      }
      if (size === 1) view.setUint8(at, value);
      else if (size === 2) view.setUint16(at, value, true);
      else view.setUint32(at, value >>> 0, true);
    },
  };
}

export const u8: Field<number> = integer('u8', 1, false);
export const u16: Field<number> = integer('u16', 2, false);
export const u32: Field<number> = integer('u32', 4, false);
export const s32: Field<number> = integer('s32', 4, true);

const U64_MAX = 0xffff_ffff_ffff_ffffn;

/** Reads as `bigint`. Takes a `bigint`, or a number that is a safe integer. */
export const u64: Field<bigint, bigint | number> = {
  kind: 'scalar',
  size: 8,
  align: 8,
  read: (view, at) => view.getBigUint64(at, true),
  write(view, at, value, path) {
    const exact = typeof value === 'bigint' || Number.isSafeInteger(value);
    const big = exact ? BigInt(value) : -1n;
    if (big < 0n || big > U64_MAX) {
      throw new RangeError(
        `${path}: expected u64, a bigint (or safe integer) from 0 to 0xffffffffffffffff, got ${String(value)}`,
      );
    }
    view.setBigUint64(at, big, true);
  },
};

/** `count` elements, all present when read. A shorter array may be written; the rest is zero. */
export function array<Out, In>(element: Field<Out, In>, count: number): Field<Out[], readonly In[]> {
  return {
    kind: 'array',
    size: element.size * count,
    align: element.align,
    read: (view, at) => Array.from({ length: count }, (_, i) => element.read(view, at + i * element.size)),
    write(view, at, value, path) {
      if (value.length > count)
        throw new RangeError(`${path}: expected at most ${count} elements, got ${value.length}`);
      for (const [i, item] of value.entries()) element.write(view, at + i * element.size, item, `${path}[${i}]`);
    },
  };
}

/** A flexible array member: as many whole elements as the buffer holds behind the struct. Only as a table's last field. */
export interface TailField<Out, In> extends Field<Out[], readonly In[]> {
  readonly kind: 'tail';
  readonly element: Field<Out, In>;
}

export function tail<Out, In>(element: Field<Out, In>): TailField<Out, In> {
  return {
    kind: 'tail',
    element,
    size: 0,
    align: element.align,
    read(view, at) {
      const count = Math.floor((view.byteLength - at) / element.size);
      return Array.from({ length: count }, (_, i) => element.read(view, at + i * element.size));
    },
    write(view, at, value, path) {
      const room = Math.floor((view.byteLength - at) / element.size);
      if (value.length > room) throw new RangeError(`${path}: the buffer has room for ${room}, got ${value.length}`);
      for (const [i, item] of value.entries()) element.write(view, at + i * element.size, item, `${path}[${i}]`);
    },
  };
}

/** Bytes that the compiler leaves between two fields; they have no name in C, read as nothing and are left as they are. */
export interface HoleField extends Field<undefined> {
  readonly kind: 'hole';
}

export function hole(size: number): HoleField {
  return { kind: 'hole', size, align: 1, read: () => undefined, write: () => {} };
}

/** Another name for the bytes of the field before it: a member of an anonymous union of scalars. */
export interface OverlayField extends Field<number> {
  readonly kind: 'overlay';
}

export const overlay = (scalar: Field<number>): OverlayField => ({ ...scalar, kind: 'overlay' });

/** A named union: reading gives every view of the bytes, writing takes one. */
export function union<M extends Record<string, Field>>(
  members: M,
): Field<{ [K in keyof M]: OutOf<M[K]> }, { [K in keyof M]?: InOf<M[K]> }> {
  const entries = Object.entries(members) as [keyof M & string, Field][];
  return {
    kind: 'union',
    size: Math.max(...entries.map(([, field]) => field.size)),
    align: Math.max(...entries.map(([, field]) => field.align)),
    read(view, at) {
      return Object.fromEntries(entries.map(([name, field]) => [name, field.read(view, at)])) as {
        [K in keyof M]: OutOf<M[K]>;
      };
    },
    write(view, at, value, path) {
      const given = entries.filter(([name]) => value[name] !== undefined);
      if (given.length > 1) {
        throw new TypeError(`${path}: one member of the union, got ${given.map(([name]) => name).join(' and ')}`);
      }
      for (const [name, field] of given) field.write(view, at, value[name], `${path}.${name}`);
    },
  };
}
