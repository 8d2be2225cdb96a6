/**
 * The arrows between rooms: doors open downwards only, and rooms of one floor do not import each other (docs/design.md).
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const source = join(dirname(fileURLToPath(import.meta.url)), '..', 'src');

/** Room to floor. A room that is not here fails the test: a new room needs a floor first. */
const FLOORS: Readonly<Record<string, number>> = {
  uapi: 0,
  arch: 0,
  ports: 0,
  machine: 1,
  devices: 1,
  libc: 1,
  trace: 1,
  kernel: 2,
  linux: 2,
  vfio: 3,
  exec: 4,
  'vfio-user': 4,
  vmm: 4,
  host: 4,
  cli: 5,
  web: 5,
};

/** Packages that a room may import besides Node's own modules. Everything else is a surprise for whoever installs us. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  machine: ['zod'],
  vmm: ['zod'],
  devices: ['zod'],
  host: ['zod'],
  cli: ['zod'],
};

/** Floor 0 knows nothing of the platform that it runs on, and nor does what a browser must be able to load. */
const WITHOUT_NODE = new Set(['uapi', 'arch', 'ports', 'machine', 'devices', 'trace', 'kernel', 'vfio', 'vmm']);

interface Import {
  readonly file: string;
  readonly room: string;
  readonly target: string;
}

function filesBelow(directory: string): string[] {
  return readdirSync(directory).flatMap((name) => {
    const path = join(directory, name);
    if (statSync(path).isDirectory()) return filesBelow(path);
    return path.endsWith('.ts') ? [path] : [];
  });
}

function importsOf(path: string): string[] {
  const text = readFileSync(path, 'utf8');
  const found = [...text.matchAll(/(?:^|\n)\s*(?:import|export)\s[^'"`;]*?from\s+['"]([^'"]+)['"]/g)];
  const bare = [...text.matchAll(/(?:^|\n)\s*import\s+['"]([^'"]+)['"]/g)];
  const lazy = [...text.matchAll(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g)];
  return [...found, ...bare, ...lazy].map((match) => match[1] as string);
}

const imports: Import[] = filesBelow(source).flatMap((path) => {
  const file = relative(source, path).split(sep).join('/');
  const room = file.split('/')[0] as string;
  return importsOf(path).map((target) => ({ file, room, target }));
});

const isTest = (file: string): boolean => file.endsWith('.test.ts') || file.includes('/testing/');
const roomOf = (entry: Import): string =>
  relative(source, join(source, dirname(entry.file), entry.target)).split(sep)[0] as string;
const inside = imports.filter((entry) => entry.target.startsWith('.'));
const outside = imports.filter((entry) => !entry.target.startsWith('.'));

describe('the arrows', () => {
  it('sees the imports that it judges', () => {
    expect(inside.length).toBeGreaterThan(50);
  });

  it('every room has a floor', () => {
    const rooms = [...new Set(inside.flatMap((entry) => [entry.room, roomOf(entry)]))];
    expect(rooms.filter((room) => FLOORS[room] === undefined)).toEqual([]);
  });

  it('doors open downwards only, and not on one floor', () => {
    const wrong = inside
      .filter((entry) => roomOf(entry) !== entry.room)
      .filter((entry) => (FLOORS[roomOf(entry)] as number) >= (FLOORS[entry.room] as number))
      .map((entry) => `${entry.file} -> ${entry.target}`);
    expect(wrong).toEqual([]);
  });

  it('uapi and arch import nothing but themselves, ports nothing but itself', () => {
    const wrong = imports.filter(
      (entry) =>
        FLOORS[entry.room] === 0 &&
        !isTest(entry.file) &&
        (!entry.target.startsWith('.') || roomOf(entry) !== entry.room),
    );
    expect(wrong.map((entry) => `${entry.file} -> ${entry.target}`)).toEqual([]);
  });

  it('packages come in where they are allowed', () => {
    const wrong = outside
      .filter((entry) => !isTest(entry.file) && !entry.target.startsWith('node:'))
      .filter((entry) => !(PACKAGES[entry.room] ?? []).includes(entry.target));
    expect(wrong.map((entry) => `${entry.file} -> ${entry.target}`)).toEqual([]);
  });

  it('the simulator runs anywhere: its rooms import nothing of Node', () => {
    const wrong = outside.filter(
      (entry) => WITHOUT_NODE.has(entry.room) && !isTest(entry.file) && entry.target.startsWith('node:'),
    );
    expect(wrong.map((entry) => `${entry.file} -> ${entry.target}`)).toEqual([]);
  });
});
