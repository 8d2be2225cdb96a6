/** Device models that a machine, exec and a vfio-user server can all carry. */
export * from './bell.ts';
export * from './edu.ts';
export type { DeviceOptions } from './options.ts';
export * from './registry.ts';
