/** Intel VT-d, DMA remapping: registers, legacy-mode tables, second-level tables, faults, the invalidation queue. */
export * from './faults.ts';
export * from './queue.ts';
export * from './registers.ts';
export * from './tables.ts';
