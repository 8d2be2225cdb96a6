/**
 * A GICv2m frame. The data of the write alone selects the interrupt: whoever reaches the page raises any SPI of the
 * frame, whosever it is. That is why it is not isolated.
 */
import { V2M_MSI_IIDR, V2M_MSI_SETSPI_NS, V2M_MSI_TYPER, V2M_SIZE, v2mType } from '../../arch/gic/index.ts';
import { fromHalves, type Hpa, hex } from '../../ports/address.ts';
import type { Bus, DoorbellPage, MmioTarget, MsiController } from '../../ports/bus.ts';
import { Count, Loss, type LossCode } from '../../ports/ledger.ts';
import { Status, type StatusCode, type Transaction } from '../../ports/transaction.ts';
import type { Gic } from './gic.ts';

export interface V2mOptions {
  /** Host-physical base of the frame, 4 KiB. */
  readonly base: number;
  /** First SPI, 32 to 1019, and how many. */
  readonly spiBase: number;
  readonly spiCount: number;
}

export class GicV2m implements MsiController, MmioTarget {
  readonly name: string;
  readonly doorbells: readonly DoorbellPage[];
  readonly size = V2M_SIZE;
  private readonly gic: Gic;
  private readonly base: number;
  private readonly spiBase: number;
  private readonly spiCount: number;

  constructor(options: V2mOptions, gic: Gic) {
    this.gic = gic;
    this.base = options.base;
    this.spiBase = options.spiBase;
    this.spiCount = options.spiCount;
    this.name = `GICv2m@${hex(options.base)}`;
    this.doorbells = [{ base: options.base, size: V2M_SIZE, register: V2M_MSI_SETSPI_NS, isolated: false }];
  }

  attach(bus: Bus): void {
    bus.map(this.base, V2M_SIZE, this);
    bus.attachController(this);
  }

  message(tx: Transaction): StatusCode {
    const spi = tx.data;
    if ((tx.paLo & (V2M_SIZE - 1)) !== V2M_MSI_SETSPI_NS) return this.lose(Loss.NOT_A_DOORBELL, tx);
    // Unsigned, so that one compare tests both ends.
    if ((spi - this.spiBase) >>> 0 >= this.spiCount) return this.lose(Loss.NO_SUCH_INTID, tx);
    if (this.gic.tap.observer !== null) this.observe(tx);
    const loss = this.gic.raiseSpi(spi);
    return loss === -1 ? Status.OK : this.lose(loss, tx);
  }

  read(offset: number, _size: number): number {
    if ((offset & ~3) === V2M_MSI_TYPER) return v2mType(this.spiBase, this.spiCount);
    // MSI_IIDR: no quirky implementer. MSI_SETSPI_NS is write-only and reads as zero.
    if ((offset & ~3) === V2M_MSI_IIDR) return 0x0000_043b;
    return 0;
  }

  /** A CPU's write to MSI_SETSPI_NS raises the SPI as a device's does, and counts as sent by it. */
  write(offset: number, _size: number, value: number): void {
    if (offset !== V2M_MSI_SETSPI_NS || (value - this.spiBase) >>> 0 >= this.spiCount) return;
    if (this.gic.raiseSpi(value | 0) === -1) this.gic.tap.ledger[Count.SENT]++;
  }

  private lose(loss: LossCode, tx: Transaction): StatusCode {
    const { tap } = this.gic;
    tap.ledger[Count.LOST + loss]++;
    if (tap.observer !== null) {
      const at = hex(fromHalves(tx.paHi, tx.paLo));
      const last = this.spiBase + this.spiCount - 1;
      const data = tx.data >>> 0;
      const why =
        loss === Loss.NOT_A_DOORBELL
          ? `${at} is in the frame, but only MSI_SETSPI_NS at ${hex(this.base + V2M_MSI_SETSPI_NS)} raises interrupts`
          : (data - this.spiBase) >>> 0 >= this.spiCount
            ? `data ${data} selects no SPI of the frame, which has ${this.spiBase} to ${last}`
            : `SPI ${data} is not configured as edge triggered`;
      tap.observer.hop({ at: 'lost', where: this.name, loss, why });
    }
    return Status.OK;
  }

  private observe(tx: Transaction): void {
    const doorbell = fromHalves(tx.paHi, tx.paLo) as Hpa;
    const cpu = this.gic.distributor.target(tx.data);
    this.gic.tap.observer?.hop({
      at: 'controller',
      name: this.name,
      doorbell,
      data: tx.data >>> 0,
      deviceId: tx.requester,
      eventId: tx.data >>> 0,
      intid: tx.data,
      cpu,
    });
  }
}
