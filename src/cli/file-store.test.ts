import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadDevice } from '../devices/index.ts';
import { captureFiles } from './capture-files.ts';
import { openFileStore } from './file-store.ts';

describe('a file as a disk', () => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'belfry-disk-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const disk = (bytes: number): string => {
    const path = join(folder, `${bytes}.img`);
    writeFileSync(path, Buffer.alloc(bytes, 1));
    return path;
  };

  it('reads, writes and zeroes its bytes', () => {
    const path = disk(3 * 2 ** 20);
    const store = openFileStore(path, false);
    expect(store.size).toBe(3 * 2 ** 20);
    expect([store.write(5, Uint8Array.of(9, 8)), store.zero(100, 2 ** 20 + 7), store.flush()]).toEqual([
      true,
      true,
      true,
    ]);
    const bytes = readFileSync(path);
    expect([...bytes.subarray(4, 8)]).toEqual([1, 9, 8, 1]);
    expect([bytes[99], bytes[100], bytes[99 + 2 ** 20 + 7], bytes[100 + 2 ** 20 + 7]]).toEqual([1, 0, 0, 1]);
    const into = new Uint8Array(3);
    expect([store.read(4, into), ...into]).toEqual([true, 1, 9, 8]);
  });

  it('fails as a medium does: cut short behind its back, or not to be written', () => {
    const path = disk(4096);
    const store = openFileStore(path, true);
    expect(store.write(0, Uint8Array.of(1))).toBe(false);
    truncateSync(path, 10);
    expect(store.read(8, new Uint8Array(4))).toBe(false);
  });

  it('is what nvme-drive takes as an option, and says what is wrong with it', () => {
    const drive = loadDevice('nvme-drive', { file: disk(2 ** 20) }, captureFiles);
    expect(drive.spec.name).toBe('nvme-drive');
    const refused = (file: string) => () => loadDevice('nvme-drive', { file }, captureFiles);
    expect(refused(join(folder, 'none'))).toThrow(/none" cannot be opened: ENOENT/);
    expect(refused(folder)).toThrow(RangeError);
    expect(refused('/dev/null')).toThrow('file: "/dev/null" is no regular file');
  });
});
