/** linux/iommufd.h, noun by noun. */
export * from './iommufd-hwpt.ts';
export * from './iommufd-ioas.ts';
export * from './iommufd-viommu.ts';
