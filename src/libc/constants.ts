/** Flags of Linux system calls (asm-generic); equal on x86-64, arm64 and riscv64. */
export const O_RDONLY = 0;
export const O_RDWR = 2;
export const O_CLOEXEC = 0x8_0000;

export const PROT_READ = 1;
export const PROT_WRITE = 2;

export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_NORESERVE = 0x4000;

export const EFD_NONBLOCK = 0x800;
export const EFD_CLOEXEC = 0x8_0000;

export const EPOLL_CLOEXEC = 0x8_0000;
export const EPOLL_CTL_ADD = 1;
export const EPOLLIN = 1;
