/** A kernel's interrupt side over the fakes: devices are added, enabled, rung, and looked at as hardware would. */
import type { MmioTarget } from '../../../ports/bus.ts';
import { ERRNO, errnoName } from '../../../uapi/errno.ts';
import { type TestContext, testContext } from '../../test-context.ts';
import { IrqCore } from '../irq-core.ts';
import { PciMsi } from '../pci-msi.ts';
import type { DoorbellPolicy } from '../prepare.ts';
import { FakeDev, type FakeDevOptions, FakeGroup, FakeParent } from './fakes.ts';

/** Bus addresses of the functions' BARs. */
const BARS = 0x1_0000_0000;

/** The BAR of an MSI-X table: plain words, zero until they are written. */
class TableWords implements MmioTarget {
  readonly name = 'msi-x table';
  private readonly words = new Map<number, number>();

  read(offset: number): number {
    return this.words.get(offset) ?? 0;
  }

  write(offset: number, _size: number, value: number): void {
    this.words.set(offset, value | 0);
  }
}

export interface TableEntry {
  readonly address: number;
  readonly data: number;
  readonly masked: boolean;
}

export class MsiHost {
  readonly context: TestContext;
  readonly irqs: IrqCore;
  readonly parent = new FakeParent();
  readonly msi: PciMsi;
  readonly devs: FakeDev[] = [];

  constructor(
    options: { pageSize?: number; abi?: 'linux-7.2' | 'belfry'; policy?: DoorbellPolicy; noParent?: boolean } = {},
  ) {
    this.context = testContext({ abi: options.abi ?? 'belfry', pageSize: options.pageSize ?? 4096 });
    this.irqs = new IrqCore(this.context, 2);
    this.msi = new PciMsi(this.context, this.irqs, {
      parentOf: () => (options.noParent === true ? null : this.parent),
      doorbellPolicy: options.policy ?? 'kernel',
    });
  }

  /** A device in a group of its own, attached to nothing. */
  add(options: FakeDevOptions = { msix: 4 }): FakeDev & { readonly iommuGroup: FakeGroup } {
    const group = new FakeGroup(this.devs.length);
    const table = BARS + this.devs.length * 0x1_0000;
    this.context.bus.map(table, 0x1_0000, new TableWords());
    const dev = new FakeDev(this.devs.length + 1, group, table, options);
    group.devices.push(dev);
    this.devs.push(dev);
    return dev as FakeDev & { readonly iommuGroup: FakeGroup };
  }

  /** An MSI-X entry as the function has it. */
  entry(dev: FakeDev, index: number): TableEntry {
    const at = dev.table + 16 * index;
    const { bus } = this.context;
    return {
      address: (bus.read32(at + 4) >>> 0) * 2 ** 32 + (bus.read32(at) >>> 0),
      data: bus.read32(at + 8),
      masked: (bus.read32(at + 12) & 1) === 1,
    };
  }

  msixControl(dev: FakeDev): number {
    return dev.config.read(0x82, 2);
  }

  /** Is the vector one that the function would send now? */
  live(dev: FakeDev, index: number): boolean {
    return (this.msixControl(dev) & 0xc000) === 0x8000 && !this.entry(dev, index).masked;
  }

  /** What was refused last, `ENOSPC size`, and forgets it. */
  refusal(): string {
    const { last } = this.context.refusals;
    this.context.refusals.last = null;
    return last === null ? '' : `${last.code} ${last.field ?? ''}`.trim();
  }
}

/** `EINVAL` for -22, else the number itself. */
export const outcome = (result: number): string | number => (result < 0 ? errnoName(-result) : result);
export const E = ERRNO;
