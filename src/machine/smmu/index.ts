/** The Arm SMMUv3. */
export { Smmu, type SmmuInterrupt } from './smmu.ts';
