/** A capture that cannot be read: where, and which field of the device it is about. */
export class CaptureError extends Error {
  /** Line of the text, from 1; 0 for bytes that have no lines. */
  readonly line: number;
  /** `config`, `Region 0`, `MSI-X table`, … */
  readonly field: string;

  constructor(line: number, field: string, why: string) {
    super(`${line > 0 ? `line ${line}: ` : ''}${field}: ${why}`);
    this.name = 'CaptureError';
    this.line = line;
    this.field = field;
  }
}
