/** get_unused_fd_flags: the descriptor that a file will get, known before the file is made. */
import type { Process } from '../process.ts';

export function lowestFd(process: Process): number {
  if (process.nextDescriptor !== undefined) return process.nextDescriptor();
  let fd = 0;
  while (process.file(fd) !== null) fd += 1;
  return fd;
}
