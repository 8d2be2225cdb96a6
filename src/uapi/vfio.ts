/** linux/vfio.h, noun by noun. */
export * from './vfio-cdev.ts';
export * from './vfio-container.ts';
export * from './vfio-device.ts';
export * from './vfio-feature.ts';
export * from './vfio-group.ts';
export * from './vfio-irq.ts';
export * from './vfio-migration.ts';
export * from './vfio-pci.ts';
export * from './vfio-type1.ts';
