/** Memory that is a file (a memfd): mapped into this process here, into address spaces by {@link Ioas.mapFile}, and handed to others by its descriptor. */
import type { Kernel, Mapping } from '../ports/kernel.ts';
import { MOST_BYTES, refuseArgument, whole } from './argument.ts';
import type { MappableFile } from './dma-buf.ts';
import { check, VfioError } from './error.ts';
import { Resource } from './resource.ts';

export interface MemoryFileOptions {
  /** Bytes, up to whole pages. */
  readonly length: number;
  /** What /proc/PID/fd shows. */
  readonly name?: string;
}

/**
 * @example
 * using memory = MemoryFile.create(kernel, { length: 2 ** 20 });
 * const iova = ioas.mapFile(memory);
 * memory.bytes[0] = 1; // what the device finds at `iova`
 */
export class MemoryFile extends Resource implements MappableFile {
  readonly kernel: Kernel;
  readonly fd: number;
  readonly length: number;
  readonly #name: string;
  #mapping: Mapping | null = null;

  private constructor(kernel: Kernel, fd: number, length: number, name: string) {
    super();
    this.kernel = kernel;
    this.fd = fd;
    this.length = length;
    this.#name = name;
  }

  /** @throws VfioError EMFILE, ENOMEM; EINVAL for a length that is not positive */
  static create(kernel: Kernel, { length, name = 'belfry' }: MemoryFileOptions): MemoryFile {
    const request = 'memfd_create';
    if (whole(length, request, 'length', MOST_BYTES) === 0)
      refuseArgument(request, 'length', 'one byte or more', length);
    const size = Math.ceil(length / kernel.pageSize) * kernel.pageSize;
    return new MemoryFile(kernel, check(kernel, kernel.memfd(name, size), request), size, name);
  }

  get label(): string {
    return `memory file ${this.#name}`;
  }

  /** All of it as this process has it mapped, the first time mapped now. @throws VfioError ENOMEM; EBADF after close */
  get mapping(): Mapping {
    this.assertOpen('mmap');
    if (this.#mapping !== null) return this.#mapping;
    const mapping = this.kernel.mmap(this.fd, 0, this.length);
    if (typeof mapping === 'number') {
      check(this.kernel, mapping, 'mmap');
      throw new TypeError('Kernel.mmap answered a number that is no error');
    }
    this.#mapping = mapping;
    return mapping;
  }

  /** @throws VfioError ENOMEM where the file is not one array of memory: `mapping` reads and writes it in words */
  get bytes(): Uint8Array {
    const { bytes } = this.mapping;
    if (bytes !== null) return bytes;
    const why = `the ${this.length} bytes do not lie in one piece of the machine's memory`;
    throw new VfioError({ code: 'ENOMEM', request: 'mmap', why, hint: 'mapping.read32 and write32 reach them' });
  }

  protected override release(): void {
    this.#mapping?.unmap();
    this.kernel.close(this.fd);
  }
}
