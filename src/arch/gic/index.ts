/** Formats of the Arm Generic Interrupt Controller. */
export * from './distributor.ts';
export * from './its-commands.ts';
export * from './its-registers.ts';
export * from './its-tables.ts';
export * from './redistributor.ts';
export * from './v2m.ts';
