import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { stubImage } from './image.ts';
import { X64_CODE } from './x64-code.ts';

const disassembler = spawnSync('objdump', ['--version']).status === 0;
const CODE = 64 + 2 * 56;

/** objdump's words for `text`, and ours for objdump's. */
const plain = (text: string): string => text.replaceAll(/\s+|QWORD PTR /g, '').replace('0xfffffff8', '-8');

describe('the first instructions of a program, x86-64', () => {
  it.skipIf(!disassembler)('say what their bytes say', () => {
    const directory = mkdtempSync(join(tmpdir(), 'stub-test-'));
    const file = join(directory, 'code');
    writeFileSync(file, Buffer.from(X64_CODE.map(([bytes]) => bytes.replaceAll(' ', '')).join(''), 'hex'));
    const options = ['-D', '-b', 'binary', '-m', 'i386:x86-64', '-M', 'intel', '--insn-width=8', file];
    const { stdout } = spawnSync('objdump', options, { encoding: 'utf8' });
    rmSync(directory, { recursive: true });
    const found = [...stdout.matchAll(/^\s*([0-9a-f]+):\t([0-9a-f ]+?)\s*\t(.*)$/gm)];
    const offsets = new Map<string, string>();
    let at = 0;
    for (const [bytes, text] of X64_CODE) {
      const label = /^(\w+): /.exec(text)?.[1];
      if (label !== undefined) offsets.set(label, `0x${at.toString(16)}`);
      at += bytes.split(' ').length;
    }
    const expected = X64_CODE.map(([bytes, text]) => {
      const instruction = text
        .replace(/^\w+: /, '')
        .replace(/^(j\w+) (\w+)$/, (_, jump, label) => `${jump}${offsets.get(label)}`);
      return [bytes, plain(instruction)];
    });
    expect(found.map(([, , bytes, text]) => [bytes, plain(text ?? '')])).toEqual(expected);
  });

  it('end before their data, and name where it lies', () => {
    const filter = new Uint8Array([6, 0, 0, 0, 0, 0, 0xff, 0x7f]);
    const image = Buffer.from(stubImage('x64', filter, '/bin/true') ?? []);
    const length = X64_CODE.reduce((sum, [bytes]) => sum + bytes.split(' ').length, 0);
    expect(CODE + length).toBeLessThanOrEqual(0x200);
    expect(image.readBigUInt64LE(24)).toBe(BigInt(0x40_0000 + CODE));
    expect(image.readUInt16LE(0x200)).toBe(1);
    const at = (address: number): Buffer => image.subarray(Number(image.readBigUInt64LE(address)) - 0x40_0000);
    expect(at(0x208).subarray(0, 8)).toEqual(Buffer.from(filter));
    expect(at(0x210).toString()).toBe('/bin/true\0');
    expect(image.subarray(0x218, 0x220).toString()).toBe('/bin/sh\0');
  });

  it('exist for no other architecture', () => expect(stubImage('arm64', new Uint8Array(8), '/bin/true')).toBeNull());
});
