/** Fault status and the one fault recording register (VT-d 7.2, 11.4.4.3, 11.4.7). */
import { encodeFault, type FaultEntry } from '../../arch/vtd/faults.ts';
import { FECTL_IM, Fsts } from '../../arch/vtd/registers.ts';

const RECORDED = 1n << 63n;

export class FaultRecording {
  /** FSTS, without PPF, which follows from F. */
  private latched = 0;
  record: readonly bigint[] = [0n, 0n];
  /** FECTL.IM, FEDATA, FEADDR, FEUADDR. */
  control = FECTL_IM;
  data = 0;
  address = 0;
  upperAddress = 0;
  private readonly interrupt: () => void;

  constructor(interrupt: () => void) {
    this.interrupt = interrupt;
  }

  get status(): number {
    return this.latched | (this.isFull ? Fsts.PPF : 0);
  }

  private get isFull(): boolean {
    return (this.record[1] & RECORDED) !== 0n;
  }

  /** False when the register still holds a fault: the new one is lost, and PFO is set. */
  write(fault: FaultEntry): boolean {
    if ((this.latched & Fsts.PFO) !== 0) return false;
    if (this.isFull) {
      this.latched |= Fsts.PFO;
      return false;
    }
    this.record = encodeFault(fault);
    this.raise();
    return true;
  }

  /** The invalidation queue stopped. */
  queueError(): void {
    this.latched |= Fsts.IQE;
    this.raise();
  }

  /** FSTS: bits that are written as one are cleared. */
  clearStatus(value: number): void {
    this.latched &= ~(value & (Fsts.PFO | Fsts.IQE));
  }

  /** The highest half of the record: a one in F clears it. */
  writeHighest(value: number): void {
    if (value < 0) this.record = [this.record[0], this.record[1] & ~RECORDED];
  }

  private raise(): void {
    if ((this.control & FECTL_IM) === 0) this.interrupt();
  }
}
