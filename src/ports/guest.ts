/**
 * The door through which a program attaches a guest CPU. On real KVM a vCPU runs guest code; on the simulated kernel
 * the program itself is the guest: it touches guest memory and registers and acknowledges interrupts.
 */
export interface GuestPort {
  /** Attaches virtual CPU `index` of the VM behind `vmFd`; its interrupts call `signal`. */
  attach(vmFd: number, index: number, signal: () => void): GuestCpu | number;
}

export interface GuestCpu {
  /** Reads ICC_IAR1: the highest pending interrupt id becomes active; 1023 when there is none. */
  acknowledge(): number;
  /** Writes ICC_EOIR1. */
  endOfInterrupt(intid: number): void;
  /** Is an interrupt waiting to be acknowledged? */
  readonly pending: boolean;
  /** Guest-physical register access: the in-kernel controllers answer; null when the address is not theirs (an exit to the VMM). */
  mmioRead(gpa: number, size: number): number | null;
  mmioWrite(gpa: number, size: number, value: number): boolean;
  detach(): void;
}
