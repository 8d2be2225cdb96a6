import { describe, expect, it } from 'vitest';
import { hpa, iova } from '../ports/address.ts';
import { Loss } from '../ports/ledger.ts';
import type { Hop } from '../ports/tap.ts';
import { ChromeTrace } from './chrome.ts';
import { JsonLinesTrace } from './jsonl.ts';
import { teeObservers } from './tee.ts';
import { TextTrace } from './text.ts';

const raise: Hop = {
  at: 'device',
  requester: 0x100,
  how: 'msix',
  vector: 3,
  address: iova(0x0809_0040),
  data: 3,
  state: 'sent',
};
const translated: Hop = {
  at: 'iommu',
  name: 'smmu',
  requester: 0x100,
  iova: iova(0x0809_0040),
  outcome: {
    kind: 'translated',
    pa: hpa(0x0808_0040),
    tlbHit: false,
    steps: [
      { table: 'stream table', level: -1, at: hpa(0x4000_4000), entry: 0xdn },
      { table: 'stage 2', level: 3, at: hpa(0x4000_8480), entry: 0x40_0000_0808_07ffn },
    ],
  },
};
const faulted: Hop = {
  at: 'iommu',
  name: 'smmu',
  requester: 0x100,
  iova: iova(0x0809_0040),
  outcome: {
    kind: 'fault',
    iova: iova(0x0809_0040),
    record: { name: 'F_TRANSLATION', id: 0x10, words: [0x10n, 0xffff_ffff_ffff_ffffn], stage: 2 },
    why: 'no valid descriptor',
    steps: [],
  },
};
const lost: Hop = { at: 'lost', where: 'smmu', loss: Loss.IOMMU_FAULT, why: 'F_TRANSLATION: no valid descriptor' };
const journey: readonly Hop[] = [
  raise,
  translated,
  {
    at: 'controller',
    name: 'its',
    doorbell: hpa(0x0808_0040),
    data: 3,
    deviceId: 0x100,
    eventId: 3,
    intid: 8195,
    cpu: 0,
  },
  { at: 'irq', intid: 8195, irq: 41, action: 'vfio-msix[3](0000:01:00.0)' },
  { at: 'eventfd', id: 9, count: 1 },
  { at: 'irqfd', gsi: 7, address: 0x0809_0040, data: -1, deviceId: 0x8 },
  { at: 'guest-controller', name: 'vits', intid: 8200, cpu: 1, state: 'pending' },
  { at: 'guest-cpu', intid: 8200, cpu: 1, action: 'acknowledge' },
  { at: 'guest-cpu', intid: 8200, cpu: 1, action: 'eoi' },
];

function text(hops: readonly Hop[], options = {}): string {
  let out = '';
  const trace = new TextTrace((part) => {
    out += part;
  }, options);
  for (const hop of hops) trace.hop(hop);
  return out;
}

describe('text', () => {
  it('is one aligned line for each hop', () => {
    expect(text(journey).split('\n')).toEqual([
      '     1.1  device            0000:01:00.0  msix 3: 0x0000_0003 to 0x0809_0040                    sent',
      '     1.2  iommu             smmu          0000:01:00.0 iova 0x0809_0040                         0x0808_0040',
      '     1.3  controller        its           device 0x0100 event 3: 0x0000_0003 at 0x0808_0040     intid 8195 to cpu 0',
      '     1.4  irq               irq 41        intid 8195                                            vfio-msix[3](0000:01:00.0)',
      '     1.5  eventfd           eventfd 9     signalled                                             count 1',
      '     1.6  irqfd             gsi 7         device 0x0008: 0xffff_ffff to 0x0809_0040             injected',
      '     1.7  guest-controller  vits          intid 8200 to cpu 1                                   pending',
      '     1.8  guest-cpu         cpu 1         intid 8200                                            acknowledge',
      '     1.9  guest-cpu         cpu 1         intid 8200                                            eoi',
      '',
    ]);
  });

  it('numbers by what a device began, and gives the reason of a loss', () => {
    const lines = text([raise, faulted, lost, raise]).split('\n');
    expect(lines[1]).toContain('F_TRANSLATION: no valid descriptor');
    expect(lines[2]).toMatch(/^ {5}1\.3 {2}lost {14}smmu {10}IOMMU_FAULT +F_TRANSLATION: no valid descriptor$/);
    expect(lines[3]).toMatch(/^ {5}2\.1 /);
  });

  it('shows the walk when asked', () => {
    const lines = text([translated], { walk: true }).split('\n');
    expect(lines.slice(1, 3)).toEqual([
      '                            stream table            0x4000_4000  0x0000_0000_0000_000d',
      '                            stage 2 level 3         0x4000_8480  0x0040_0000_0808_07ff',
    ]);
  });

  it('names DMA, bypass, abort and stall', () => {
    const at = { at: 'iommu', name: 'smmu', requester: 0x1_0008, iova: iova(0x1000) } as const;
    const all = text([
      { ...raise, how: 'dma-write', vector: -1 },
      { ...at, outcome: { kind: 'bypass', pa: hpa(0x1000), why: 'STE.Config' } },
      { ...at, outcome: { kind: 'abort', why: 'STE.Config', steps: [] } },
      {
        ...at,
        outcome: { kind: 'stall', record: { name: 'F_TRANSLATION', id: 16, words: [], stage: 1 }, tag: 5, why: 'x' },
      },
    ]);
    expect(all).toContain('dma-write 0x0809_0040');
    expect(all).toContain('0001:00:01.0 iova 0x0000_1000');
    expect(all).toContain('0x0000_1000 bypass: STE.Config');
    expect(all).toContain('aborted: STE.Config');
    expect(all).toContain('stalled (F_TRANSLATION, tag 5): x');
  });
});

describe('JSON lines', () => {
  it('gives addresses as strings and counts hops', () => {
    const lines: string[] = [];
    const trace = new JsonLinesTrace((part) => lines.push(part), { now: () => 17 });
    for (const hop of [raise, faulted, lost]) trace.hop(hop);
    expect(lines.every((line) => line.endsWith('\n') && line.indexOf('\n') === line.length - 1)).toBe(true);
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      {
        n: 1,
        time: 17,
        at: 'device',
        requester: '0000:01:00.0',
        how: 'msix',
        vector: 3,
        address: '0x8090040',
        data: '0x3',
        state: 'sent',
      },
      {
        n: 2,
        time: 17,
        at: 'iommu',
        name: 'smmu',
        requester: '0000:01:00.0',
        iova: '0x8090040',
        outcome: {
          kind: 'fault',
          iova: '0x8090040',
          record: { name: 'F_TRANSLATION', id: 16, words: ['0x10', '0xffffffffffffffff'], stage: 2 },
          why: 'no valid descriptor',
          steps: [],
        },
      },
      { n: 3, time: 17, at: 'lost', where: 'smmu', loss: 'IOMMU_FAULT', why: 'F_TRANSLATION: no valid descriptor' },
    ]);
  });

  it('takes every kind of hop', () => {
    const lines: string[] = [];
    const trace = new JsonLinesTrace((part) => lines.push(part));
    for (const hop of journey) trace.hop(hop);
    expect(lines.map((line) => JSON.parse(line).at)).toEqual(journey.map(({ at }) => at));
    expect(JSON.parse(lines[1]!).outcome.steps[1]).toEqual({
      table: 'stage 2',
      level: 3,
      at: '0x40008480',
      entry: '0x400000080807ff',
    });
    expect(JSON.parse(lines[5]!)).toMatchObject({ address: '0x8090040', data: '0xffffffff', deviceId: '0x8' });
  });
});

interface ChromeEvent {
  readonly name: string;
  readonly ph: string;
  readonly tid: number;
  readonly ts: number;
  readonly dur: number;
  readonly id: number;
  readonly args: Readonly<Record<string, unknown>>;
}

function chrome(hops: readonly Hop[], now: () => number, end = true): ChromeEvent[] {
  let out = '';
  const trace = new ChromeTrace(
    (part) => {
      out += part;
    },
    { now },
  );
  for (const hop of hops) trace.hop(hop);
  if (end) trace.end();
  return JSON.parse(end ? out : `${out}]`) as ChromeEvent[];
}

describe('Chrome trace', () => {
  it('has a named thread for each kind of hop', () => {
    const threads = chrome([], () => 0).filter(({ name }) => name === 'thread_name');
    expect(threads.map(({ tid, args }) => [tid, args['name']])).toEqual([
      [1, 'device'],
      [2, 'iommu'],
      [3, 'controller'],
      [4, 'irq'],
      [5, 'eventfd'],
      [6, 'irqfd'],
      [7, 'guest-controller'],
      [8, 'guest-cpu'],
      [9, 'lost'],
    ]);
  });

  it('draws slices in microseconds, side by side where the clock stands still', () => {
    let time = 5000;
    const slices = chrome([raise, translated, lost, raise], () => {
      time += time === 5000 ? 0 : 1000;
      return time;
    }).filter(({ ph }) => ph === 'X');
    expect(slices.map(({ tid, ts, dur }) => [tid, ts, dur])).toEqual([
      [1, 5, 0.1],
      [2, 5.1, 0.1],
      [9, 5.2, 0.1],
      [1, 5.3, 0.1],
    ]);
    expect(slices[1]!.args).toMatchObject({ iova: '0x8090040', name: 'smmu' });
  });

  it('joins one interrupt by a flow, to the acknowledge', () => {
    const arrows = chrome(journey, () => 0).filter(({ name }) => name === 'interrupt');
    expect(arrows.map(({ ph, id, tid }) => `${ph}${id}@${tid}`)).toEqual([
      's1@1',
      't1@2',
      't1@3',
      't1@4',
      't1@5',
      't1@6',
      't1@7',
      'f1@8',
    ]);
  });

  it('ends a flow where the interrupt is lost, and finds a late acknowledge', () => {
    const controller = journey[6]!;
    const acknowledge = journey[7]!;
    const arrows = chrome([raise, controller, raise, faulted, lost, acknowledge, acknowledge], () => 0);
    expect(arrows.filter(({ name }) => name === 'interrupt').map(({ ph, id, tid }) => `${ph}${id}@${tid}`)).toEqual([
      's1@1',
      't1@7',
      's2@1',
      't2@2',
      'f2@9',
      'f1@8',
    ]);
  });

  it('has programs on tracks of their own, each named once', () => {
    const parts: string[] = [];
    const trace = new ChromeTrace((part) => parts.push(part), { now: () => 0 });
    const request = { process: 41, program: 'driver', thread: 42, category: 'request', start: 7000, duration: 2500 };
    trace.slice({ ...request, name: 'VFIO_DEVICE_RESET', args: { result: 0 } });
    trace.slice({ ...request, name: 'VFIO_IOMMU_MAP_DMA', start: 9500, args: { result: -22 } });
    trace.end();
    trace.slice({ ...request, name: 'late', args: {} });
    const events = (JSON.parse(parts.join('')) as (ChromeEvent & { pid: number })[]).filter(({ pid }) => pid === 41);
    expect(events).toEqual([
      { name: 'process_name', ph: 'M', pid: 41, args: { name: 'driver' } },
      { name: 'VFIO_DEVICE_RESET', cat: 'request', ph: 'X', pid: 41, tid: 42, ts: 7, dur: 2.5, args: { result: 0 } },
      {
        name: 'VFIO_IOMMU_MAP_DMA',
        cat: 'request',
        ph: 'X',
        pid: 41,
        tid: 42,
        ts: 9.5,
        dur: 2.5,
        args: { result: -22 },
      },
    ]);
  });

  it('is readable without its end, and takes nothing after it', () => {
    expect(chrome([raise], () => 0, false).length).toBeGreaterThan(18);
    const parts: string[] = [];
    const trace = new ChromeTrace((part) => parts.push(part), { now: () => 0 });
    trace.end();
    trace.end();
    trace.hop(raise);
    expect(parts.filter((part) => part.includes(']')).length).toBe(1);
    expect(parts.at(-1)).toBe('\n]\n');
  });

  it('keeps nothing of what it wrote', () => {
    // 4,096 interrupts may wait for their acknowledge; the first of 4,097 has lost its arrow, the second has not.
    const hops = Array.from({ length: 4097 }, (_, i): Hop[] => [
      raise,
      { at: 'guest-controller', name: 'vits', intid: 8192 + i, cpu: 0, state: 'pending' },
    ]).flat();
    const acknowledge = (intid: number): Hop => ({ at: 'guest-cpu', intid, cpu: 0, action: 'acknowledge' });
    const events = chrome([...hops, acknowledge(8192), acknowledge(8193)], () => 0);
    expect(events.filter(({ ph }) => ph === 'f').map(({ id }) => id)).toEqual([2]);
  });
});

describe('tee', () => {
  it('gives every hop to all, in order', () => {
    const seen: string[] = [];
    const sink = (name: string) => ({ hop: (hop: Hop) => void seen.push(`${name}:${hop.at}`) });
    teeObservers(sink('a'), sink('b'))?.hop(lost);
    expect(seen).toEqual(['a:lost', 'b:lost']);
    const only = sink('c');
    expect(teeObservers(only)).toBe(only);
    expect(teeObservers()).toBeNull();
  });
});
