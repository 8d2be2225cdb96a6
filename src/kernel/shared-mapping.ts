/** What a file maps, counted: a child has its parent's mappings after fork, and the last one to go closes it. */
import type { FileMapping } from './files.ts';

export class SharedMapping {
  readonly file: FileMapping;
  private references = 1;

  constructor(file: FileMapping) {
    this.file = file;
  }

  get(): void {
    this.references += 1;
  }

  put(): void {
    this.references -= 1;
    if (this.references === 0) this.file.close();
  }
}
