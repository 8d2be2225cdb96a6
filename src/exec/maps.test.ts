import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readMaps } from './maps.ts';

describe('readMaps', () => {
  it('reads what is mapped here, line by line as the kernel says it', () => {
    const areas = readMaps(process.pid) ?? [];
    const own = areas.filter(({ path }) => path === process.execPath);
    expect(own.some(({ readable, writable, shared }) => readable && !writable && !shared)).toBe(true);
    expect(own[0]?.offset).toBe(0);
    // Some areas may come and go between two looks; those of the program itself do not.
    const lines = readFileSync('/proc/self/maps', 'latin1').split('\n');
    const expected = lines.filter((line) => line.endsWith(process.execPath)).map((line) => line.split(/[- ]/, 2));
    expect(own.map(({ start, end }) => [start.toString(16), end.toString(16)])).toEqual(
      expected.map((pair) => pair.map((text) => text.replace(/^0+/, ''))),
    );
  });

  it('has all areas below where it was told to stop', () => {
    const areas = readMaps(process.pid) ?? [];
    const program = areas.filter(({ path }) => path === process.execPath);
    const until = program.at(-1)!.end;
    const some = readMaps(process.pid, until) ?? [];
    expect(some.filter(({ path }) => path === process.execPath)).toEqual(program);
    expect(readMaps(process.pid, 1)?.length).toBeLessThan(areas.length);
  });

  it('null: a process that is not there', () => expect(readMaps(2 ** 22 + 1)).toBeNull());
});
