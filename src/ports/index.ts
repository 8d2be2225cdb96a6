/** The seams: interfaces and the few values that cross them. */
export * from './address.ts';
export * from './block-store.ts';
export * from './bus.ts';
export * from './eventfd.ts';
export * from './guest.ts';
export * from './iommu.ts';
export * from './kernel.ts';
export * from './ledger.ts';
export * from './memory.ts';
export * from './outcome.ts';
export * from './pci.ts';
export * from './process.ts';
export * from './tap.ts';
export * from './transaction.ts';
export * from './work.ts';
