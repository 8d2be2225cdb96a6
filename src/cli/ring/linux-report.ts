/** `belfry ring --kernel linux` for people, and as JSON. */
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { hex, hexPlain } from '../../ports/address.ts';
import { plural, span } from './describe.ts';
import type { LinuxSession, LinuxTotals } from './linux-session.ts';

export interface LinuxReport {
  setUp(session: LinuxSession): void;
  totals(session: LinuxSession, totals: LinuxTotals): void;
}

/** Vectors that are listed. */
const LISTED = 16;

const idOf = (value: number): string => value.toString(16).padStart(4, '0');
const titleOf = ({ device: { config } }: LinuxSession): string => `${idOf(config.vendorId)}:${idOf(config.deviceId)}`;
/** The smallest that `part` of all do not exceed. */
const quantile = (sorted: Float64Array, part: number): number => sorted[Math.ceil(sorted.length * part) - 1] ?? 0;

export class LinuxText implements LinuxReport {
  private readonly write: (text: string) => void;
  private readonly version: string;

  constructor(write: (text: string) => void, version: string) {
    this.write = write;
    this.version = version;
  }

  setUp(session: LinuxSession): void {
    const { device, kernel, kind, granted, requested, nested, ringer, rung } = session;
    this.line(`belfry ${this.version}: ${kernelTitle(session)}, ${kernel.pageSize / 1024} KiB pages`);
    this.line('');
    this.line('Set-up');
    this.row('device', `${device.name}  ${titleOf(session)}, IOMMU group ${device.groupNumber}`);
    for (const { start, end, type } of device.reservedRegions) this.row('reserved', `${span(start, end)}  ${type}`);
    this.row('memory', `in ${device.space.label}`);
    if (nested !== null) this.row('stage 1', 'this process’s own, in its memory; the kernel’s window 1:1');
    const state = nested?.doorbell.state;
    if (state != null)
      this.row(
        'doorbell',
        `${hex(state.iova)} -> ${hex(state.window)}, ${state.by === 'table' ? 'written into the mapped MSI-X table' : 'programmed by the kernel'}`,
      );
    this.row(
      'vectors',
      `${granted === requested ? granted : `${granted} of ${requested}`} ${kind === 'msix' ? 'MSI-X' : 'MSI'}, each with an eventfd`,
    );
    this.row('rung by', ringer.how);
    if (rung < granted) this.row('', `it can ring ${rung} of them`);
    const { from, messages } = session.messages(LISTED);
    this.line('');
    this.line(`  ${'vector'.padEnd(10)}what the device holds: ${from}`);
    for (const [vector, { address, data }] of messages.entries())
      this.line(`  ${String(vector).padEnd(10)}${hex(address)}  data ${hex(data, 1)}`);
    if (granted > LISTED) this.line(`  … and ${granted - LISTED} more`);
  }

  totals(session: LinuxSession, totals: LinuxTotals): void {
    const { sent, delivered, lost, unexpected, latencies } = totals;
    this.line('');
    for (const event of session.events())
      this.line(
        `  ${event.name}  ${event.words.map((word) => hex(word, 16)).join('  ')}  virtual stream id ${hex(event.streamId, 2)}`,
      );
    const parts = [`${plural(sent, 'interrupt')} sent`, `${delivered.toLocaleString('en')} delivered`];
    if (lost > 0) parts.push(`${lost.toLocaleString('en')} lost`);
    if (unexpected > 0) parts.push(`${unexpected.toLocaleString('en')} unexpected`);
    this.line(parts.join(', '));
    if (delivered > 0)
      this.line(
        `from the request to the listener: median ${micros(quantile(latencies, 0.5))}, 99 of 100 within ${micros(quantile(latencies, 0.99))}`,
      );
  }

  private row(name: string, text: string): void {
    this.line(`  ${name.padEnd(10)}${text}`);
  }

  private line(text: string): void {
    this.write(`${text}\n`);
  }
}

export class LinuxJson implements LinuxReport {
  private readonly write: (text: string) => void;

  constructor(write: (text: string) => void) {
    this.write = write;
  }

  setUp(session: LinuxSession): void {
    const { device, kind, granted, requested, nested, ringer, rung } = session;
    const state = nested?.doorbell.state ?? null;
    const { from, messages } = session.messages(LISTED);
    this.line('set-up', {
      kernel: kernelTitle(session),
      device: device.name,
      title: titleOf(session),
      group: device.groupNumber,
      reserved: device.reservedRegions.map(({ start, end, type }) => ({
        start: hexPlain(start),
        end: hexPlain(end),
        type,
      })),
      memory: device.space.label,
      doorbell: state === null ? null : { iova: hexPlain(state.iova), window: hexPlain(state.window), by: state.by },
      interrupts: kind,
      vectors: { requested, granted, rung },
      ringer: { how: ringer.how, byDevice: ringer.byDevice },
      from,
    });
    for (const [vector, { address, data }] of messages.entries())
      this.line('vector', { vector, physical: { address: hexPlain(address), data: hexPlain(data) } });
  }

  totals(session: LinuxSession, totals: LinuxTotals): void {
    for (const { words, ...event } of session.events())
      this.line('event', { ...event, input: hexPlain(event.input), words: words.map((word) => hexPlain(word)) });
    const { latencies, ...counts } = totals;
    const micros = { median: quantile(latencies, 0.5), p99: quantile(latencies, 0.99) };
    this.line('summary', { ...counts, latency: latencies.length === 0 ? null : micros });
  }

  private line(kind: string, object: object): void {
    this.write(`${JSON.stringify({ kind, ...object })}\n`);
  }
}

const micros = (value: number): string =>
  value < 1000 ? `${Math.round(value)} µs` : `${(value / 1000).toFixed(1)} ms`;

function kernelTitle({ kernel }: LinuxSession): string {
  if (kernel.kind === 'sim') return 'the simulated Linux';
  return `Linux ${release()} (${machine()})`;
}

function machine(): string {
  try {
    return readFileSync('/proc/sys/kernel/arch', 'latin1').trim();
  } catch {
    return process.arch;
  }
}
