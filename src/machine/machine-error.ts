/** A machine that cannot be: `field` is the path of what is wrong, e.g. `interrupts.its[0].base`. */
export class MachineError extends Error {
  readonly field: string;
  constructor(field: string, why: string) {
    super(`${field}: ${why}`);
    this.name = 'MachineError';
    this.field = field;
  }
}
