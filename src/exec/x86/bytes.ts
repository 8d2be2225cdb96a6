/** The bytes of an instruction, taken one after the other. */
export class Bytes {
  /** How many were taken. */
  at = 0;
  /** More were asked for than there are. */
  overrun = false;
  private readonly code: Uint8Array;

  constructor(code: Uint8Array) {
    this.code = code;
  }

  peek(): number {
    return this.code[this.at] ?? 0;
  }

  next(): number {
    const byte = this.code[this.at];
    if (byte === undefined) this.overrun = true;
    this.at += 1;
    return byte ?? 0;
  }

  /** Little-endian, with its sign. */
  signed(size: number): bigint {
    let value = 0n;
    for (let i = 0; i < size; i += 1) value |= BigInt(this.next()) << BigInt(8 * i);
    return BigInt.asIntN(8 * size, value);
  }
}
