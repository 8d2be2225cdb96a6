/** An open sysfs attribute. */
import type { File } from '../files.ts';
import type { Process } from '../process.ts';
import type { RefusalLog } from '../refusal.ts';
import type { TextNode } from './node.ts';

/** Most that one write of an attribute takes: PAGE_SIZE. */
const MOST = 4096;

export class TextFile implements File {
  readonly name: string;
  private readonly node: TextNode;
  private readonly refusals: RefusalLog;

  constructor(name: string, node: TextNode, refusals: RefusalLog) {
    this.name = name;
    this.node = node;
    this.refusals = refusals;
  }

  read(process: Process, address: number, count: number, offset: number): number {
    if (this.node.read === undefined) return this.refusals.refuse('EIO', `${this.name} cannot be read`);
    const bytes = contents(this.node.read()).subarray(offset, offset + count);
    if (process.memory.copyOut(address, bytes)) return bytes.length;
    return this.refusals.refuse('EFAULT', 'the buffer is not writable', 'buffer');
  }

  write(process: Process, address: number, count: number, offset: number): number {
    const { write, writeAt } = this.node;
    if (write === undefined && writeAt === undefined)
      return this.refusals.refuse('EIO', `${this.name} cannot be written`);
    if (count > MOST)
      return this.refusals.refuse('EINVAL', `${count} bytes are more than the ${MOST} that an attribute takes`);
    const bytes = new Uint8Array(count);
    if (!process.memory.copyIn(address, bytes))
      return this.refusals.refuse('EFAULT', 'the buffer is not readable', 'buffer');
    if (writeAt !== undefined) return writeAt(bytes, offset);
    const result = this.node.write?.(process, new TextDecoder().decode(bytes)) ?? 0;
    return result < 0 ? result : count;
  }

  release(): void {}
}

/** What an attribute reads as, in bytes. */
export const contents = (value: string | Uint8Array): Uint8Array =>
  typeof value === 'string' ? new TextEncoder().encode(value) : value;
