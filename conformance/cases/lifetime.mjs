/** What stays and what goes when descriptors are closed in any order. */
import * as u from 'belfry/uapi';
import {
  attached,
  CONFIG,
  destroy,
  enable,
  interrupting,
  K,
  mapDma,
  owned,
  s32,
  text,
  trigger,
  u32,
} from '../fixtures.mjs';
import { suite } from '../suite.mjs';

suite('lifetime by a group', { needs: ['type1'], source: 'drivers/vfio', fixture: owned('edu') }, (add) => {
  add('the container’s descriptor may go first', 'container.c vfio_fops_release', (t, host) => {
    t.result('close', t.close(host.container), 0);
    t.request(
      'the device lives',
      host.device,
      u.VFIO_DEVICE_GET_INFO,
      u.vfio_device_info,
      { argsz: 24 },
      { num_irqs: 5 },
    );
  });
  add('the device lives when both of the others are closed', 'group.c vfio_group_fops_release', (t, host) => {
    t.close(host.container);
    t.close(host.groupFd);
    t.request('GET_INFO', host.device, u.VFIO_DEVICE_GET_INFO, u.vfio_device_info, { argsz: 24 }, { num_irqs: 5 });
    t.result('the group is taken', t.kernel.open(`/dev/vfio/${host.group}`), 'EBUSY');
    t.close(host.device);
    t.same('then it is free', t.open(`/dev/vfio/${host.group}`) >= 0, true);
  });
  add('mappings go with the last group', 'vfio_iommu_type1.c vfio_iommu_type1_detach_group', (t, host) => {
    const { address: vaddr } = t.memory(K);
    t.result('map', mapDma(t, host.container, { iova: K, size: K, vaddr }), 0);
    t.close(host.device);
    t.result('UNSET_CONTAINER', t.kernel.ioctl(host.groupFd, u.VFIO_GROUP_UNSET_CONTAINER), 0);
    t.result('SET_CONTAINER', t.kernel.ioctl(host.groupFd, u.VFIO_GROUP_SET_CONTAINER, s32(host.container)), 0);
    t.result('SET_IOMMU', t.kernel.ioctl(host.container, u.VFIO_SET_IOMMU, 3), 0);
    t.result('map again', mapDma(t, host.container, { iova: K, size: K, vaddr }), 0);
  });
  add(
    'after its group left, a container can take the other version',
    'container.c __vfio_group_unset_container',
    (t, host) => {
      t.close(host.device);
      t.must('UNSET_CONTAINER', t.kernel.ioctl(host.groupFd, u.VFIO_GROUP_UNSET_CONTAINER));
      t.must('SET_CONTAINER', t.kernel.ioctl(host.groupFd, u.VFIO_GROUP_SET_CONTAINER, s32(host.container)));
      t.result('version 1', t.kernel.ioctl(host.container, u.VFIO_SET_IOMMU, u.VFIO_TYPE1_IOMMU), 0);
    },
  );
  add('the owner’s config space begins anew', 'pci/vfio_pci_config.c vfio_config_init', (t, host) => {
    const line = (value) => t.kernel.pwrite(host.device, Uint8Array.of(value), CONFIG + 0x0c);
    t.result('write', line(0x10), 1);
    enable(t, host.device, 6);
    t.close(host.device);
    const again = t.descriptor(
      'GET_DEVICE_FD',
      t.kernel.ioctl(host.groupFd, u.VFIO_GROUP_GET_DEVICE_FD, text(host.name)),
    );
    const command = new Uint8Array(2);
    t.must('read', t.kernel.pread(again, command, CONFIG + 4));
    t.same('bus mastering is off', command[0] & 4, 0);
  });
});

suite('lifetime of interrupts', { needs: ['type1'], source: 'drivers/vfio', fixture: interrupting('edu') }, (add) => {
  add('closing the device disables them', 'pci/vfio_pci_core.c vfio_pci_core_disable', (t, host) => {
    trigger(t, host.device, 1, 1);
    t.close(host.device);
    const again = t.descriptor(
      'GET_DEVICE_FD',
      t.kernel.ioctl(host.groupFd, u.VFIO_GROUP_GET_DEVICE_FD, text(host.name)),
    );
    const bytes = u.vfio_irq_set.bytes({
      argsz: 20,
      flags: u.VFIO_IRQ_SET_DATA_NONE | u.VFIO_IRQ_SET_ACTION_TRIGGER,
      index: 1,
    });
    t.result('nothing to disable', t.kernel.ioctl(again, u.VFIO_DEVICE_SET_IRQS, bytes), 'EINVAL');
  });
  add('an eventfd may be closed while it is in use', 'pci/vfio_pci_intrs.c vfio_msi_set_vector_signal', (t, host) => {
    const eventfd = t.kernel.eventfd();
    const flags = u.VFIO_IRQ_SET_DATA_EVENTFD | u.VFIO_IRQ_SET_ACTION_TRIGGER;
    t.result('set', host.set(1, flags, 0, 1, [eventfd.fd]), 0);
    t.result('close', t.kernel.close(eventfd.fd), 0);
    host.register(0x60, 1);
    host.register(0x64, 1);
    t.result('off', host.off(1), 0);
  });
  add('two descriptors of a device are one device', 'vfio_main.c vfio_device_open', async (t, host) => {
    const second = t.descriptor(
      'GET_DEVICE_FD',
      t.kernel.ioctl(host.groupFd, u.VFIO_GROUP_GET_DEVICE_FD, text(host.name)),
    );
    const [eventfd] = trigger(t, host.device, 1, 1);
    t.close(host.device);
    t.must('raise', t.kernel.pwrite(second, u32(1), 0x60));
    await t.events('still there', eventfd, 1);
    t.must('acknowledge', t.kernel.pwrite(second, u32(1), 0x64));
  });
});

suite('lifetime by a cdev', { needs: ['iommufd'], source: 'drivers/vfio', fixture: attached('edu') }, (add) => {
  add('closing the device frees its page table and its object', 'device_cdev.c vfio_df_unbind_iommufd', (t, host) => {
    t.close(host.device);
    t.result('its page table', destroy(t, host.iommufd, host.hwpt), 'ENOENT');
    t.result('its object', destroy(t, host.iommufd, host.devid), 'ENOENT');
    t.result('the IOAS', destroy(t, host.iommufd, host.ioas), 0);
  });
  add('/dev/iommu may be closed first', 'device_cdev.c vfio_df_ioctl_bind_iommufd', (t, host) => {
    t.result('close', t.close(host.iommufd), 0);
    t.request(
      'the device lives',
      host.device,
      u.VFIO_DEVICE_GET_INFO,
      u.vfio_device_info,
      { argsz: 24 },
      { num_irqs: 5 },
    );
  });
  add('its group is free then', 'device_cdev.c vfio_device_unblock_group', (t, host) => {
    t.close(host.device);
    t.same('open', t.open(`/dev/vfio/${host.group}`) >= 0, true);
  });
});
