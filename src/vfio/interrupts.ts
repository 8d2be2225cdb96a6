/** The interrupts of one kind of a device: INTx, MSI, MSI-X, error, request. */
import type { EventFdHandle, Kernel } from '../ports/kernel.ts';
import {
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_SET_IRQS,
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_INFO_MASKABLE,
  VFIO_IRQ_INFO_NORESIZE,
  vfio_irq_info,
} from '../uapi/vfio-irq.ts';
import { whole } from './argument.ts';
import { check, VfioError } from './error.ts';
import { explainIrq } from './explain-irq.ts';
import { Interrupt } from './interrupt.ts';
import { type IrqAction, type IrqData, irqSetBytes } from './irq-set.ts';
import { askInfo } from './request.ts';
import { Resource } from './resource.ts';

/** Of MSI-X (PCIe 7.7.2); no other kind has more. */
const MOST_VECTORS = 2048;

/** In the order of VFIO's indexes. */
export const INTERRUPT_KINDS = ['intx', 'msi', 'msix', 'err', 'req'] as const;
export type InterruptKind = (typeof INTERRUPT_KINDS)[number];

export interface InterruptsInfo {
  /** How many the device has; 0 without the capability. */
  readonly count: number;
  readonly eventfd: boolean;
  readonly maskable: boolean;
  /** It masks itself when it fires, and waits for `unmask` (INTx). */
  readonly automasked: boolean;
  /** More can be added while some are enabled (MSI-X on x86); else disable, and enable the larger number. */
  readonly resizable: boolean;
}

export interface Enabled {
  readonly requested: number;
  /** What the kernel can give: `requested`, or less. */
  readonly granted: number;
  /** `granted` interrupts; empty when less than the wanted minimum was granted: then nothing is enabled. */
  readonly vectors: readonly Interrupt[];
}

/**
 * @example
 * const { granted, vectors } = device.msix.enable(8);
 * vectors[0]?.onInterrupt((count) => console.log(count));
 * device.msix.disable();
 */
export class Interrupts extends Resource {
  readonly kind: InterruptKind;
  readonly deviceName: string;
  readonly #kernel: Kernel;
  readonly #fd: number;
  #vectors: readonly Interrupt[] = [];
  #enabled = false;

  /** Made by {@link Device}. */
  constructor(kernel: Kernel, fd: number, kind: InterruptKind, deviceName: string) {
    super();
    this.#kernel = kernel;
    this.#fd = fd;
    this.kind = kind;
    this.deviceName = deviceName;
  }

  get label(): string {
    return `${this.kind} of ${this.deviceName}`;
  }

  /** VFIO's index: 0 INTx to 4 request. */
  get index(): number {
    return INTERRUPT_KINDS.indexOf(this.kind);
  }

  /** What {@link enable} made and nobody disabled. */
  get vectors(): readonly Interrupt[] {
    return this.#vectors;
  }

  get enabled(): boolean {
    return this.#enabled;
  }

  /** @throws VfioError: EINVAL for `err` of a device that is not PCI Express */
  info(): InterruptsInfo {
    this.assertOpen('VFIO_DEVICE_GET_IRQ_INFO');
    const fill = (bytes: Uint8Array): void => vfio_irq_info.patch(bytes, { index: this.index });
    const answer = askInfo(
      this.#kernel,
      this.#fd,
      VFIO_DEVICE_GET_IRQ_INFO,
      'VFIO_DEVICE_GET_IRQ_INFO',
      vfio_irq_info,
      fill,
    );
    const { flags, count } = vfio_irq_info.read(answer);
    return {
      count,
      eventfd: (flags & VFIO_IRQ_INFO_EVENTFD) !== 0,
      maskable: (flags & VFIO_IRQ_INFO_MASKABLE) !== 0,
      automasked: (flags & VFIO_IRQ_INFO_AUTOMASKED) !== 0,
      resizable: (flags & VFIO_IRQ_INFO_NORESIZE) === 0,
    };
  }

  /**
   * Enables `count` interrupts (left out: all), each with an eventfd of its own. A kernel that has fewer says how many, and that
   * number is enabled instead when it reaches `minimum` (1 when left out); the answer tells both.
   * @throws VfioError: EINVAL beyond what the device has, or while another kind is enabled
   */
  enable(count = this.info().count, { minimum = 1 }: { readonly minimum?: number } = {}): Enabled {
    if (this.#enabled) {
      throw new VfioError({
        code: 'EBUSY',
        request: 'VFIO_DEVICE_SET_IRQS',
        why: `${this.label} is enabled`,
        hint: 'disable it first',
      });
    }
    whole(count, 'VFIO_DEVICE_SET_IRQS', 'count', MOST_VECTORS);
    whole(minimum, 'VFIO_DEVICE_SET_IRQS', 'minimum');
    const eventfds = this.#makeEventfds(count);
    let granted = count;
    try {
      for (let short = this.#tryEnable(eventfds); short > 0; short = this.#tryEnable(eventfds)) {
        granted = short;
        this.#closeEventfds(eventfds, short < minimum ? 0 : short);
        if (short < minimum) return { requested: count, granted, vectors: [] };
      }
    } catch (error) {
      this.#closeEventfds(eventfds, 0);
      throw error;
    }
    this.#vectors = eventfds.map((eventfd, i) => this.adopt(new Interrupt(this.#kernel, this, i, eventfd)));
    return { requested: count, granted, vectors: this.#vectors };
  }

  /** Disables the kind and closes its vectors; nothing happens when it is not enabled. @throws VfioError */
  disable(): void {
    if (!this.#enabled) return;
    this.request('trigger', 0, { count: 0 });
    this.#enabled = false;
    this.#forget();
  }

  /**
   * The request itself, for a VMM that has eventfds of its own: the kernel signals `fds[i]` for vector `start + i`, -1 for none.
   * The first such call enables the kind.
   * @returns 0, or the positive number that the kernel can give when that is less; then nothing is enabled
   * @throws VfioError; then the kernel has taken away the vectors from `start` up to the failing one
   */
  program(start: number, fds: readonly number[]): number {
    const granted = this.request('trigger', start, { fds });
    if (granted === 0) this.#enabled = true;
    return granted;
  }

  /** Loopback for `count` vectors from `start`; those without a handler are skipped silently. @throws VfioError */
  trigger(start = 0, count = 1): void {
    this.request('trigger', start, { count });
  }

  /** Loopback for those whose flag is set. @throws VfioError */
  triggerSome(start: number, flags: readonly boolean[]): void {
    this.request('trigger', start, { flags });
  }

  /** INTx only: keeps the line quiet. @throws VfioError */
  mask(): void {
    this.request('mask', 0, { count: 1 });
  }

  /** INTx only: lets it fire again; at once when the line is still asserted. @throws VfioError */
  unmask(): void {
    this.request('unmask', 0, { count: 1 });
  }

  /** INTx only: each signal of `eventfd` unmasks (KVM's resample); null takes it away. @throws VfioError */
  resample(eventfd: EventFdHandle | number | null): void {
    const fd = eventfd === null ? -1 : typeof eventfd === 'number' ? eventfd : eventfd.fd;
    this.request('unmask', 0, { fds: [fd] });
  }

  /** VFIO_DEVICE_SET_IRQS as it is. @returns what the kernel answers, 0 or a positive number @throws VfioError */
  request(action: IrqAction, start: number, data: IrqData): number {
    this.assertOpen('VFIO_DEVICE_SET_IRQS');
    return this.#setIrqs(action, start, data);
  }

  protected override closeChildren(): void {
    // The device's file may go next; the kernel then disables what a failure here would leave.
    if (this.#enabled)
      this.#kernel.ioctl(this.#fd, VFIO_DEVICE_SET_IRQS, irqSetBytes(this.index, 'trigger', 0, { count: 0 }));
    this.#enabled = false;
    super.closeChildren();
  }

  protected override release(): void {
    this.#vectors = [];
  }

  #setIrqs(action: IrqAction, start: number, data: IrqData): number {
    const result = this.#kernel.ioctl(this.#fd, VFIO_DEVICE_SET_IRQS, irqSetBytes(this.index, action, start, data));
    return check(this.#kernel, result, 'VFIO_DEVICE_SET_IRQS', (code) =>
      explainIrq(code, this.kind, action, this.#enabled),
    );
  }

  /** 0 when all of them are enabled; else the smaller number that would be. */
  #tryEnable(eventfds: readonly EventFdHandle[]): number {
    const fds = eventfds.map(({ fd }) => fd);
    const short = this.program(0, fds);
    if (short < fds.length) return short;
    throw new VfioError({
      code: 'EIO',
      request: 'VFIO_DEVICE_SET_IRQS',
      why: `the kernel offers ${short} instead of ${fds.length}`,
    });
  }

  #makeEventfds(count: number): EventFdHandle[] {
    const made: EventFdHandle[] = [];
    for (let i = 0; i < count; i++) {
      const eventfd = this.#kernel.eventfd();
      if (typeof eventfd !== 'number') {
        made.push(eventfd);
        continue;
      }
      this.#closeEventfds(made, 0);
      check(this.#kernel, eventfd, 'eventfd', () => ({
        why: `no file descriptor is left for vector ${i} of ${count}`,
      }));
    }
    return made;
  }

  #closeEventfds(eventfds: EventFdHandle[], keep: number): void {
    for (const { fd } of eventfds.splice(keep)) this.#kernel.close(fd);
  }

  #forget(): void {
    for (const vector of [...this.#vectors].reverse()) vector.close();
    this.#vectors = [];
  }
}
