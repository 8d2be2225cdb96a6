import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { findProgram } from './find-program.ts';

const root = mkdtempSync(join(tmpdir(), 'find-test-'));
const [first, second, third] = ['first', 'second', 'third'].map((name) => join(root, name)) as [string, string, string];
for (const directory of [first, second, third]) mkdirSync(directory);
mkdirSync(join(first, 'tool'));
writeFileSync(join(second, 'tool'), '');
chmodSync(join(second, 'tool'), 0o644);
writeFileSync(join(third, 'tool'), '#!/bin/sh\n');
chmodSync(join(third, 'tool'), 0o755);
writeFileSync(join(second, 'plain'), '');
afterAll(() => rmSync(root, { recursive: true }));

describe('findProgram', () => {
  it.each([
    [
      'passes by directories and files that nobody may execute',
      'tool',
      `${first}:${second}:${third}`,
      join(third, 'tool'),
    ],
    [
      'takes the first file that is there where none can be executed',
      'plain',
      `${first}:${second}`,
      join(second, 'plain'),
    ],
    ['names a missing file where none is there', 'nothing', `${first}:${second}`, join(first, 'nothing')],
    ['does not search for a path', './tool', third, './tool'],
    ['an empty entry is the working directory', 'tool-of-nobody', `:${first}`, 'tool-of-nobody'],
    ['an empty name stays one', '', third, ''],
    ['without PATH it looks where the C library does', 'sh', undefined, '/bin/sh'],
  ])('%s', (_what, name, path, found) => expect(findProgram(name, path)).toBe(found));
});
