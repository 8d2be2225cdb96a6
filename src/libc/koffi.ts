/** The FFI package: found when it is first needed, checked, and described here by the few functions that are used. */

/** A function of a C library, as koffi makes it. Pointers are numbers, bigints, or typed arrays for `void *`. */
export type Native = (...args: readonly (number | bigint | string | Uint8Array)[]) => number | bigint;

export interface PollHandle {
  close(): void;
}

/** Its own types say less than it does: the callback of `poll` is given a status first. */
export interface Koffi {
  load(library: string | null): { func(prototype: string): Native };
  /** Reads the calling thread's errno; right after a call that is that call's. */
  errno(): number;
  view(address: number | bigint, length: number): ArrayBuffer;
  readonly node: {
    poll(fd: number, callback: (status: number, events: { readonly readable: boolean }) => void): PollHandle;
  };
}

/** Why libc cannot be called here, and what helps. */
export class LibcUnavailable extends Error {
  readonly missing: 'platform' | 'ffi';
  readonly hint: string;

  constructor(missing: 'platform' | 'ffi', why: string, hint: string) {
    super(`${why}; ${hint}`);
    this.name = 'LibcUnavailable';
    this.missing = missing;
    this.hint = hint;
  }
}

/** A name that is not a literal: the compiler must not need an optional package to be there. */
const PACKAGE: string = 'koffi';

/** @throws LibcUnavailable */
export async function loadKoffi(platform: string = process.platform, name: string = PACKAGE): Promise<Koffi> {
  if (platform !== 'linux') {
    throw new LibcUnavailable(
      'platform',
      `real VFIO is a part of Linux, and this is ${platform}`,
      'use the simulated kernel',
    );
  }
  let loaded: unknown;
  try {
    loaded = await import(name);
  } catch (error) {
    const first = (error as Error).message.split('\n')[0];
    throw new LibcUnavailable('ffi', `the package ${name} does not load (${first})`, `install it: npm install ${name}`);
  }
  const koffi = (loaded as { default?: unknown }).default ?? loaded;
  if (isKoffi(koffi)) return koffi;
  throw new LibcUnavailable('ffi', `the package ${name} lacks load, errno, view or node.poll`, 'install version 3.3.4');
}

function isKoffi(value: unknown): value is Koffi {
  const { load, errno, view, node } = (value ?? {}) as Partial<Record<keyof Koffi, unknown>>;
  const poll = (node as { poll?: unknown } | undefined)?.poll;
  return [load, errno, view, poll].every((member) => typeof member === 'function');
}
