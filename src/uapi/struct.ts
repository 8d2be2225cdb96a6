/**
 * A struct as an ordered table of named, typed, explicitly padded fields. Size, offsets, reader, writer and the
 * TypeScript type all come from the table; `uapi.test.ts` compares them with what a C compiler says of Linux's headers.
 */
import type { Field, HoleField, InOf, OutOf } from './field.ts';

export type Fields = Record<string, Field>;

/** The plain object that reading gives: every named field, u64 as `bigint`. */
export type StructValue<F extends Fields> = {
  -readonly [K in keyof F as F[K] extends HoleField ? never : K]: OutOf<F[K]>;
};
/** What writing takes: a field that is left out is zero, as in a C initializer. */
export type StructInit<F extends Fields> = {
  readonly [K in keyof F as F[K] extends HoleField ? never : K]?: InOf<F[K]>;
};
/** The value type of a struct: `Value<typeof vfio_irq_info>`. */
export type Value<S> = S extends Struct<infer F> ? StructValue<F> : never;
export type Init<S> = S extends Struct<infer F> ? StructInit<F> : never;

/** Where a field lies. */
export interface Placement {
  readonly name: string;
  readonly field: Field;
  readonly offset: number;
}

/**
 * @example
 * const request = vfio_irq_info.bytes({ argsz: vfio_irq_info.size, index: VFIO_PCI_MSIX_IRQ_INDEX });
 * kernel.ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, request);
 * vfio_irq_info.read(request).count;
 */
export class Struct<F extends Fields> {
  /** As the header calls it, without `struct`. */
  readonly name: string;
  /** `sizeof`: bytes without a flexible tail. */
  readonly size: number;
  readonly align: number;
  /** In the order of the table, holes included. */
  readonly layout: readonly Placement[];
  /** Name of the flexible array member, if there is one. */
  readonly tailName: string | null;
  readonly #at: ReadonlyMap<string, Placement>;

  /** @throws TypeError when the table is not what a C compiler would lay out: a hole or a short end that is not declared. */
  constructor(name: string, fields: F) {
    const { layout, size, align } = place(name, fields);
    const last = layout.at(-1);
    this.name = name;
    this.layout = layout;
    this.size = size;
    this.align = align;
    this.tailName = last?.field.kind === 'tail' ? last.name : null;
    this.#at = new Map(layout.map((placement) => [placement.name, placement]));
  }

  offsetOf(field: keyof F & string): number {
    return this.#placement(field).offset;
  }

  sizeOf(field: keyof F & string): number {
    return this.#placement(field).field.size;
  }

  /** `offsetofend`: the first byte behind the field, the usual minimum of an argsz check. */
  endOf(field: keyof F & string): number {
    const { offset, field: type } = this.#placement(field);
    return offset + type.size;
  }

  /** @throws RangeError when `bytes` holds less than the struct at `offset`. */
  read(bytes: Uint8Array, offset = 0): StructValue<F> {
    const view = this.#view(bytes, offset);
    const named = this.layout.filter(({ field }) => field.kind !== 'hole');
    return Object.fromEntries(
      named.map(({ name, field, offset: at }) => [name, field.read(view, at)]),
    ) as StructValue<F>;
  }

  /** As `read`, of a caller that gave only the first part of the struct: what is missing is zero. */
  readShort(bytes: Uint8Array): StructValue<F> {
    if (bytes.length >= this.size) return this.read(bytes);
    const whole = new Uint8Array(this.size);
    whole.set(bytes);
    return this.read(whole);
  }

  /** Writes all fields, zero where `value` has none, into `bytes` at `offset`. @throws RangeError naming the field */
  write(bytes: Uint8Array, value: StructInit<F>, offset = 0): void {
    this.#view(bytes, offset);
    bytes.fill(0, offset, offset + this.size);
    this.patch(bytes, value, offset);
  }

  /** Writes only the fields that `value` has. @throws RangeError naming the field */
  patch(bytes: Uint8Array, value: StructInit<F>, offset = 0): void {
    const view = this.#view(bytes, offset);
    const values = value as Readonly<Record<string, unknown>>;
    for (const name of Object.keys(values)) this.#refuseUnknown(name);
    for (const [i, { name, field, offset: at }] of this.layout.entries()) {
      const given = values[name];
      if (given === undefined || field.kind === 'hole') continue;
      if (field.kind === 'overlay') this.#refuseTwoNames(i, values);
      field.write(view, at, given, `${this.name}.${name}`);
    }
  }

  /** A new buffer of the struct and its tail, if `value` has one. @throws RangeError naming the field */
  bytes(value: StructInit<F> = {}): Uint8Array {
    const buffer = new Uint8Array(this.size + this.#tailBytes(value));
    this.patch(buffer, value);
    return buffer;
  }

  /** One field. */
  get<K extends keyof StructValue<F> & string>(bytes: Uint8Array, field: K, offset = 0): StructValue<F>[K] {
    const { field: type, offset: at } = this.#placement(field);
    return type.read(this.#view(bytes, offset), at) as StructValue<F>[K];
  }

  #tailBytes(value: StructInit<F>): number {
    if (this.tailName === null) return 0;
    const items = (value as Readonly<Record<string, unknown>>)[this.tailName];
    const { field } = this.#placement(this.tailName);
    const element = (field as Field & { readonly element: Field }).element;
    return Array.isArray(items) ? items.length * element.size : 0;
  }

  #placement(field: string): Placement {
    const placement = this.#at.get(field);
    if (placement === undefined) throw new TypeError(`struct ${this.name} has no field ${field}`);
    return placement;
  }

  #refuseUnknown(name: string): void {
    this.#placement(name);
  }

  #refuseTwoNames(index: number, values: Readonly<Record<string, unknown>>): void {
    const { name, offset } = this.layout[index] as Placement;
    const other = this.layout.slice(0, index).find((placement) => placement.offset === offset);
    const clash = other === undefined ? undefined : values[other.name];
    if (other !== undefined && clash !== undefined && clash !== values[name]) {
      throw new RangeError(`${this.name}.${name}: shares its bytes with ${other.name}, and both were given`);
    }
  }

  #view(bytes: Uint8Array, offset: number): DataView {
    if (offset < 0 || bytes.length - offset < this.size) {
      throw new RangeError(
        `struct ${this.name}: needs ${this.size} bytes at ${offset}, the buffer has ${bytes.length}`,
      );
    }
    return new DataView(bytes.buffer, bytes.byteOffset + offset, bytes.length - offset);
  }
}

/** Declares a struct. The order of the table is the order in memory. */
export const struct = <F extends Fields>(name: string, fields: F): Struct<F> => new Struct(name, fields);

/** A struct as a field of another. */
export function nested<F extends Fields>(inner: Struct<F>): Field<StructValue<F>, StructInit<F>> {
  const bytesAt = (view: DataView, at: number): Uint8Array =>
    new Uint8Array(view.buffer, view.byteOffset + at, inner.size);
  return {
    kind: 'nested',
    size: inner.size,
    align: inner.align,
    read: (view, at) => inner.read(bytesAt(view, at)),
    write: (view, at, value) => inner.write(bytesAt(view, at), value),
  };
}

function place(name: string, fields: Fields): { layout: Placement[]; size: number; align: number } {
  const layout: Placement[] = [];
  let end = 0;
  let align = 1;
  for (const [fieldName, field] of Object.entries(fields)) {
    const offset = field.kind === 'overlay' ? (layout.at(-1)?.offset ?? 0) : end;
    if (layout.at(-1)?.field.kind === 'tail')
      throw new TypeError(`struct ${name}: ${fieldName} stands behind the tail`);
    if (offset % field.align !== 0) {
      throw new TypeError(`struct ${name}: a hole of ${field.align - (offset % field.align)} before ${fieldName}`);
    }
    layout.push({ name: fieldName, field, offset });
    end = Math.max(end, offset + field.size);
    align = Math.max(align, field.align);
  }
  if (end % align !== 0) throw new TypeError(`struct ${name}: a hole of ${align - (end % align)} at the end`);
  return { layout, size: end, align };
}
