/** May this program map registers, and what it takes. */
import { readdirSync } from 'node:fs';
import type { ForeignProcess } from './foreign-process.ts';
import type { OpenFile } from './open-files.ts';
import { RegisterAccess } from './register-access.ts';
import type { Session } from './session.ts';
import { tracerOf } from './tracer.ts';

/** Does VFIO_REGION_INFO_FLAG_MMAP stay set in what the program is told? */
export function mappable(session: Session, process: ForeignProcess, open: OpenFile, index: number): boolean {
  return session.bars.isMemory(open, index) || obstacle(session, process) === null;
}

/** Makes the accesses of a program that maps registers stop: 0, or -errno. */
export function traceFor(session: Session, process: ForeignProcess): number {
  const { refusals } = session.host.context;
  const why = obstacle(session, process);
  if (why !== null) return refusals.refuse('ENODEV', `registers cannot be mapped: ${why}`, 'offset');
  const result = session.registers.tracer.attach(process.tgid);
  if (result === 0) return 0;
  return refusals.refuse(
    'EPERM',
    `registers cannot be mapped: ptrace of process ${process.tgid} is not allowed here (errno ${-result})`,
    'offset',
    'in a container: --cap-add SYS_PTRACE; kernel.yama.ptrace_scope must be below 3',
  );
}

/** Why accesses of the process to mapped registers could not be followed, or null. */
function obstacle(session: Session, process: ForeignProcess): string | null {
  if (!RegisterAccess.possible) return 'instructions of this architecture are not decoded';
  const tracer = tracerOf(process.tgid);
  if (tracer !== 0 && tracer !== globalThis.process.pid) {
    return `process ${process.tgid} is traced by process ${tracer} already, and a process has one tracer`;
  }
  // A guest's access through its page tables has no instruction in the program.
  return hasGuest(session, process.tgid) ? `process ${process.tgid} has a virtual machine of KVM` : null;
}

function hasGuest(session: Session, pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some(
      (fd) => session.links.read(`/proc/${pid}/fd/${fd}`) === 'anon_inode:kvm-vm',
    );
  } catch {
    return false;
  }
}
