/** Set-ups that cases share. Everything is opened through the subject, which closes it in reverse. */
import * as u from 'belfry/uapi';

export const IDS = { edu: '0x1234:0x11e8', nvme: '0x1b36:0x0010', igb: '0x8086:0x10c9' };
export const K = 0x1000;
export const REGION = 2 ** 40;
export const CONFIG = u.VFIO_PCI_CONFIG_REGION_INDEX * REGION;

export const s32 = (...values) => new Uint8Array(Int32Array.from(values).buffer);
export const u32 = (...values) => new Uint8Array(Uint32Array.from(values).buffer);
export const text = (value) => new TextEncoder().encode(`${value}\0`);

/** `{ name, group }` of the function with such an id: `0000:00:05.0` and the number of its group. */
export function find(t, model) {
  const read = (name, file) => t.kernel.readText(`/sys/bus/pci/devices/${name}/${file}`)?.trim();
  const names = t.kernel.list('/sys/bus/pci/devices') ?? [];
  const name = names.find((each) => `${read(each, 'vendor')}:${read(each, 'device')}` === IDS[model]);
  if (name === undefined) throw new Error(`no device ${IDS[model]}`);
  const group = t.kernel.readLink(`/sys/bus/pci/devices/${name}/iommu_group`).split('/').at(-1);
  return { name, group };
}

/** Where MSIs are not isolated, VFIO takes the machine only when it is told to. */
export function allowUnsafe(t, allowed = true) {
  if (!t.has('unsafe')) return;
  for (const module of ['vfio_iommu_type1', 'iommufd']) {
    const path = `/sys/module/${module}/parameters/allow_unsafe_interrupts`;
    const fd = t.open(path, 'rw');
    t.must(`write ${path}`, t.kernel.write(fd, new TextEncoder().encode(allowed ? 'Y\n' : 'N\n')));
    t.close(fd);
  }
}

/** A container of type1 with the device's group in it, and the device: what most programs of the group interface begin with. */
export function owned(model, { iommu = u.VFIO_TYPE1v2_IOMMU } = {}) {
  return (t) => {
    allowUnsafe(t);
    const { name, group } = find(t, model);
    const container = t.open('/dev/vfio/vfio');
    const groupFd = t.open(`/dev/vfio/${group}`);
    t.must('SET_CONTAINER', t.kernel.ioctl(groupFd, u.VFIO_GROUP_SET_CONTAINER, s32(container)));
    t.must('SET_IOMMU', t.kernel.ioctl(container, u.VFIO_SET_IOMMU, iommu));
    const device = t.descriptor('GET_DEVICE_FD', t.kernel.ioctl(groupFd, u.VFIO_GROUP_GET_DEVICE_FD, text(name)));
    return { name, group, container, groupFd, device };
  };
}

/** A context of iommufd, and a cdev opened but not bound. */
export function cdev(model) {
  return (t) => {
    allowUnsafe(t);
    const { name, group } = find(t, model);
    const node = t.kernel.list(`/sys/bus/pci/devices/${name}/vfio-dev`)?.[0];
    const iommufd = t.open('/dev/iommu');
    const device = t.open(`/dev/vfio/devices/${node}`);
    return { name, group, node, iommufd, device };
  };
}

/** The same, bound; `devid` is its object, `ioas` an empty IOAS, nothing is attached. */
export function bound(model) {
  return (t) => {
    const host = cdev(model)(t);
    const bytes = u.vfio_device_bind_iommufd.bytes({ argsz: u.vfio_device_bind_iommufd.size, iommufd: host.iommufd });
    t.must('BIND_IOMMUFD', t.kernel.ioctl(host.device, u.VFIO_DEVICE_BIND_IOMMUFD, bytes));
    return { ...host, devid: u.vfio_device_bind_iommufd.read(bytes).out_devid, ioas: ioas(t, host.iommufd) };
  };
}

/** The same, and attached to the IOAS; `hwpt` is the page table that the kernel made for it. */
export function attached(model) {
  return (t) => {
    const host = bound(model)(t);
    return { ...host, hwpt: t.must('ATTACH', attach(t, host.device, host.ioas)) };
  };
}

/** A new object of iommufd. @returns its id */
export function make(t, fd, request, struct, fields, out) {
  const bytes = struct.bytes({ size: struct.size, ...fields });
  t.must(struct.name ?? out, t.kernel.ioctl(fd, request, bytes));
  return struct.read(bytes)[out];
}

export const ioas = (t, fd) => make(t, fd, u.IOMMU_IOAS_ALLOC, u.iommu_ioas_alloc, {}, 'out_ioas_id');

/** ATTACH_IOMMUFD_PT: the page table's id, or -errno. */
export function attach(t, device, pt_id) {
  const bytes = u.vfio_device_attach_iommufd_pt.bytes({ argsz: 12, pt_id });
  const result = t.kernel.ioctl(device, u.VFIO_DEVICE_ATTACH_IOMMUFD_PT, bytes);
  return result < 0 ? result : u.vfio_device_attach_iommufd_pt.read(bytes).pt_id;
}

/** IOMMU_DESTROY of an object: 0 or -errno. */
export const destroy = (t, fd, id) => t.kernel.ioctl(fd, u.IOMMU_DESTROY, u.iommu_destroy.bytes({ size: 8, id }));

/** DETACH_IOMMUFD_PT: 0 or -errno. */
export const detach = (t, device, fields = {}) =>
  t.kernel.ioctl(
    device,
    u.VFIO_DEVICE_DETACH_IOMMUFD_PT,
    u.vfio_device_detach_iommufd_pt.bytes({ argsz: 8, ...fields }),
  );

/** The path of a function's own file. */
export const nodeOf = (t, name) => `/dev/vfio/devices/${t.kernel.list(`/sys/bus/pci/devices/${name}/vfio-dev`)?.[0]}`;

/** MAP_DMA of type1: 0 or -errno. */
export function mapDma(t, container, { iova, size, vaddr, flags = 3, argsz = 32 }) {
  return t.kernel.ioctl(
    container,
    u.VFIO_IOMMU_MAP_DMA,
    u.vfio_iommu_type1_dma_map.bytes({ argsz, flags, vaddr, iova, size }),
  );
}

/** UNMAP_DMA of type1: bytes that went away, or -errno. */
export function unmapDma(t, container, { iova = 0, size = 0, flags = 0, argsz = 24 }) {
  const bytes = u.vfio_iommu_type1_dma_unmap.bytes({ argsz, flags, iova, size });
  const result = t.kernel.ioctl(container, u.VFIO_IOMMU_UNMAP_DMA, bytes);
  return result < 0 ? result : Number(u.vfio_iommu_type1_dma_unmap.read(bytes).size);
}

/** SET_IRQS. `payload`: descriptors for EVENTFD, bytes for BOOL, nothing for NONE. */
export function setIrqs(t, device, { index, flags, start = 0, count = 0, payload = [], argsz = null }) {
  const words = flags & u.VFIO_IRQ_SET_DATA_EVENTFD ? s32(...payload) : Uint8Array.from(payload);
  const bytes = new Uint8Array(20 + Math.max(words.length, 64));
  u.vfio_irq_set.patch(bytes, { argsz: argsz ?? 20 + words.length, flags, index, start, count });
  bytes.set(words, 20);
  return t.kernel.ioctl(device, u.VFIO_DEVICE_SET_IRQS, bytes);
}

/** Enables vectors from 0 on, one eventfd each; disabled when the case ends. */
export function trigger(t, device, index, count) {
  const eventfds = Array.from({ length: count }, () => t.eventfd());
  const flags = u.VFIO_IRQ_SET_DATA_EVENTFD | u.VFIO_IRQ_SET_ACTION_TRIGGER;
  t.must('SET_IRQS', setIrqs(t, device, { index, flags, count, payload: eventfds.map(({ fd }) => fd) }));
  return eventfds;
}

/** COMMAND: memory and bus mastering, which are off after open. */
export function enable(t, device, command = 6) {
  t.must('COMMAND', t.kernel.pwrite(device, Uint8Array.of(command & 0xff, command >> 8), CONFIG + 4));
}

/** A device by its group, its memory and bus mastering on; `set(index, flags, start, count, payload)`, `off(index)`, and `register(offset, value)` of BAR 0. */
export const interrupting = (model) => (t) => {
  const host = owned(model)(t);
  enable(t, host.device);
  const set = (index, flags, start = 0, count = 1, payload = [], argsz = null) =>
    setIrqs(t, host.device, { index, flags, start, count, payload, argsz });
  const register = (offset, value) => t.must('register', t.kernel.pwrite(host.device, u32(value), offset));
  const off = (index) => set(index, u.VFIO_IRQ_SET_DATA_NONE | u.VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0);
  return { ...host, set, register, off };
};
