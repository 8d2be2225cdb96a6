/** The Arm SMMUv3. */
export { Smmu, type SmmuInterrupt, type SmmuOptions } from './smmu.ts';
