/** Arm SMMUv3: the formats of its tables, queues and registers (IHI 0070). */
export * from './cd.ts';
export * from './commands.ts';
export * from './events.ts';
export * from './registers.ts';
export * from './ste.ts';
export * from './stream-table.ts';
