/** IOMMU_TEST_OP_DMABUF_GET and _REVOKE: dma-bufs of the kernel's own memory, which the tests revoke by a request (iommufd/selftest.c). */
import { type DmaBufExporter, DmaBufFile, type PhysVec } from '../../kernel/dma-buf.ts';
import type { IommufdContext } from '../../kernel/iommufd/index.ts';
import type { Process } from '../../kernel/process.ts';
import { hex } from '../../ports/address.ts';

const PAGE = 4096;
const MOST_PAGES = 512;

class TestExporter implements DmaBufExporter {
  revoked = false;
  private readonly ctx: IommufdContext;
  private readonly physical: PhysVec;

  constructor(ctx: IommufdContext, physical: PhysVec) {
    this.ctx = ctx;
    this.physical = physical;
  }

  attach(): number {
    return 0;
  }

  iommufdMap(): PhysVec | number {
    return this.revoked ? this.ctx.context.refusals.refuse('ENODEV', 'the dma-buf is revoked', 'fd') : this.physical;
  }

  release(): void {
    this.ctx.context.memory.free(this.physical.pa, this.physical.length);
  }
}

/** A descriptor of a new dma-buf, or -errno. */
export function dmabufGet(ctx: IommufdContext, process: Process, length: number, openFlags: number): number {
  const { refusals, memory } = ctx.context;
  const size = Math.ceil(length / PAGE) * PAGE;
  if (size === 0 || size > MOST_PAGES * PAGE) {
    return refusals.refuse('EINVAL', `${hex(length, 1)} bytes are none, or more than ${MOST_PAGES} pages`, 'length');
  }
  const pa = memory.allocate(size, PAGE);
  if (pa === null) return refusals.refuse('ENOMEM', `no ${hex(size, 1)} bytes of memory are left`, 'length');
  const exporter = new TestExporter(ctx, { pa, length: size });
  return process.install(new DmaBufFile(refusals, { exporter, size, openFlags }));
}

/** 0, -EBADF, -EINVAL (no dma-buf), -EOPNOTSUPP (another driver's). Importers are told either way. */
export function dmabufRevoke(ctx: IommufdContext, process: Process, fd: number, revoked: boolean): number {
  const { refusals } = ctx.context;
  const file = process.file(fd);
  if (file === null) return refusals.refuse('EBADF', `file descriptor ${fd} is not open`, 'dmabuf_fd');
  if (!(file instanceof DmaBufFile))
    return refusals.refuse('EINVAL', `file descriptor ${fd} (${file.name}) is no dma-buf`, 'dmabuf_fd');
  const { exporter } = file;
  if (!(exporter instanceof TestExporter))
    return refusals.refuse('EOPNOTSUPP', `${file.name} is no dma-buf of the tests`, 'dmabuf_fd');
  exporter.revoked = revoked;
  file.invalidateMappings();
  return 0;
}
