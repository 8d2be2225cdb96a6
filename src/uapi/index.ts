/** The ABI as data: struct layouts, ioctl numbers, flags, errno, named as in Linux's headers. */
export * from './belfry.ts';
export * from './dma-buf.ts';
export * from './errno.ts';
export * from './fcntl.ts';
export * from './field.ts';
export * from './ioctl.ts';
export * from './iommufd.ts';
export * from './kvm.ts';
export * from './kvm-arm64.ts';
export * from './memfd.ts';
export * from './request-name.ts';
export * from './struct.ts';
export * from './vfio.ts';
