/** Arm's long-descriptor translation tables (VMSAv8-64), stage 1 and 2. */
export * from './descriptor.ts';
export * from './geometry.ts';
