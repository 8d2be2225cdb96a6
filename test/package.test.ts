/** The package as others install it: every subpath loads, and what tests need is not in it. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  exports: Record<string, string>;
  dependencies: Record<string, string>;
  bin: Record<string, string>;
};

describe('the package', () => {
  it.each(Object.entries(manifest.exports).filter(([, target]) => target.endsWith('.js')))(
    '%s loads and exports something',
    async (_, target) => {
      const module = (await import(pathToFileURL(join(root, target)).href)) as object;
      expect(Object.keys(module).length).toBeGreaterThan(0);
      expect(existsSync(join(root, target.replace(/\.js$/, '.d.ts')))).toBe(true);
    },
  );

  it('is built without tests and their helpers', () => {
    const files = readdirSync(join(root, 'dist'), { recursive: true }) as string[];
    const built = files.filter(
      (name) =>
        !name.startsWith('examples-') &&
        statSync(join(root, 'dist', name), { throwIfNoEntry: false })?.isFile() === true,
    );
    expect(built.length).toBeGreaterThan(200);
    expect(
      built.filter((name) => /\.test\.|[\\/]testing[\\/]|[\\/]test-(?:context|host|requests|vm)\.js$/.test(name)),
    ).toEqual([]);
  });

  it('pins what it depends on', () => {
    for (const version of Object.values(manifest.dependencies)) expect(version).toMatch(/^\d+\.\d+\.\d+$/);
    expect(readFileSync(join(root, 'package-lock.json'), 'utf8')).not.toMatch(/"resolved"/);
  });

  it('has a command that starts with a shebang', () => {
    expect(readFileSync(join(root, manifest.bin['belfry'] as string), 'utf8')).toMatch(/^#!\/usr\/bin\/env node\n/);
  });
});
