/** Real Linux behind the Kernel port. */
export { LinuxEventFd } from './eventfd.ts';
export { explainOpen, type Look } from './explain-open.ts';
export { LinuxKernel, LinuxUnavailable } from './linux-kernel.ts';
