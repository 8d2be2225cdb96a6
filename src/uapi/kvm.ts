/** linux/kvm.h: what an interrupt's way into a guest needs: irqfd, routes, MSIs, ioeventfd, memory, devices. */
import { array, overlay, s32, tail, u8, u32, u64, union } from './field.ts';
import { _IO, _IOW, _IOWR } from './ioctl.ts';
import { nested, struct } from './struct.ts';

export const KVMIO = 0xae;
export const KVM_API_VERSION = 12;

export const KVM_CAP_IRQCHIP = 0;
export const KVM_CAP_USER_MEMORY = 3;
export const KVM_CAP_IRQ_ROUTING = 25;
export const KVM_CAP_IRQFD = 32;
export const KVM_CAP_IOEVENTFD = 36;
export const KVM_CAP_SIGNAL_MSI = 77;
export const KVM_CAP_IRQFD_RESAMPLE = 82;
export const KVM_CAP_DEVICE_CTRL = 89;
export const KVM_CAP_IOEVENTFD_ANY_LENGTH = 122;
export const KVM_CAP_MSI_DEVID = 131;
export const KVM_CAP_ARM_IRQ_LINE_LAYOUT_2 = 174;

export const kvm_userspace_memory_region = struct('kvm_userspace_memory_region', {
  slot: u32,
  flags: u32,
  guest_phys_addr: u64,
  memory_size: u64,
  userspace_addr: u64,
});

export const KVM_MEM_LOG_DIRTY_PAGES = 1 << 0;
export const KVM_MEM_READONLY = 1 << 1;

export const kvm_irq_level = struct('kvm_irq_level', {
  irq: u32,
  status: overlay(s32),
  level: u32,
});

export const kvm_irq_routing_irqchip = struct('kvm_irq_routing_irqchip', {
  irqchip: u32,
  pin: u32,
});

export const kvm_irq_routing_msi = struct('kvm_irq_routing_msi', {
  address_lo: u32,
  address_hi: u32,
  data: u32,
  devid: u32,
});

/** Another architecture's; it is here because its u64s align the union, and so every entry, to 8. */
export const kvm_irq_routing_s390_adapter = struct('kvm_irq_routing_s390_adapter', {
  ind_addr: u64,
  summary_addr: u64,
  ind_offset: u64,
  summary_offset: u32,
  adapter_id: u32,
});

/** `flags` of an MSI route: KVM_MSI_VALID_DEVID. */
export const kvm_irq_routing_entry = struct('kvm_irq_routing_entry', {
  gsi: u32,
  type: u32,
  flags: u32,
  pad: u32,
  u: union({
    irqchip: nested(kvm_irq_routing_irqchip),
    msi: nested(kvm_irq_routing_msi),
    adapter: nested(kvm_irq_routing_s390_adapter),
    pad: array(u32, 8),
  }),
});

export const KVM_IRQ_ROUTING_IRQCHIP = 1;
export const KVM_IRQ_ROUTING_MSI = 2;

export const kvm_irq_routing = struct('kvm_irq_routing', {
  nr: u32,
  flags: u32,
  entries: tail(nested(kvm_irq_routing_entry)),
});

export const kvm_irqfd = struct('kvm_irqfd', {
  fd: u32,
  gsi: u32,
  flags: u32,
  resamplefd: u32,
  pad: array(u8, 16),
});

export const KVM_IRQFD_FLAG_DEASSIGN = 1 << 0;
export const KVM_IRQFD_FLAG_RESAMPLE = 1 << 1;

/** `len` 1, 2, 4, 8, or 0 for any. */
export const kvm_ioeventfd = struct('kvm_ioeventfd', {
  datamatch: u64,
  addr: u64,
  len: u32,
  fd: s32,
  flags: u32,
  pad: array(u8, 36),
});

export const KVM_IOEVENTFD_FLAG_DATAMATCH = 1 << 0;
export const KVM_IOEVENTFD_FLAG_PIO = 1 << 1;
export const KVM_IOEVENTFD_FLAG_DEASSIGN = 1 << 2;
export const KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY = 1 << 3;

export const kvm_msi = struct('kvm_msi', {
  address_lo: u32,
  address_hi: u32,
  data: u32,
  flags: u32,
  devid: u32,
  pad: array(u8, 12),
});

export const KVM_MSI_VALID_DEVID = 1 << 0;

/** `fd` is an output. */
export const kvm_create_device = struct('kvm_create_device', {
  type: u32,
  fd: u32,
  flags: u32,
});

export const KVM_CREATE_DEVICE_TEST = 1;

/** `addr` points to the attribute's data. */
export const kvm_device_attr = struct('kvm_device_attr', {
  flags: u32,
  group: u32,
  attr: u64,
  addr: u64,
});

export const KVM_DEV_TYPE_VFIO = 4;
export const KVM_DEV_TYPE_ARM_VGIC_V2 = 5;
export const KVM_DEV_TYPE_ARM_VGIC_V3 = 7;
export const KVM_DEV_TYPE_ARM_VGIC_ITS = 8;
export const KVM_DEV_TYPE_ARM_VGIC_V5 = 16;

/** Group and attributes of the VFIO device; `addr` points to an s32, the file descriptor of a group or a device. */
export const KVM_DEV_VFIO_FILE = 1;
export const KVM_DEV_VFIO_FILE_ADD = 1;
export const KVM_DEV_VFIO_FILE_DEL = 2;
export const KVM_DEV_VFIO_GROUP = 1;
export const KVM_DEV_VFIO_GROUP_ADD = 1;
export const KVM_DEV_VFIO_GROUP_DEL = 2;

/** On /dev/kvm. CREATE_VM takes a machine type by value: on arm64 the log2 of the guest's address space, 0 for 40 bits. */
export const KVM_GET_API_VERSION = _IO(KVMIO, 0x00);
export const KVM_CREATE_VM = _IO(KVMIO, 0x01);
/** On /dev/kvm and on a VM: by value, the capability. */
export const KVM_CHECK_EXTENSION = _IO(KVMIO, 0x03);
export const KVM_GET_VCPU_MMAP_SIZE = _IO(KVMIO, 0x04);

/** On a VM. CREATE_VCPU takes the index by value. */
export const KVM_CREATE_VCPU = _IO(KVMIO, 0x41);
export const KVM_SET_USER_MEMORY_REGION = _IOW(KVMIO, 0x46, kvm_userspace_memory_region.size);
export const KVM_CREATE_IRQCHIP = _IO(KVMIO, 0x60);
export const KVM_IRQ_LINE = _IOW(KVMIO, 0x61, kvm_irq_level.size);
export const KVM_SET_GSI_ROUTING = _IOW(KVMIO, 0x6a, kvm_irq_routing.size);
export const KVM_IRQFD = _IOW(KVMIO, 0x76, kvm_irqfd.size);
export const KVM_IOEVENTFD = _IOW(KVMIO, 0x79, kvm_ioeventfd.size);
export const KVM_SIGNAL_MSI = _IOW(KVMIO, 0xa5, kvm_msi.size);
export const KVM_CREATE_DEVICE = _IOWR(KVMIO, 0xe0, kvm_create_device.size);

/** On a device of a VM (and HAS on the VM itself). */
export const KVM_SET_DEVICE_ATTR = _IOW(KVMIO, 0xe1, kvm_device_attr.size);
export const KVM_GET_DEVICE_ATTR = _IOW(KVMIO, 0xe2, kvm_device_attr.size);
export const KVM_HAS_DEVICE_ATTR = _IOW(KVMIO, 0xe3, kvm_device_attr.size);
