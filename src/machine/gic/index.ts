/** The Arm Generic Interrupt Controller of a machine. */
export { Gic, type GicOptions, type LpiWatcher } from './gic.ts';
export { Its, type ItsCommandError, type ItsOptions } from './its.ts';
export { GicV2m, type V2mOptions } from './v2m.ts';
