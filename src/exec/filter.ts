/**
 * The seccomp filter: which system calls stop for the supervisor, and which never notice it. A filter sees numbers, not what they point to:
 * calls with a path always stop; calls on a descriptor stop when its number is one of those that simulated files get.
 */
import type { CallName, CallTable } from './numbers.ts';

/** Descriptors of simulated files are in [first, end). */
export interface FdRange {
  readonly first: number;
  readonly end: number;
}

const LOAD = 0x20;
const EQUAL = 0x15;
const AT_LEAST = 0x35;
const ANY_BIT = 0x45;
const RETURN = 0x06;
const ALLOW = 0x7fff_0000;
const NOTIFY = 0x7fc0_0000;
const AND = 0x54;

/** Offsets in struct seccomp_data. */
const NUMBER = 0;
const ARCHITECTURE = 4;
const argument = (index: number): number => 16 + 8 * index;
const argumentHigh = (index: number): number => 20 + 8 * index;

type Target = 'next' | 'allow' | 'notify' | 'other';
interface Step {
  readonly code: number;
  readonly k: number;
  readonly yes?: Target;
  readonly no?: Target;
}

const PATHS: readonly CallName[] = [
  'open',
  'stat',
  'lstat',
  'access',
  'readlink',
  'openat',
  'newfstatat',
  'readlinkat',
  'faccessat',
  'statx',
  'openat2',
  'faccessat2',
  'getxattr',
  'lgetxattr',
  'listxattr',
  'llistxattr',
];
const ON_DESCRIPTOR: readonly CallName[] = [
  'read',
  'fstat',
  'lseek',
  'readv',
  'writev',
  'dup',
  'preadv',
  'pwritev',
  'preadv2',
  'pwritev2',
];

/** F_DUPFD and F_DUPFD_CLOEXEC. */
const DUPLICATE = [0, 1030];
const MAP_FIXED = 0x10;
/** MADV_DONTNEED, MADV_FREE, MADV_REMOVE, MADV_DONTNEED_LOCKED: pages go. */
const DISCARD = [4, 8, 9, 24];
/** FALLOC_FL_PUNCH_HOLE. */
const PUNCH_HOLE = 2;
/** The type byte of VFIO's and iommufd's requests: `;`. Those stop on any descriptor. */
const VFIO_TYPE = 0x3b;

/** struct sock_filter, 8 bytes each. */
export function buildFilter({ audit, numbers }: CallTable, range: FdRange): Uint8Array {
  const rules: [CallName, Step[]][] = [
    ...ON_DESCRIPTOR.map((name): [CallName, Step[]] => [name, inRange(range, 0, 'allow')]),
    // Regions of a device lie at index << 40: such an offset is a device's whatever number its descriptor has.
    ...(['pread64', 'pwrite64'] as const).map((name): [CallName, Step[]] => [
      name,
      [
        ...inRange(range, 0, 'other'),
        { code: LOAD, k: argumentHigh(3) },
        { code: AT_LEAST, k: 0x100, yes: 'notify', no: 'allow' },
      ],
    ]),
    [
      'ioctl',
      [
        ...inRange(range, 0, 'other'),
        { code: LOAD, k: argument(1) },
        { code: AND, k: 0xff00 },
        { code: EQUAL, k: VFIO_TYPE << 8, yes: 'notify', no: 'allow' },
      ],
    ],
    // A shell's redirection puts a file at descriptor 1 by dup2, and what it writes there must have its effect.
    [
      'write',
      [{ code: LOAD, k: argument(0) }, { code: EQUAL, k: 1, yes: 'notify', no: 'next' }, ...inRange(range, 0, 'allow')],
    ],
    ['fcntl', [{ code: LOAD, k: argument(1) }, ...anyOf(DUPLICATE), ...inRange(range, 0, 'allow')]],
    [
      'mmap',
      [
        { code: LOAD, k: argument(3) },
        { code: ANY_BIT, k: MAP_FIXED, yes: 'notify', no: 'next' },
        ...inRange(range, 4, 'allow'),
      ],
    ],
    // What a descriptor stands for is remembered until one of these.
    ['close', inRange(range, 0, 'allow')],
    ['dup2', [...inRange(range, 0, 'other'), ...inRange(range, 1, 'allow')]],
    ['dup3', [...inRange(range, 0, 'other'), ...inRange(range, 1, 'allow')]],
    ['close_range', []],
    ['execve', []],
    ['execveat', []],
    ['munmap', []],
    ['mremap', []],
    ['madvise', [{ code: LOAD, k: argument(2) }, ...anyOf(DISCARD)]],
    // A file that is cut short loses pages that a device may have pinned.
    ['ftruncate', []],
    [
      'fallocate',
      [
        { code: LOAD, k: argument(1) },
        { code: ANY_BIT, k: PUNCH_HOLE, yes: 'notify', no: 'allow' },
      ],
    ],
    ...PATHS.map((name): [CallName, Step[]] => [name, []]),
  ];
  const program: number[][] = [
    [LOAD, 0, 0, ARCHITECTURE],
    [EQUAL, 1, 0, audit],
    [RETURN, 0, 0, ALLOW],
    [LOAD, 0, 0, NUMBER],
  ];
  for (const [name, steps] of rules) {
    const number = numbers[name];
    if (number === undefined) continue;
    const body = assemble(steps);
    program.push([EQUAL, 0, body.length, number], ...body);
  }
  program.push([RETURN, 0, 0, ALLOW]);
  return encode(program);
}

/** Continues (`no`) below the range and beyond it. */
function inRange({ first, end }: FdRange, index: number, no: 'allow' | 'other'): Step[] {
  return [
    { code: LOAD, k: argument(index) },
    { code: AT_LEAST, k: first, yes: 'next', no },
    { code: AT_LEAST, k: end, yes: no, no: 'notify' },
  ];
}

/** Goes on with the next group when the loaded word is one of these, else the call is allowed. */
const anyOf = (values: readonly number[]): Step[] =>
  values.map((k, i) => ({ code: EQUAL, k, yes: 'other', no: i === values.length - 1 ? 'allow' : 'next' }));

/** `other` is the next load after the step; `allow` and `notify` stand at the end, and falling through is a notification. */
function assemble(steps: readonly Step[]): number[][] {
  const notify = steps.length;
  const resolve = (target: Target | undefined, at: number): number => {
    if (target === undefined || target === 'next') return 0;
    if (target === 'notify') return notify - at - 1;
    if (target === 'allow') return notify + 1 - at - 1;
    const next = steps.findIndex((step, i) => i > at && step.code === LOAD);
    return (next < 0 ? notify : next) - at - 1;
  };
  const body = steps.map(({ code, k, yes, no }, at) => [code, resolve(yes, at), resolve(no, at), k]);
  return [...body, [RETURN, 0, 0, NOTIFY], [RETURN, 0, 0, ALLOW]];
}

function encode(program: readonly (readonly number[])[]): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(Math.max(128, program.length * 8)), 0, program.length * 8);
  const view = new DataView(bytes.buffer);
  program.forEach(([code, yes, no, k], i) => {
    view.setUint16(8 * i, code!, true);
    bytes[8 * i + 2] = yes!;
    bytes[8 * i + 3] = no!;
    view.setUint32(8 * i + 4, k!, true);
  });
  return bytes;
}
