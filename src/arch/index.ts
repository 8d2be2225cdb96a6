/** The hardware's own formats, by specification. */
export * as bits from './bits.ts';
export * as gic from './gic/index.ts';
export * as lpae from './lpae/index.ts';
export * as pci from './pci/index.ts';
export * as smmuv3 from './smmuv3/index.ts';
export * as vtd from './vtd/index.ts';
export * as x86 from './x86/index.ts';
