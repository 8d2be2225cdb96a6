/** The interrupt core as a test wants it: how many vectors there are, what fails, and what was asked. */
import { ERRNO } from '../../../uapi/errno.ts';
import type { MsiParent } from '../../irq/msi-parent.ts';
import type { IrqHandler, MsiMode, PciIrqs } from '../../irq/pci-irqs.ts';
import type { PciDev } from '../../pci/pci-dev.ts';

/** Irq of vector 0. */
const FIRST = 100;

export class FakeIrqs implements PciIrqs {
  /** Vectors that the controller has left. */
  available = 2048;
  /** What allocation answers instead, when not 0. */
  allocError = 0;
  /** What requestIrq answers for a vector. */
  readonly requestErrors = new Map<number, number>();
  dynamic = false;
  allocated = 0;
  readonly handlers = new Map<number, IrqHandler>();
  readonly extra = new Set<number>();
  readonly calls: string[] = [];
  private readonly depths = new Map<number, number>();

  allocIrqVectors(_dev: PciDev, min: number, max: number, mode: MsiMode): number {
    this.calls.push(`alloc ${mode} ${min}..${max}`);
    if (max < min) return -ERRNO.ERANGE;
    if (this.allocError !== 0) return this.allocError;
    this.allocated = Math.min(max, this.available);
    return this.allocated;
  }

  freeIrqVectors(): void {
    this.calls.push('free');
    this.allocated = 0;
    this.extra.clear();
  }

  irqVector(_dev: PciDev, index: number): number {
    return index < this.allocated || this.extra.has(index) ? FIRST + index : -ERRNO.EINVAL;
  }

  msixAllocAt(_dev: PciDev, index: number): number {
    this.calls.push(`alloc at ${index}`);
    if (this.allocError !== 0) return this.allocError;
    this.extra.add(index);
    return FIRST + index;
  }

  msixFreeAt(_dev: PciDev, index: number): void {
    this.extra.delete(index);
  }

  requestIrq(irq: number, handler: IrqHandler, name: string, shared = false): number {
    this.calls.push(`request ${irq} ${name}${shared ? ' shared' : ''}`);
    const error = this.requestErrors.get(irq) ?? 0;
    if (error !== 0) return error;
    this.handlers.set(irq, handler);
    return 0;
  }

  freeIrq(irq: number): void {
    this.calls.push(`release ${irq}`);
    this.handlers.delete(irq);
  }

  enableIrq(irq: number): void {
    this.depths.set(irq, (this.depths.get(irq) ?? 0) - 1);
  }

  disableIrq(irq: number): void {
    this.depths.set(irq, (this.depths.get(irq) ?? 0) + 1);
  }

  depth(irq: number): number {
    return this.depths.get(irq) ?? 0;
  }

  rewriteMessage(irq: number): void {
    this.calls.push(`rewrite ${irq}`);
  }

  msiParent(): MsiParent | null {
    return {
      name: 'fake',
      isolated: true,
      msix: true,
      multiMsi: true,
      dynamicMsix: this.dynamic,
      prepareDevice: () => 0,
      releaseDevice: () => {},
      allocate: () => 0,
      free: () => {},
      activate: () => {},
      deactivate: () => {},
      compose: () => {},
      mask: () => {},
      unmask: () => {},
    };
  }

  /** The interrupt of `irq` arrives. */
  fire(irq: number): void {
    this.handlers.get(irq)?.handleIrq();
  }
}
