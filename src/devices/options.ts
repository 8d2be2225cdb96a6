/** Options of device models, checked: each error names the field and what was expected. */

/** As a host file gives them. */
export type DeviceOptions = Readonly<Record<string, number | string | boolean>>;

/** Reads options one by one, and refuses what nobody asked for. */
export class OptionReader {
  private readonly device: string;
  private readonly options: DeviceOptions;
  private readonly known = new Set<string>();

  constructor(device: string, options: DeviceOptions) {
    this.device = device;
    this.options = options;
  }

  /** An integer from `least` to `most`. @throws RangeError */
  integer(field: string, byDefault: number, least: number, most: number): number {
    const value = this.take(field) ?? byDefault;
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < least || value > most) {
      throw this.error(field, `expected an integer from ${least} to ${most}`, value);
    }
    return value;
  }

  /** One of some integers. @throws RangeError */
  oneOf(field: string, byDefault: number, allowed: readonly number[]): number {
    const value = this.take(field) ?? byDefault;
    if (typeof value !== 'number' || !allowed.includes(value)) {
      throw this.error(field, `expected one of ${allowed.join(', ')}`, value);
    }
    return value;
  }

  /** @throws RangeError */
  boolean(field: string, byDefault: boolean): boolean {
    const value = this.take(field) ?? byDefault;
    if (typeof value !== 'boolean') throw this.error(field, 'expected true or false', value);
    return value;
  }

  /** Bytes: a number, or text such as `64M` (K, M, G, T of 1,024). @throws RangeError */
  bytes(field: string, byDefault: number, least: number, most: number): number {
    const value = this.take(field) ?? byDefault;
    const bytes = typeof value === 'string' ? parseBytes(value) : value;
    if (typeof bytes !== 'number' || !Number.isSafeInteger(bytes) || bytes < least || bytes > most) {
      throw this.error(field, `expected bytes from ${least} to ${most}, such as 64M`, value);
    }
    return bytes;
  }

  /** Text of up to `most` printable ASCII characters. Digits alone arrive as a number from a command line. @throws RangeError */
  text(field: string, byDefault: string, most: number): string {
    const given = this.take(field) ?? byDefault;
    const value = typeof given === 'number' ? String(given) : given;
    if (typeof value !== 'string' || value.length > most || !/^[\x20-\x7e]*$/.test(value)) {
      throw this.error(field, `expected up to ${most} printable characters`, given);
    }
    return value;
  }

  /** Was the option given? */
  has(field: string): boolean {
    return Object.hasOwn(this.options, field);
  }

  /** @throws RangeError for an option that no call above asked for. */
  finish(): void {
    for (const field of Object.keys(this.options)) {
      if (!this.known.has(field)) {
        throw new RangeError(
          `${this.device}: ${field}: no such option; there are ${[...this.known].sort().join(', ')}`,
        );
      }
    }
  }

  error(field: string, expected: string, value: unknown): RangeError {
    return new RangeError(`${this.device}: ${field}: ${expected}, got ${JSON.stringify(value) ?? String(value)}`);
  }

  private take(field: string): number | string | boolean | undefined {
    this.known.add(field);
    return this.has(field) ? this.options[field] : undefined;
  }
}

function parseBytes(text: string): number {
  const [, digits = '', unit = ''] = /^(\d+)([KMGT]?)$/i.exec(text) ?? [];
  return digits === '' ? Number.NaN : Number(digits) * 1024 ** ' KMGT'.indexOf(unit.toUpperCase() || ' ');
}
