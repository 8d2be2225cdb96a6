/** A function's DMA: split at 4 KiB, each piece translated, completed later by the work queue. */
import { fromHalves, highHalf } from '../../ports/address.ts';
import type { Transaction as Tx } from '../../ports/transaction.ts';
import { Access, Status, Transaction } from '../../ports/transaction.ts';
import type { Job } from '../../ports/work.ts';
import type { HostFunction } from './function.ts';
import { describeDma } from './hops.ts';
import type { Upstream } from './upstream.ts';

const PAGE = 4096;
/** A request without a PASID, as {@link Tx.ssid} says it. */
const NO_PASID = -1;
/** A request for more is refused: no real function moves so much at once, and it bounds what a model can allocate. */
const MAX_DMA = 64 * 1024 * 1024;

export class DmaEngine {
  private readonly owner: HostFunction;
  private readonly upstream: Upstream;
  private readonly tx = new Transaction();
  /** Counts resets: what was submitted before the last one fails. */
  private epoch = 0;

  constructor(owner: HostFunction, upstream: Upstream) {
    this.owner = owner;
    this.upstream = upstream;
  }

  read(iova: number, length: number, complete: (ok: boolean, bytes: Uint8Array) => void, pasid = NO_PASID): void {
    const acceptable = isRange(iova, length);
    const bytes = new Uint8Array(acceptable ? length : 0);
    this.submit(
      () => acceptable && this.move(iova, bytes, Access.READ, pasid),
      (ok) => complete(ok, bytes),
    );
  }

  write(iova: number, from: Uint8Array, complete: (ok: boolean) => void, pasid = NO_PASID): void {
    const acceptable = isRange(iova, from.length);
    const bytes = acceptable ? from.slice() : from;
    this.submit(() => acceptable && this.move(iova, bytes, Access.WRITE, pasid), complete);
  }

  reset(): void {
    this.epoch++;
  }

  private submit(transfer: () => boolean, complete: (ok: boolean) => void): void {
    const { epoch } = this;
    const job: Job = { run: () => complete(epoch === this.epoch && transfer()) };
    this.upstream.work.post(job);
  }

  /** All pieces are tried, as a device's independent requests are; true when each one succeeded. */
  private move(iova: number, bytes: Uint8Array, access: number, pasid: number): boolean {
    let ok = true;
    for (let done = 0; done < bytes.length; ) {
      const here = iova + done;
      const length = Math.min(bytes.length - done, PAGE - (here % PAGE));
      if (!this.piece(here, bytes.subarray(done, done + length), access, pasid)) ok = false;
      done += length;
    }
    return ok;
  }

  private piece(iova: number, bytes: Uint8Array, access: number, pasid: number): boolean {
    const { tx, upstream, owner } = this;
    if (!owner.mayIssue || (pasid !== NO_PASID && !owner.mayUsePasid(pasid))) return false;
    tx.ssid = pasid;
    tx.requester = owner.streamId;
    tx.iovaHi = highHalf(iova);
    tx.iovaLo = iova | 0;
    tx.size = bytes.length;
    tx.access = access;
    if (upstream.tap.observer !== null) describeDma(owner, tx);
    const peer = upstream.peers?.find(owner, tx.iovaHi, tx.iovaLo) ?? null;
    if (peer !== null) {
      const offset = peer.offsetOf(tx.iovaHi, tx.iovaLo);
      return registersMove(
        iova,
        bytes,
        access,
        (at, size) => peer.read(offset + at, size),
        (at, size, value) => peer.write(offset + at, size, value),
      );
    }
    if (upstream.translate(tx) !== Status.OK) return false;
    return this.atPhysical(tx, bytes, access);
  }

  private atPhysical(tx: Tx, bytes: Uint8Array, access: number): boolean {
    const { bus } = this.upstream;
    const pa = fromHalves(tx.paHi, tx.paLo);
    if (bus.memory.covers(pa, bytes.length)) {
      return access === Access.READ ? bus.memory.read(pa, bytes) : bus.memory.write(pa, bytes);
    }
    const claimed = bus.claimant(pa) !== null && bus.claimant(pa + bytes.length - 1) !== null;
    return (
      claimed &&
      registersMove(
        pa,
        bytes,
        access,
        (at, size) => bus.read(pa + at, size),
        (at, size, value) => this.store(tx, pa + at, size, value),
      )
    );
  }

  /** A device's write into a doorbell page is an interrupt like any other: a function needs no MSI capability to send one. */
  private store(tx: Tx, pa: number, size: number, value: number): void {
    tx.paHi = highHalf(pa);
    tx.paLo = pa | 0;
    tx.size = size;
    tx.data = value;
    this.upstream.storeDma(tx);
  }
}

const isRange = (iova: number, length: number): boolean =>
  Number.isSafeInteger(iova) && iova >= 0 && length >= 0 && length <= MAX_DMA && Number.isSafeInteger(iova + length);

/** Moves bytes in naturally aligned accesses of up to 4; `start` is where the first one goes. */
function registersMove(
  start: number,
  bytes: Uint8Array,
  access: number,
  load: (at: number, size: number) => number,
  store: (at: number, size: number, value: number) => void,
): boolean {
  for (let at = 0; at < bytes.length; ) {
    const left = bytes.length - at;
    const lane0 = (start + at) % 4;
    const size = left >= 4 && lane0 === 0 ? 4 : left >= 2 && lane0 % 2 === 0 ? 2 : 1;
    if (access === Access.READ) {
      const value = load(at, size);
      for (let lane = 0; lane < size; lane++) bytes[at + lane] = (value >>> (lane << 3)) & 0xff;
    } else {
      let value = 0;
      for (let lane = 0; lane < size; lane++) value |= bytes[at + lane] << (lane << 3);
      store(at, size, value);
    }
    at += size;
  }
  return true;
}
