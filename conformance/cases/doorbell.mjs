/** Where the doorbell is: the window, and the address that the kernel programs into a device. */
import * as u from 'belfry/uapi';
import {
  attach,
  attached,
  detach,
  enable,
  find,
  interrupting,
  ioas,
  K,
  mapDma,
  owned,
  setIrqs,
  trigger,
  u32,
} from '../fixtures.mjs';
import { suite } from '../suite.mjs';

const MSI = 1;
const MSIX = 2;
const TABLE = 0x2000;
/** The first page of the window, and the register's place in its page. */
const first = (t) => t.window.start + (t.has('v2m') || t.has('its') ? 0x40 : 0);

/** The MSI address in the device itself, by sysfs: the file of VFIO shows the owner's copy. */
function messageInHardware(t, name) {
  const fd = t.open(`/sys/bus/pci/devices/${name}/config`, 'r');
  const bytes = new Uint8Array(64);
  t.must('config', t.kernel.pread(fd, bytes, 0x40));
  const view = new DataView(bytes.buffer);
  return { address: view.getUint32(4, true), upper: view.getUint32(8, true) };
}

/** MSI-X entries by the mapped table. */
function entries(t, device, count) {
  const table = t.mmap(device, 0, 0x4000);
  return Array.from({ length: count }, (_, vector) =>
    [0, 4, 8, 12].map((word) => table.read32(TABLE + vector * 16 + word) >>> 0),
  );
}

suite('the window', { needs: ['type1'], source: 'drivers/iommu/iommu.c', fixture: owned('edu') }, (add) => {
  add('reserved_regions of the group show it', 'iommu_group_show_resv_regions', (t, { group }) => {
    const lines = t.kernel.readText(`/sys/kernel/iommu_groups/${group}/reserved_regions`).trim().split('\n');
    const hex = (value) => `0x${value.toString(16).padStart(16, '0')}`;
    t.same(
      'it',
      lines.filter((line) => line.endsWith(' msi')),
      [`${hex(t.window.start)} ${hex(t.window.end)} msi`],
    );
  });
  add(
    'no map goes over it, by either of the interfaces',
    '../vfio/vfio_iommu_type1.c vfio_iommu_iova_dma_valid',
    (t, { container }) => {
      const { address: vaddr } = t.memory(K);
      t.result('MAP_DMA', mapDma(t, container, { iova: t.window.start + 0x4_0000, size: K, vaddr }), 'EINVAL');
    },
  );
});

for (const [path, fixture, needs] of [
  ['by a group', interrupting, ['type1']],
  ['by a cdev', byCdev, ['iommufd']],
]) {
  const source =
    path === 'by a group'
      ? 'drivers/iommu/dma-iommu.c iommu_dma_sw_msi'
      : 'drivers/iommu/iommufd/driver.c iommufd_sw_msi';
  suite(`the doorbell, ${path}`, { needs: [...needs, 'arm'] }, (add) => {
    add('MSI: the first page of the window, and the register’s offset', source, (t) => {
      const { device, name } = fixture('edu')(t);
      trigger(t, device, MSI, 1);
      t.same('edu’s capability', messageInHardware(t, name), { address: first(t), upper: 0 });
    });
    add('MSI-X: one address for all vectors, and events from 0', source, (t) => {
      const { device } = fixture('nvme')(t);
      trigger(t, device, MSIX, 3);
      const base = t.has('v2m') ? 80 : 0;
      const found = entries(t, device, 3).map(([low, high, data]) => [low, high, data - base]);
      t.same(
        'entries',
        found,
        [0, 1, 2].map((event) => [first(t), 0, event]),
      );
    });
    add('an interrupt arrives through it', source, async (t) => {
      const { device } = fixture('edu')(t);
      const [eventfd] = trigger(t, device, MSI, 1);
      t.must('raise', t.kernel.pwrite(device, u32(1), 0x60));
      await t.events('one', eventfd, 1);
      t.must('acknowledge', t.kernel.pwrite(device, u32(1), 0x64));
    });
  });
  suite(`the doorbell on x86, ${path}`, { needs: [...needs, 'x86'] }, (add) => {
    const irte = 'drivers/iommu/intel/irq_remapping.c fill_msi_msg';
    add('MSI: 0xfee in the upper bits, in the remappable format', irte, (t) => {
      const { device, name } = fixture('edu')(t);
      trigger(t, device, MSI, 1);
      const { address, upper } = messageInHardware(t, name);
      t.same('0xfee', address >>> 20, 0xfee);
      t.same('remappable', (address >>> 4) & 1, 1);
      t.same('upper half', upper, 0);
    });
    add('MSI-X: an entry of remapping for each vector', irte, (t) => {
      const { device } = fixture('nvme')(t);
      trigger(t, device, MSIX, 3);
      const addresses = entries(t, device, 3).map(([low]) => low);
      t.same(
        'all 0xfee',
        addresses.every((low) => low >>> 20 === 0xfee),
        true,
      );
      t.same('all different', new Set(addresses).size, 3);
      t.same(
        'no data',
        entries(t, device, 3).map(([, , data]) => data),
        [0, 0, 0],
      );
    });
  });
}

suite('the doorbell over a replace', { needs: ['iommufd', 'arm'], source: 'drivers/iommu/iommufd' }, (add) => {
  add('the address stays, and interrupts arrive', 'driver.c iommufd_group_do_replace_reserved_iova', async (t) => {
    const { device, name, iommufd, ioas: before } = byCdev('edu')(t);
    const [eventfd] = trigger(t, device, MSI, 1);
    const address = messageInHardware(t, name);
    t.same('another page table', attach(t, device, ioas(t, iommufd)) > 0, true);
    t.same('the address', messageInHardware(t, name), address);
    t.must('raise', t.kernel.pwrite(device, u32(1), 0x60));
    await t.events('one', eventfd, 1);
    t.must('acknowledge', t.kernel.pwrite(device, u32(1), 0x64));
    t.same('back', attach(t, device, before) > 0, true);
  });
  // The ITS reserves the event before it asks for the doorbell, and does not give it back: igb has one MSI only, and no other case uses it.
  add(
    'without an attached page table there is no doorbell, and the ITS loses the event',
    'drivers/irqchip/irq-gic-v3-its.c its_irq_domain_alloc',
    (t) => {
      const { device, ioas: pt_id } = byCdev('igb', { detached: true })(t);
      const flags = u.VFIO_IRQ_SET_DATA_EVENTFD | u.VFIO_IRQ_SET_ACTION_TRIGGER;
      const enableMsi = () => setIrqs(t, device, { index: MSI, flags, count: 1, payload: [t.eventfd().fd] });
      t.result('detached', enableMsi(), 'ENOSPC');
      t.same('attach', attach(t, device, pt_id) > 0, true);
      t.result('attached again', enableMsi(), 'ENOSPC');
    },
    { needs: ['its'] },
  );
});

suite('vectors', {
  needs: ['type1'],
  source: 'drivers/vfio/pci/vfio_pci_intrs.c',
  fixture: interrupting('nvme'),
}, (add) => {
  add('masked before, unmasked with a handler, masked after', 'vfio_msi_set_vector_signal', (t, { device, off }) => {
    const masks = () => entries(t, device, 3).map(([, , , control]) => control & 1);
    t.same('before', masks(), [1, 1, 1]);
    trigger(t, device, MSIX, 2);
    t.same('two of three', masks(), [0, 0, 1]);
    t.result('off', off(MSIX), 0);
    t.same('after', masks(), [1, 1, 1]);
  });
  add('the message is written again when the eventfd changes', 'vfio_msi_set_vector_signal', (t, { device }) => {
    trigger(t, device, MSIX, 1);
    const table = t.mmap(device, 0, 0x4000);
    const before = table.read32(TABLE);
    table.write32(TABLE, 0x1234_5000);
    const flags = u.VFIO_IRQ_SET_DATA_EVENTFD | u.VFIO_IRQ_SET_ACTION_TRIGGER;
    t.result('another eventfd', setIrqs(t, device, { index: MSIX, flags, count: 1, payload: [t.eventfd().fd] }), 0);
    t.same('the kernel’s address', table.read32(TABLE), before);
  });
});

/** A device of its own file, memory and bus mastering on; attached to an IOAS unless it is said otherwise. */
function byCdev(model, { detached = false } = {}) {
  return (t) => {
    const host = attached(model)(t);
    if (detached) t.must('DETACH', detach(t, host.device));
    enable(t, host.device);
    return { ...host, name: find(t, model).name };
  };
}
