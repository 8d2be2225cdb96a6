/** The same small VFIO program in three languages, on the edu device of both hosts: a factorial, an MSI, DMA there and back. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDirectory } from '../../lab/cache.mjs';
import { run, which } from '../../lab/command.mjs';
import { Skip } from '../../lab/skip.mjs';
import { root, runOnHost } from './belfry.mjs';
import { check } from './checks.mjs';
import { debianTree } from './debian-program.mjs';

const source = (name) => join(root, 'scripts/programs/edu', name);
const built = (name) => join(cacheDirectory('programs'), name);
const HOSTS = ['arm-its', 'x86'];
/** What the device answers by its specification: its identity, the complement of what was written, 10!. */
const EXPECTED = [
  'edu 0x10000ed, liveness 0xedcba987',
  '10! = 3628800, interrupts 1, status 0x1',
  'DMA of 4096 bytes there and back: same',
];

export const programs = [
  {
    name: 'c-static',
    title: 'A static C program',
    command: 'belfry exec --device edu -- ./edu-static 0000:01:00.0',
    about:
      '[`edu.c`](../scripts/programs/edu/edu.c): container and group, registers mapped. No library can be preloaded into it.',
    run: () => {
      const { argv, version } = compiled();
      return onBothHosts(argv, version);
    },
  },
  {
    name: 'go',
    title: 'A Go program',
    command: 'belfry exec --device edu -- ./edu-go 0000:01:00.0',
    about:
      '[`edu.go`](../scripts/programs/edu/edu.go): iommufd and the device’s node, registers mapped and reached by sync/atomic, the eventfd waited for by the runtime’s epoll. It calls the kernel without a C library.',
    run: async () => {
      const { argv, version } = await go();
      return onBothHosts(argv, version);
    },
  },
  {
    name: 'python',
    title: 'A Python script',
    command: 'belfry exec --device edu -- python3 edu.py 0000:01:00.0',
    about: '[`edu.py`](../scripts/programs/edu/edu.py): container and group by fcntl, registers by pread and pwrite.',
    run: () => {
      const python = needed('python3');
      return onBothHosts([python, source('edu.py')], run(python, ['--version']).trim());
    },
  },
];

async function onBothHosts(argv, version) {
  const checks = [];
  const evidence = [];
  for (const host of HOSTS) {
    const ran = await runOnHost({ host, devices: ['edu'], argv: [...argv, '0000:01:00.0'], input: '', timeout: 60 });
    for (const line of EXPECTED) checks.push(check(`${host}: ${line}`, ran.lines.includes(line)));
    checks.push(check(`${host}: three interrupts, each delivered`, ran.sent === 3 && ran.delivered === 3));
    evidence.push([...ran.lines, ...ran.errors, ...ran.refused, ran.end]);
  }
  return { version, checks, evidence };
}

function compiled() {
  const gcc = needed('gcc');
  const program = built('edu-static');
  run(gcc, ['-static', '-O2', '-Wall', '-o', program, source('edu.c')]);
  return { argv: [program], version: run(gcc, ['--version']).split('\n')[0] };
}

/** By Debian's Go. The compiler is kept, and so is what it has compiled. */
async function go() {
  const { tree } = await debianTree('go', ['golang-go']);
  const tool = join(tree, 'usr/lib', run('ls', [join(tree, 'usr/lib')]).match(/go-\S+/)[0]);
  const program = built('edu-go');
  const caches = cacheDirectory('programs', 'go-build');
  mkdirSync(caches, { recursive: true });
  const env = {
    ...process.env,
    GOROOT: tool,
    GOCACHE: caches,
    GO111MODULE: 'off',
    CGO_ENABLED: '0',
    GOTOOLCHAIN: 'local',
  };
  run(join(tool, 'bin/go'), ['build', '-o', program, source('edu.go')], { env });
  return { argv: [program], version: run(join(tool, 'bin/go'), ['version'], { env }).trim() };
}

export function needed(name) {
  const path = which(name);
  if (path === null) throw new Skip(`${name} is not in the PATH`);
  return path;
}
