import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CaptureError } from './capture-error.ts';
import { loadDevice, openCapture } from './capture-files.ts';
import { parseLspci, parseSysfs } from './capture-text.ts';
import { capturedFunction } from './captured.ts';

const file = (name: string): string => readFileSync(new URL(`../../captures/${name}`, import.meta.url), 'utf8');
const texts = { nvme: file('nvme.txt'), igb: file('igb.txt'), edu: file('edu.txt') };
const M = 2 ** 20;

describe('the shipped captures', () => {
  it('are what the guest showed', () => {
    const [nvme] = parseLspci(texts.nvme);
    expect(nvme.config).toHaveLength(4096);
    expect(nvme.bars).toEqual([{ type: 'memory64', prefetchable: false, size: 0x4000 }, null, null, null, null, null]);
    expect(capturedFunction(nvme).spec).toMatchObject({
      vendorId: 0x1b36,
      deviceId: 0x0010,
      classCode: 0x010802,
      msix: { vectors: 65, table: { bar: 0, offset: 0x2000 }, pba: { bar: 0, offset: 0x3000 } },
      interruptPin: 1,
      express: { type: 'endpoint' },
    });
    const [igb] = parseLspci(texts.igb);
    expect(igb.bars.map((bar) => bar && [bar.type, bar.size])).toEqual([
      ['memory32', 0x2_0000],
      ['memory32', 0x2_0000],
      ['io', 32],
      ['memory64', 0x4000],
      null,
      null,
    ]);
    expect(capturedFunction(igb).spec).toMatchObject({
      vendorId: 0x8086,
      deviceId: 0x10c9,
      msi: { vectors: 1, address64: true, perVectorMask: true },
      msix: { vectors: 10, table: { bar: 3, offset: 0 }, pba: { bar: 3, offset: 0x2000 } },
    });
    const [edu] = parseLspci(texts.edu);
    expect(edu.config).toHaveLength(256);
    expect(edu.bars[0]).toEqual({ type: 'memory32', prefetchable: false, size: M });
    expect(capturedFunction(edu).spec).toMatchObject({
      vendorId: 0x1234,
      deviceId: 0x11e8,
      msi: { vectors: 1, address64: true, perVectorMask: false },
    });
    expect([nvme, igb, edu].flatMap(({ notes }) => notes)).toEqual([]);
  });

  it('agree with sysfs: raw bytes and resource', () => {
    for (const name of ['nvme', 'igb', 'edu'] as const) {
      const [text] = parseLspci(texts[name]);
      const raw = parseSysfs(text.config, file(`${name}.resource`));
      expect(raw.bars).toEqual(text.bars);
      expect(raw.notes).toEqual([]);
    }
  });

  it('open by name, and by path', () => {
    const { config } = parseLspci(texts.edu)[0];
    const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
    const own: Record<string, Uint8Array> = {
      'my/card.txt': encode(texts.igb + texts.edu),
      'my/config': config,
      'my/resource': encode(file('edu.resource')),
      config,
    };
    const files = { shipped: (name: string) => encode(file(name)), read: (path: string) => own[path] ?? null };
    expect(loadDevice('nvme', {}, files).spec.deviceId).toBe(0x10);
    expect(loadDevice('edu-capture', {}, files).spec.captured).toHaveLength(256);
    expect(loadDevice('edu', {}, files).spec.captured).toBeUndefined();
    expect(loadDevice('my/card.txt', { device: 1 }, files).spec.deviceId).toBe(0x11e8);
    expect(openCapture('my/config', files)[0].bars[0]?.size).toBe(M);
    expect(openCapture('config', files)[0].bars[0]?.size).toBe(4096);
    const refused =
      (name: string, options = {}) =>
      () =>
        loadDevice(name, options, files);
    expect(refused('nvmee')).toThrow(
      /"nvmee" is neither a model nor a capture \(bell, edu, ioat, nvme-drive, pci-endpoint-test, nvme, igb, edu-capture\)/,
    );
    expect(refused('nvme', { device: 1 })).toThrow(/device: expected an integer from 0 to 0/);
    expect(refused('nvme', { msix: 1 })).toThrow(/msix: no such option/);
  });
});

describe('raw bytes without sizes', () => {
  it('take the least that MSI-X needs, and say so', () => {
    const { bars, notes } = parseSysfs(parseLspci(texts.nvme)[0].config);
    expect(bars[0]).toEqual({ type: 'memory64', prefetchable: false, size: 0x4000 });
    expect(notes).toEqual([
      'BAR 0: its size is not in the configuration space; 16384 bytes are what the MSI-X table and pending bits in it need',
    ]);
    expect(parseSysfs(parseLspci(texts.edu)[0].config).notes).toEqual([
      'BAR 0: its size is not in the configuration space; 4096 bytes are assumed',
    ]);
  });
});

describe('what lspci writes on other machines', () => {
  it('domains, disabled and virtual regions, ROMs, groups, text before nothing', () => {
    const text = texts.edu
      .replace('00:05.0 Unclassified', '0001:00:05.0 Unclassified')
      .replace('\tRegion 0:', '\tNUMA node: 0\n\tIOMMU group: 12\n\tRegion 0:')
      .replace('[size=1M]', '[disabled] [size=1M]\n\tExpansion ROM at fe000000 [virtual] [disabled] [size=64K]');
    const [capture] = parseLspci(`\n${text}\n\n`);
    expect([capture.slot, capture.romSize, capture.bars[0]?.size]).toEqual(['0001:00:05.0', 0x1_0000, M]);
    expect(capturedFunction(capture).spec.rom?.size).toBe(0x1_0000);
    const [unassigned] = parseLspci(texts.edu.replace('Memory at fe600000', '[virtual] Memory at <unassigned>'));
    expect(unassigned.bars[0]?.size).toBe(M);
    const silent = texts.edu.replace(/^([0-9a-f]0): .*$/gm, `$1:${' ff'.repeat(16)}`);
    expect(() => parseLspci(silent)).toThrow(/vendor id: all ones: no device answered/);
  });
});

describe('several devices in one text', () => {
  it('come in order', () => {
    expect(parseLspci(`${texts.igb}\n${texts.edu}\r\n${texts.nvme}`).map(({ slot }) => slot)).toEqual([
      '02:00.0',
      '00:05.0',
      '01:00.0',
    ]);
  });
});

/** The capture with one edit, and the error that it must give. */
const broken: readonly [string, string, RegExp][] = [
  ['no text', '', /^line 1: device: the text has none/],
  ['something else', 'hello\n', /^line 1: device: expected a line such as/],
  [
    'no hex dump',
    texts.edu.replace(/^[0-9a-f]{2}: .*\n/gm, ''),
    /^line 6: config: 00:05\.0 has no hex dump; run lspci with -xxxx, as root/,
  ],
  ['64 bytes', texts.edu.replace(/^[4-9a-f]0: .*\n/gm, ''), /config: expected 256 or 4096 bytes, got 64; without root/],
  ['a missing row', texts.edu.replace(/^20: .*\n/m, ''), /^line 16: config: expected the bytes at 20, got those at 30/],
  ['a short row', texts.edu.replace('20: 00', '20:'), /config: expected 16 bytes, got 15/],
  ['a virtual function', texts.edu.replace('34 12 e8 11', 'ff ff ff ff'), /vendor id: all ones: a virtual function/],
  ['a bridge', texts.edu.replace('10 00 ff 00 00 00 00 00', '10 00 ff 00 00 00 01 00'), /header type: 1 is a bridge's/],
  [
    'an odd size',
    texts.edu.replace('[size=1M]', '[size=3M]'),
    /^line 11: Region 0 size: expected a power of two .* got 3145728/,
  ],
  ['no size at all', texts.edu.replace('[size=1M]', '[size=lots]'), /Region 0 size: cannot be read/],
  [
    'another type',
    texts.edu.replace('(32-bit, non-prefetchable)', '(64-bit, non-prefetchable)'),
    /Region 0: the text says memory64, the register memory32/,
  ],
  ['region 7', texts.edu.replace('Region 0', 'Region 7'), /Region 7: a function has regions 0 to 5/],
  ['region twice', texts.igb.replace('Region 1', 'Region 0'), /Region 0: is there twice/],
  [
    'another count',
    texts.nvme.replace('Count=65', 'Count=64'),
    /^line \d+: MSI-X Count: the text says 64, the hex dump 65/,
  ],
  [
    'another table',
    texts.nvme.replace('offset=00002000', 'offset=00001000'),
    /MSI-X table: the text says BAR=0 offset=1000, the hex dump BAR=0 offset=2000/,
  ],
  [
    'a table beyond its BAR',
    texts.nvme.replace('[size=16K]', '[size=8K]'),
    /MSI-X table: ends at 9232, beyond the 8192 bytes of BAR 0/,
  ],
  [
    'MSI-X that is not there',
    texts.edu.replace('[40] MSI: Enable-', '[40] MSI-X: Enable-'),
    /MSI-X: the text has it, the hex dump does not/,
  ],
];

describe('a capture that cannot be is refused with its line and field', () => {
  for (const [what, text, message] of broken) {
    it(what, () => {
      expect(() => parseLspci(text)).toThrow(CaptureError);
      expect(() => parseLspci(text)).toThrow(message);
    });
  }

  it('resource text too', () => {
    const { config } = parseLspci(texts.edu)[0];
    expect(() => parseSysfs(config, 'nonsense')).toThrow(/^line 1: resource: expected start, end and flags/);
    expect(() => parseSysfs(config, '0x2000 0x1fff 0x200')).not.toThrow(TypeError);
    expect(() => parseSysfs(config, '0x2000 0x0fff 0x200')).toThrow(
      /^line 1: resource: ends at 0x0fff, but starts at 0x2000/,
    );
    expect(() => parseSysfs(new Uint8Array(64))).toThrow(/^config: expected 256 or 4096 bytes, got 64/);
  });
});

/** Reads, and builds a device when that went well: anything but a CaptureError is a fault of ours. */
function survives(read: () => ReturnType<typeof parseLspci>): void {
  let captures: ReturnType<typeof parseLspci>;
  try {
    captures = read();
  } catch (error) {
    if (error instanceof CaptureError) return;
    throw error;
  }
  for (const capture of captures) expect([256, 4096]).toContain(capturedFunction(capture).spec.captured!.length);
}

describe('no input breaks it', () => {
  it('random edits of real captures', () => {
    const edit = fc.record({
      at: fc.double({ min: 0, max: 1, noNaN: true }),
      cut: fc.integer({ min: 0, max: 40 }),
      put: fc.oneof(
        fc.string({ maxLength: 12 }),
        fc.constantFrom('ff', '[size=', 'Region 3: ', '\n', '\t', 'Count=9999', '00:00.0 x\n'),
      ),
    });
    fc.assert(
      fc.property(
        fc.constantFrom(texts.edu, texts.nvme.slice(0, 6000), texts.igb),
        fc.array(edit, { minLength: 1, maxLength: 4 }),
        (start, edits) => {
          let text = start;
          for (const { at, cut, put } of edits) {
            const index = Math.floor(at * text.length);
            text = text.slice(0, index) + put + text.slice(index + cut);
          }
          survives(() => parseLspci(text));
        },
      ),
      { numRuns: 1500 },
    );
  });

  it('random bytes, with and without random resources', () => {
    const bytes = fc.oneof(
      fc.uint8Array({ minLength: 256, maxLength: 256 }),
      fc.uint8Array({ minLength: 0, maxLength: 300 }),
    );
    fc.assert(
      fc.property(bytes, fc.option(fc.string(), { nil: undefined }), fc.boolean(), (config, resource, tame) => {
        // Half of them with a plausible header, so that more than the first check is reached.
        if (tame && config.length === 256) {
          config[0x0e] &= 0x80;
          config[0x3d] &= 3;
          config[6] |= 0x10;
          config[0x34] = 0x40;
          config[0x40] = 0x11;
          config[0x41] = 0x50;
          config[0x50] = 0x05;
        }
        survives(() => [parseSysfs(config, resource)]);
      }),
      { numRuns: 2000 },
    );
  });
});
