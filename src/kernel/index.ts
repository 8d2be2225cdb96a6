/** A simulated Linux. */
export { SimKernelClient } from './client.ts';
export * from './context.ts';
export { EventFdFile, eventfdCtxFdget, SimEventFd } from './eventfd.ts';
export * from './files.ts';
export { type LocalProcess, SimKernel } from './kernel.ts';
export { type OwnedMemory, type Process, type ProcessOptions, ROOT_CAPABILITIES, SimProcess } from './process.ts';
export { RefusalLog } from './refusal.ts';
export { type OpenMode, type Placed, Syscalls } from './syscalls.ts';
export * from './sysfs/node.ts';
export * from './user-copy.ts';
export { SimUserMemory } from './user-memory.ts';
