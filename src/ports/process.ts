/**
 * A process as the simulated kernel sees it. Three kinds stand behind it: the same program, a foreign process, and a
 * vfio-user peer's memory. Pointers are `number`s: the ABI's u64 is converted once, and what does not fit is a fault.
 */
export interface Credentials {
  /** Effective user id. */
  euid: number;
  /** Effective capabilities by name: `CAP_IPC_LOCK`, `CAP_SYS_RAWIO`, … */
  readonly capabilities: Set<string>;
}

export interface ResourceLimits {
  /** RLIMIT_MEMLOCK in bytes; Infinity without a limit. */
  memlock: number;
  /** RLIMIT_NOFILE. */
  nofile: number;
}

export interface UserMemory {
  /** Copies from user space; false is EFAULT. A fault may leave `into` partly written. */
  copyIn(address: number, into: Uint8Array): boolean;
  /** Copies to user space; false is EFAULT. */
  copyOut(address: number, from: Uint8Array): boolean;
  /**
   * Pins [address, address + length), both page aligned: from now on these pages keep their frames, whatever the process does
   * with its mappings, until `release`. A negative result is -errno (EFAULT: not mapped, or `write` on a read-only mapping).
   */
  pin(address: number, length: number, write: boolean): PinnedPages | number;
}

/** Pages with stable frame numbers. */
export interface PinnedPages {
  /** Physically contiguous runs in the order of the addresses. */
  readonly runs: readonly { readonly pa: number; readonly length: number }[];
  /** Pages that count against RLIMIT_MEMLOCK (BAR mappings do not). */
  readonly accountedPages: number;
  /** True when some of it is a device's BAR (VM_PFNMAP): type1 takes it, iommufd refuses. */
  readonly deviceMemory: boolean;
  release(): void;
}
