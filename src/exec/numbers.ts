/** System call numbers (asm/unistd.h) of the calls that are looked at; an architecture lacks those that are absent. */
export type CallName =
  | 'read'
  | 'write'
  | 'open'
  | 'stat'
  | 'fstat'
  | 'lstat'
  | 'lseek'
  | 'mmap'
  | 'munmap'
  | 'ioctl'
  | 'pread64'
  | 'pwrite64'
  | 'readv'
  | 'writev'
  | 'access'
  | 'dup'
  | 'mremap'
  | 'madvise'
  | 'ftruncate'
  | 'fallocate'
  | 'fcntl'
  | 'readlink'
  | 'openat'
  | 'newfstatat'
  | 'readlinkat'
  | 'faccessat'
  | 'statx'
  | 'openat2'
  | 'faccessat2'
  | 'dup2'
  | 'dup3'
  | 'preadv'
  | 'pwritev'
  | 'preadv2'
  | 'pwritev2'
  | 'getxattr'
  | 'lgetxattr'
  | 'listxattr'
  | 'llistxattr'
  | 'close'
  | 'close_range'
  | 'execve'
  | 'execveat';

export type CallNumbers = Readonly<Partial<Record<CallName, number>>>;

const X64: CallNumbers = {
  close: 3,
  close_range: 436,
  execve: 59,
  execveat: 322,
  read: 0,
  write: 1,
  open: 2,
  stat: 4,
  fstat: 5,
  lstat: 6,
  lseek: 8,
  mmap: 9,
  munmap: 11,
  ioctl: 16,
  pread64: 17,
  pwrite64: 18,
  readv: 19,
  writev: 20,
  access: 21,
  mremap: 25,
  madvise: 28,
  dup: 32,
  dup2: 33,
  fcntl: 72,
  ftruncate: 77,
  readlink: 89,
  getxattr: 191,
  lgetxattr: 192,
  listxattr: 194,
  llistxattr: 195,
  openat: 257,
  fallocate: 285,
  newfstatat: 262,
  readlinkat: 267,
  faccessat: 269,
  dup3: 292,
  preadv: 295,
  pwritev: 296,
  preadv2: 327,
  pwritev2: 328,
  statx: 332,
  openat2: 437,
  faccessat2: 439,
};

const ARM64: CallNumbers = {
  close: 57,
  close_range: 436,
  execve: 221,
  execveat: 281,
  getxattr: 8,
  lgetxattr: 9,
  listxattr: 11,
  llistxattr: 12,
  dup: 23,
  dup3: 24,
  fcntl: 25,
  ioctl: 29,
  faccessat: 48,
  openat: 56,
  lseek: 62,
  read: 63,
  write: 64,
  ftruncate: 46,
  fallocate: 47,
  readv: 65,
  writev: 66,
  pread64: 67,
  pwrite64: 68,
  preadv: 69,
  pwritev: 70,
  preadv2: 286,
  pwritev2: 287,
  readlinkat: 78,
  newfstatat: 79,
  fstat: 80,
  munmap: 215,
  mremap: 216,
  mmap: 222,
  madvise: 233,
  statx: 291,
  openat2: 437,
  faccessat2: 439,
};

export interface CallTable {
  /** AUDIT_ARCH_… of linux/audit.h. */
  readonly audit: number;
  readonly numbers: CallNumbers;
}

/** null: programs of this architecture cannot be run. */
export function callTable(architecture: string): CallTable | null {
  if (architecture === 'x64') return { audit: 0xc000_003e, numbers: X64 };
  return architecture === 'arm64' ? { audit: 0xc000_00b7, numbers: ARM64 } : null;
}
