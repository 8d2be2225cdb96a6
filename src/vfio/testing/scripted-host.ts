/** One group with one device in front of the library, answering as Linux 7.2 does. */
import { vfio_device_info } from '../../uapi/vfio-device.ts';
import { vfio_group_status } from '../../uapi/vfio-group.ts';
import type { Device } from '../device.ts';
import { openDevice } from '../open-device.ts';
import { ScriptedKernel } from './scripted-kernel.ts';

export const NAME = '0000:01:00.0';

/** Bytes of hexadecimal text; white space is ignored. */
export const hexBytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text.replace(/\s/g, ''), 'hex'));

/** A kernel with group 3, whose device is bound to vfio-pci, and a type1v2 IOMMU without capabilities. */
export function scriptedHost(): ScriptedKernel {
  const kernel = new ScriptedKernel();
  kernel.file('/dev/vfio/vfio', 'container').file('/dev/vfio/3', 'group');
  kernel.links.set(`/sys/bus/pci/devices/${NAME}/iommu_group`, '../../../../kernel/iommu_groups/3');
  kernel.links.set(`/sys/bus/pci/devices/${NAME}/driver`, '../../../../bus/pci/drivers/vfio-pci');
  kernel.lists.set('/sys/kernel/iommu_groups/3/devices', [NAME]);
  kernel.lists.set('/sys/bus/pci/devices', [NAME, '0000:00:01.0']);
  kernel.texts.set('/sys/kernel/iommu_groups/3/reserved_regions', '0x0000000008000000 0x00000000080fffff msi\n');
  kernel
    .on('VFIO_GET_API_VERSION', () => 0)
    .on('VFIO_CHECK_EXTENSION', (_, id) => (id === 1 || id === 3 || id === 9 ? 1 : 0))
    .on('VFIO_SET_IOMMU', () => 0)
    .on('VFIO_GROUP_GET_STATUS', (bytes) => {
      vfio_group_status.patch(bytes, { flags: 1 });
      return 0;
    })
    .on('VFIO_GROUP_SET_CONTAINER', () => 0)
    .on('VFIO_GROUP_UNSET_CONTAINER', () => 0)
    .on('VFIO_GROUP_GET_DEVICE_FD', () => kernel.newFile('device', 'device'))
    .on('VFIO_IOMMU_GET_INFO', (bytes) => {
      // flags: page sizes; 4 KiB, 2 MiB, 1 GiB.
      bytes.set(hexBytes('18000000 01000000 0010204000000000'));
      return 0;
    })
    .on('VFIO_IOMMU_MAP_DMA', () => 0)
    .on('VFIO_IOMMU_UNMAP_DMA', () => 0)
    .on('VFIO_DEVICE_GET_INFO', (bytes) => {
      vfio_device_info.patch(bytes, { flags: 3, num_regions: 9, num_irqs: 5 });
      return 0;
    })
    .on('VFIO_DEVICE_SET_IRQS', () => 0);
  return kernel;
}

/** The device of {@link scriptedHost}, open, with an empty log. */
export function openScripted(kernel: ScriptedKernel): Device {
  const device = openDevice(kernel, NAME);
  kernel.log.length = 0;
  return device;
}
