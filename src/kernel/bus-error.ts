/** What SIGBUS is to a C program: the access did not happen. */
export class BusError extends Error {
  override readonly name = 'BusError';
}
