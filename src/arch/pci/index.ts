/** PCI and PCI Express: layouts and pure functions. */
export * from './capability.ts';
export * from './config.ts';
export * from './express.ts';
export * from './msi.ts';
export * from './msix.ts';
export * from './pasid.ts';
export * from './power.ts';
export * from './sriov.ts';
