/** The machines that the cases run on, real and simulated alike: what each has, and where its MSI range is. */

const IRQS = ['edu', 'nvme', 'igb'];
const ARM_WINDOW = { start: 0x0800_0000, end: 0x080f_ffff };

/**
 * `features` are what cases need: `type1`, `iommufd`; `arm` (SMMUv3) or `x86` (VT-d); `its`, `v2m` or `remapping`; `isolated` MSIs, or `unsafe`;
 * `nesting` and `coherent` (the firmware says CANWBS; QEMU's VT-d does not snoop); the devices. `edu`, `nvme` and `igb` are on the root bus, each in a group of its own.
 */
export const PLATFORMS = {
  'arm64-its': {
    arm: true,
    window: ARM_WINDOW,
    features: ['type1', 'iommufd', 'arm', 'its', 'isolated', 'no-nesting', ...IRQS],
  },
  'arm64-nesting': {
    arm: true,
    window: ARM_WINDOW,
    features: ['type1', 'iommufd', 'arm', 'its', 'isolated', 'nesting', 'coherent', ...IRQS],
  },
  'arm64-v2m': {
    arm: true,
    window: ARM_WINDOW,
    features: ['type1', 'iommufd', 'arm', 'v2m', 'unsafe', 'no-nesting', ...IRQS],
  },
  x86: {
    arm: false,
    window: { start: 0xfee0_0000, end: 0xfeef_ffff },
    features: ['type1', 'iommufd', 'x86', 'remapping', 'isolated', 'no-nesting', ...IRQS],
  },
};

export const PLATFORM_NAMES = Object.keys(PLATFORMS);
