/** Log pages (5.14.1): errors, SMART, firmware, changed namespaces; and what is counted for them. */
import { KELVIN } from './features.ts';
import { ERROR_ENTRIES, FIRMWARE } from './identify.ts';
import type { Command } from './queues.ts';

export const LogPage = { ERROR: 1, SMART: 2, FIRMWARE: 3, CHANGED_NAMESPACES: 4 } as const;
const ERROR_BYTES = 64;

/** Since the drive was made; a reset keeps them. */
export class Logs {
  private errors: Uint8Array[] = [];
  private errorCount = 0;
  private mediaErrors = 0;
  private readonly commands = { read: 0, written: 0 };
  private readonly bytes = { read: 0, written: 0 };
  private changed: readonly number[] = [];

  /** A command ended with an error. `block` is where, of those that name one. */
  failed(command: Command, status: number, block: number): void {
    this.errorCount += 1;
    const entry = new Uint8Array(ERROR_BYTES);
    const view = new DataView(entry.buffer);
    view.setBigUint64(0, BigInt(this.errorCount), true);
    view.setUint16(8, command.queue.id, true);
    view.setUint16(10, command.id, true);
    view.setUint16(12, status << 1, true);
    view.setUint16(14, 0xffff, true);
    view.setBigUint64(16, BigInt(block), true);
    view.setUint32(24, command.namespace, true);
    this.errors = [entry, ...this.errors].slice(0, ERROR_ENTRIES);
  }

  mediaError(): void {
    this.mediaErrors += 1;
  }

  moved(way: 'read' | 'written', bytes: number): void {
    this.commands[way] += 1;
    this.bytes[way] += bytes;
  }

  namespaceChanged(id: number): void {
    this.changed = [id];
  }

  /** The page's bytes, or null for a page that is not there. `warnings` are SMART's critical ones. */
  page(id: number, warnings: number): Uint8Array | null {
    switch (id) {
      case LogPage.ERROR:
        return this.errorPage();
      case LogPage.SMART:
        return this.smartPage(warnings);
      case LogPage.FIRMWARE:
        return firmwarePage();
      case LogPage.CHANGED_NAMESPACES:
        return this.changedPage();
      default:
        return null;
    }
  }

  /** The host has seen the list. */
  forgetChanged(): void {
    this.changed = [];
  }

  private errorPage(): Uint8Array {
    const page = new Uint8Array(ERROR_ENTRIES * ERROR_BYTES);
    for (const [index, entry] of this.errors.entries()) page.set(entry, index * ERROR_BYTES);
    return page;
  }

  /** Figure 194. Counters are 128 bits; data units are thousands of 512 bytes, rounded up. */
  private smartPage(warnings: number): Uint8Array {
    const page = new Uint8Array(512);
    const view = new DataView(page.buffer);
    const count = (at: number, value: number): void => view.setBigUint64(at, BigInt(value), true);
    page[0] = warnings;
    view.setUint16(1, KELVIN, true);
    page[3] = 100; // available spare, percent
    page[4] = 10; // its threshold
    count(32, Math.ceil(this.bytes.read / 512_000));
    count(48, Math.ceil(this.bytes.written / 512_000));
    count(64, this.commands.read);
    count(80, this.commands.written);
    count(112, 1); // power cycles
    count(160, this.mediaErrors);
    count(176, this.errorCount);
    return page;
  }

  private changedPage(): Uint8Array {
    const page = new Uint8Array(4096);
    const view = new DataView(page.buffer);
    for (const [index, id] of this.changed.entries()) view.setUint32(index * 4, id, true);
    return page;
  }
}

/** Slot 1 is active. */
function firmwarePage(): Uint8Array {
  const page = new Uint8Array(512);
  page[0] = 1;
  for (let i = 0; i < 8; i++) page[8 + i] = i < FIRMWARE.length ? FIRMWARE.charCodeAt(i) : 0x20;
  return page;
}
