/** The one native module: system calls of real Linux by FFI. */
export * from './constants.ts';
export { type Koffi, LibcUnavailable, loadKoffi } from './koffi.ts';
export { Libc } from './libc.ts';
export { MappedMemory } from './mapped-memory.ts';
export { Poller } from './poller.ts';
