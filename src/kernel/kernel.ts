/** The simulated kernel: its processes, its device nodes, and the tree that user space sees. */
import type { KernelContext } from './context.ts';
import { type OwnedMemory, type ProcessOptions, SimProcess } from './process.ts';
import { Syscalls } from './syscalls.ts';
import { MountTree } from './sysfs/mount-tree.ts';
import type { DirectoryNode, TreeNode } from './sysfs/node.ts';
import { SimUserMemory } from './user-memory.ts';

/** A process whose memory lives in the machine's RAM. */
export type LocalProcess = SimProcess<SimUserMemory>;

export class SimKernel {
  readonly context: KernelContext;
  readonly syscalls: Syscalls;
  readonly processes = new Map<number, SimProcess>();
  /** The root of the tree that user space sees. */
  readonly root: DirectoryNode;
  private readonly mounts = new MountTree();
  private nextPid = 1;

  constructor(context: KernelContext) {
    this.context = context;
    this.root = this.mounts.root;
    this.syscalls = new Syscalls(context, this.root);
  }

  /** A process of the same program. */
  createProcess(options: ProcessOptions = {}): LocalProcess {
    const { memory, pageSize } = this.context;
    return this.adopt(new SimUserMemory(memory, pageSize), options);
  }

  /** A process whose memory is somebody else's (a foreign program, a vfio-user peer). */
  adopt<Memory extends OwnedMemory>(memory: Memory, options: ProcessOptions = {}): SimProcess<Memory> {
    return this.enrol((pid) => new SimProcess(pid, memory, this.context.refusals, options));
  }

  /** A process that its owner makes, with descriptors of its own kind. */
  enrol<Kind extends SimProcess>(make: (pid: number) => Kind): Kind {
    const process = make(this.nextPid);
    this.nextPid += 1;
    this.processes.set(process.pid, process);
    return process;
  }

  /** A child that shares every open file and has copies of the memory; null without memory for it. */
  fork(parent: LocalProcess): LocalProcess | null {
    const { comm, credentials, limits } = parent;
    const child = this.createProcess({ comm, euid: credentials.euid, capabilities: credentials.capabilities, limits });
    if (!parent.memory.copyTo(child.memory)) {
      this.exit(child);
      return null;
    }
    parent.shareFiles(child);
    return child;
  }

  /** The process is gone, killed or not: its memory, then its files from the lowest descriptor. */
  exit(process: SimProcess): void {
    this.context.refusals.last = null;
    process.exit();
    this.processes.delete(process.pid);
  }

  /** Shows `node` at an absolute path: a device node, or the top of a subtree. */
  mount(path: string, node: TreeNode): void {
    this.mounts.mount(path, node);
  }

  unmount(path: string): void {
    this.mounts.unmount(path);
  }
}
