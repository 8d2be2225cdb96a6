/** `belfry exec` where less is allowed: what it says, and where it runs all the same. */
import { chmodSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { compiled, main, programOf, type Ran, scratch, spawned, titled } from './support/exec-run.ts';

const { program, reason } = programOf('device-program');
const forbid = reason === null && process.arch === 'x64' ? compiled('forbid') : null;
const noFilter = reason ?? (forbid === null ? 'forbid.c is for x86-64 and needs gcc' : null);
const exec = [process.execPath, main, 'exec', '--quiet', '--', program, '0000:01:00.0', 'pattern', '2'];
const WORKS = /^0000:01:00\.0: 0 wrong, \d+ sent, 0 missing\n$/;

/** System call numbers of x86-64, and errno. */
const CALL = { seccomp: 317, pidfd_open: 434, pidfd_getfd: 438, process_vm_readv: 310, inotify_init1: 294 };
const ERRNO = { EPERM: 1, EINVAL: 22, EMFILE: 24, ENOSYS: 38 };
const without = (call: keyof typeof CALL, errno: keyof typeof ERRNO): Ran =>
  spawned(forbid ?? '', [String(CALL[call]), String(ERRNO[errno]), ...exec]);

describe('where a call is refused', () => {
  it.skipIf(noFilter !== null)(titled('it says which, and what to change', noFilter), () => {
    // A kernel before 5.5 does not know the flags of seccomp(2); docker's default profile refuses pidfd_getfd without CAP_SYS_PTRACE.
    const old = without('seccomp', 'EINVAL');
    expect([old.status, old.out]).toEqual([1, '']);
    expect(old.err).toMatch(
      /^belfry: seccomp user notification is refused here \(EINVAL\): it came with Linux 5\.9, and/,
    );
    const container = without('pidfd_getfd', 'EPERM');
    expect([container.status, container.out]).toEqual([1, '']);
    expect(container.err).toMatch(
      /^belfry: pidfd_getfd is refused here \(EPERM\): in a container: docker run --cap-add SYS_PTRACE, or/,
    );
    const memory = without('process_vm_readv', 'EPERM');
    expect([memory.status, memory.out]).toEqual([1, '']);
    expect(memory.err).toMatch(/^belfry: process_vm_readv is refused here \(EPERM\): .*ptrace_scope must be 0 or 1/);
    const watches = without('inotify_init1', 'EMFILE');
    expect(watches.status).toBe(1);
    expect(watches.err).toMatch(/^belfry: inotify_init1 is refused here \(EMFILE\): .*fs\.inotify\.max_user_instances/);
  });

  it.skipIf(reason !== null)(titled('under belfry exec itself', reason), () => {
    const { err } = spawned(process.execPath, [main, 'exec', '--quiet', '--', ...exec]);
    expect(err).toMatch(/^belfry: seccomp user notification is refused here \(EBUSY\): a program under belfry exec/);
  });
});

describe('descriptors', () => {
  const limited = (limit: number): Ran => spawned('sh', ['-c', `ulimit -n ${limit}; exec "$@"`, 'sh', ...exec]);

  it.skipIf(reason !== null)(titled('256 are enough; 128 are not, and it says so', reason), () => {
    expect(limited(256)).toMatchObject({ status: 0, err: '', out: expect.stringMatching(WORKS) });
    const few = limited(128);
    expect([few.status, few.err]).toEqual([
      1,
      'belfry: RLIMIT_NOFILE is 128, and 188 descriptors are needed; raise it: ulimit -n 1024\n',
    ]);
  });
});

describe('who is not root', () => {
  const nobody = ['--reuid', '65534', '--regid', '65534', '--clear-groups'];
  if (reason === null) chmodSync(scratch, 0o755);
  const can = (command: string, ...args: string[]): boolean =>
    reason === null && spawned(command, [...args, process.execPath, main, '--version']).status === 0;
  const others = can('setpriv', ...nobody)
    ? null
    : (reason ?? 'setpriv, or the files here, do not let another user in');
  const own = can('unshare', '-Ur') ? null : (reason ?? 'user namespaces are not allowed here');

  it.skipIf(others !== null)(titled('runs programs as root does', others), () => {
    expect(spawned('setpriv', [...nobody, ...exec])).toMatchObject({
      status: 0,
      err: '',
      out: expect.stringMatching(WORKS),
    });
    const list = [process.execPath, main, 'exec', '--quiet', '--', 'sh', '-c', 'ls /dev/vfio; cat /dev/vfio/1'];
    const { out, err } = spawned('setpriv', [...nobody, 'env', 'TMPDIR=/does/not/exist', ...list]);
    // Whoever runs belfry owns the simulated host: the group opens, and a group has no read().
    expect([out, err]).toEqual(['1\ndevices\nvfio\n', 'cat: /dev/vfio/1: Invalid argument\n']);
  });

  it.skipIf(others !== null)(titled('is held to RLIMIT_MEMLOCK as on Linux', others), () => {
    // type1 counts locked pages against the limit where CAP_IPC_LOCK is missing: 16 pages need 65,536 bytes.
    const held = (bytes: number): Ran =>
      spawned('prlimit', [`--memlock=${bytes}:${bytes}`, 'setpriv', ...nobody, ...exec]);
    expect(held(65_536).out).toMatch(WORKS);
    expect(held(65_535).out).toBe('MAP_DMA: Cannot allocate memory\n');
  });

  it.skipIf(own !== null)(titled('or is root of a namespace of its own', own), () => {
    expect(spawned('unshare', ['-Ur', ...exec])).toMatchObject({
      status: 0,
      err: '',
      out: expect.stringMatching(WORKS),
    });
  });
});
