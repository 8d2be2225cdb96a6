/** Intel VT-d. */
export { type RemappingPart, Vtd } from './vtd.ts';
