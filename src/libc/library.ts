/** The C library that the bindings of this room are taken from. */
import type { Koffi } from './koffi.ts';

/** glibc by its name; else (musl) what Node itself is linked with. */
export function cLibrary(koffi: Koffi): ReturnType<Koffi['load']> {
  try {
    return koffi.load('libc.so.6');
  } catch {
    return koffi.load(null);
  }
}
