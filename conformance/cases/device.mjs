/** What a device says of itself, and the requests that are not interrupts. */
import * as u from 'belfry/uapi';
import { owned } from '../fixtures.mjs';
import { suite } from '../suite.mjs';

const PCI = 'drivers/vfio/pci/vfio_pci_core.c';
const MAIN = 'drivers/vfio/vfio_main.c';

function ask(t, device, request, struct, fields) {
  const bytes = new Uint8Array(64);
  struct.patch(bytes, fields);
  return { result: t.kernel.ioctl(device, request, bytes), bytes, fields: struct.read(bytes) };
}
const region = (t, device, index, argsz = 32) =>
  ask(t, device, u.VFIO_DEVICE_GET_REGION_INFO, u.vfio_region_info, { argsz, index });
const irq = (t, device, index, argsz = 16) =>
  ask(t, device, u.VFIO_DEVICE_GET_IRQ_INFO, u.vfio_irq_info, { argsz, index });

for (const [model, flags] of [
  ['edu', u.VFIO_DEVICE_FLAGS_PCI],
  ['nvme', u.VFIO_DEVICE_FLAGS_PCI | u.VFIO_DEVICE_FLAGS_RESET],
]) {
  suite(`GET_INFO of ${model}`, { needs: ['type1'], source: PCI, fixture: owned(model) }, (add) => {
    add(
      `a PCI device, ${model === 'edu' ? 'that cannot be reset' : 'with a function level reset'}`,
      'vfio_pci_ioctl_get_info',
      (t, host) => {
        t.request(
          'it',
          host.device,
          u.VFIO_DEVICE_GET_INFO,
          u.vfio_device_info,
          { argsz: 24 },
          { flags, num_regions: 9, num_irqs: 5, cap_offset: 0 },
        );
      },
    );
    add('RESET', 'vfio_pci_ioctl_reset', (t, { device }) => {
      t.result('it', t.kernel.ioctl(device, u.VFIO_DEVICE_RESET, 0), model === 'edu' ? 'EINVAL' : 0);
    });
  });
}

suite('GET_INFO', { needs: ['type1'], source: PCI, fixture: owned('edu') }, (add) => {
  const branch = 'vfio_pci_ioctl_get_info';
  add('EFAULT, EINVAL: argsz below 16', branch, (t, { device }) => {
    t.result('null', t.kernel.ioctl(device, u.VFIO_DEVICE_GET_INFO, 0n), 'EFAULT');
    t.result('15', ask(t, device, u.VFIO_DEVICE_GET_INFO, u.vfio_device_info, { argsz: 15 }).result, 'EINVAL');
    t.result('16', ask(t, device, u.VFIO_DEVICE_GET_INFO, u.vfio_device_info, { argsz: 16 }).result, 0);
  });
  add('unknown requests are ENOTTY', 'vfio_pci_core_ioctl', (t, { device }) => {
    t.result('a container’s', t.kernel.ioctl(device, u.VFIO_SET_IOMMU, 3), 'ENOTTY');
    t.result('of no one', t.kernel.ioctl(device, u.VFIO_GET_API_VERSION + 0x60), 'ENOTTY');
  });
});

suite('GET_REGION_INFO', { needs: ['type1'], source: PCI }, (add) => {
  const branch = 'vfio_pci_ioctl_get_region_info';
  const on = (model, run) => async (t) => run(t, owned(model)(t));
  const shown = ({ fields: { flags, size, offset } }) => ({ flags, size, offset });
  add(
    'EFAULT, EINVAL: argsz below 32',
    branch,
    on('edu', (t, { device }) => {
      t.result('null', t.kernel.ioctl(device, u.VFIO_DEVICE_GET_REGION_INFO, 0n), 'EFAULT');
      t.result('31', region(t, device, 0, 31).result, 'EINVAL');
      t.result('31 and region 200', region(t, device, 200, 31).result, 'EINVAL');
    }),
  );
  add(
    'a BAR of memory can be read, written and mapped',
    branch,
    on('edu', (t, { device }) => {
      t.same('BAR 0', shown(region(t, device, 0)), { flags: 7, size: 0x10_0000n, offset: 0n });
    }),
  );
  add(
    'a BAR that is not there has no size and no flags',
    branch,
    on('edu', (t, { device }) => {
      t.same('BAR 1', shown(region(t, device, 1)), { flags: 0, size: 0n, offset: 2n ** 40n });
    }),
  );
  add(
    'cap_offset is not touched where there are no capabilities',
    'drivers/vfio/vfio_main.c vfio_get_region_info',
    on('nvme', (t, { device }) => {
      const after = (index) => {
        const fields = { argsz: 32, index, cap_offset: 0x1234 };
        return ask(t, device, u.VFIO_DEVICE_GET_REGION_INFO, u.vfio_region_info, fields).fields.cap_offset;
      };
      t.same('BAR 5, which is not there', after(5), 0x1234);
      t.same('config space', after(7), 0x1234);
      t.same('BAR 0, whose capabilities do not fit', after(0), 0);
    }),
  );
  add(
    'a BAR of I/O ports cannot be mapped',
    branch,
    on('igb', (t, { device }) => {
      t.same('BAR 2', shown(region(t, device, 2)), { flags: 3, size: 0x20n, offset: 2n ** 41n });
    }),
  );
  add(
    'the BAR of the MSI-X table: mappable, and it says so',
    'vfio_pci_core.c msix_mmappable_cap',
    on('nvme', (t, { device }) => {
      const short = region(t, device, 0, 32).fields;
      t.same(
        'argsz 32',
        { argsz: short.argsz, flags: short.flags, cap_offset: short.cap_offset },
        { argsz: 40, flags: 15, cap_offset: 0 },
      );
      const { fields, bytes } = region(t, device, 0, 48);
      t.same(
        'argsz 48',
        { argsz: fields.argsz, flags: fields.flags, cap_offset: fields.cap_offset },
        { argsz: 48, flags: 15, cap_offset: 32 },
      );
      t.same(
        'the capability',
        bytes.slice(32, 40),
        Uint8Array.of(u.VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, 0, 1, 0, 0, 0, 0, 0),
      );
    }),
  );
  add(
    'config space: 256 bytes of a conventional device',
    branch,
    on('edu', (t, { device }) => {
      t.same('it', shown(region(t, device, 7)), { flags: 3, size: 256n, offset: 7n * 2n ** 40n });
    }),
  );
  add(
    'config space: 4096 bytes of an Express device',
    branch,
    on('nvme', (t, { device }) => {
      t.same('it', shown(region(t, device, 7)), { flags: 3, size: 4096n, offset: 7n * 2n ** 40n });
    }),
  );
  add(
    'a ROM that is not there',
    branch,
    on('edu', (t, { device }) => {
      t.same('it', shown(region(t, device, 6)), { flags: 0, size: 0n, offset: 6n * 2n ** 40n });
    }),
  );
  add(
    'VGA of what is no VGA is EINVAL',
    branch,
    on('edu', (t, { device }) => {
      t.result('it', region(t, device, 8).result, 'EINVAL');
    }),
  );
  add(
    'EINVAL: no such region',
    branch,
    on('edu', (t, { device }) => {
      for (const index of [9, 10, 0xffff_ffff]) t.result(`${index}`, region(t, device, index).result, 'EINVAL');
    }),
  );
});

suite('GET_IRQ_INFO', { needs: ['type1'], source: PCI }, (add) => {
  const branch = 'vfio_pci_ioctl_get_irq_info';
  const on = (model, run) => async (t) => run(t, owned(model)(t));
  const shown = ({ fields: { flags, count } }) => ({ flags, count });
  const dynamic = (t) => (t.has('x86') ? 1 : 9);
  add(
    'EFAULT, EINVAL: argsz below 16, an index beyond REQ',
    branch,
    on('edu', (t, { device }) => {
      t.result('null', t.kernel.ioctl(device, u.VFIO_DEVICE_GET_IRQ_INFO, 0n), 'EFAULT');
      t.result('15', irq(t, device, 0, 15).result, 'EINVAL');
      t.result('index 5', irq(t, device, 5).result, 'EINVAL');
    }),
  );
  add(
    'INTx: one, by eventfd, maskable, masks itself',
    branch,
    on('edu', (t, { device }) => {
      t.same('it', shown(irq(t, device, 0)), { flags: 7, count: 1 });
    }),
  );
  add(
    'MSI: as many as the capability says',
    'vfio_pci_get_irq_count',
    on('edu', (t, { device }) => {
      t.same('it', shown(irq(t, device, 1)), { flags: 9, count: 1 });
    }),
  );
  add(
    'MSI of a device without: none',
    'vfio_pci_get_irq_count',
    on('nvme', (t, { device }) => {
      t.same('it', shown(irq(t, device, 1)), { flags: 9, count: 0 });
    }),
  );
  add(
    'MSI-X: may grow on x86, not on Arm',
    'vfio_pci_ioctl_get_irq_info',
    on('nvme', (t, { device }) => {
      t.same('it', shown(irq(t, device, 2)), { flags: dynamic(t), count: 65 });
    }),
  );
  add(
    'ERR: of an Express device only',
    branch,
    on('nvme', (t, { device }) => {
      t.same('nvme', shown(irq(t, device, 3)), { flags: 9, count: 1 });
    }),
  );
  add(
    'ERR of a conventional device is EINVAL',
    branch,
    on('edu', (t, { device }) => {
      t.result('edu', irq(t, device, 3).result, 'EINVAL');
    }),
  );
  add(
    'REQ: one',
    branch,
    on('edu', (t, { device }) => {
      t.same('it', shown(irq(t, device, 4)), { flags: 9, count: 1 });
    }),
  );
});

suite('DEVICE_FEATURE', { needs: ['type1'], source: MAIN, fixture: owned('nvme') }, (add) => {
  const { VFIO_DEVICE_FEATURE_GET: GET, VFIO_DEVICE_FEATURE_SET: SET, VFIO_DEVICE_FEATURE_PROBE: PROBE } = u;
  const feature = (t, device, flags, argsz = 8) => {
    const bytes = new Uint8Array(64);
    u.vfio_device_feature.patch(bytes, { argsz, flags });
    return t.kernel.ioctl(device, u.VFIO_DEVICE_FEATURE, bytes);
  };
  const branch = 'vfio_ioctl_device_feature';
  add('EFAULT, EINVAL: argsz below 8', branch, (t, { device }) => {
    t.result('null', t.kernel.ioctl(device, u.VFIO_DEVICE_FEATURE, 0n), 'EFAULT');
    t.result('7', feature(t, device, PROBE | 3, 7), 'EINVAL');
  });
  add('EINVAL: an unknown flag', branch, (t, { device }) => {
    t.result('bit 20', feature(t, device, PROBE | (1 << 20) | 3), 'EINVAL');
  });
  add('EINVAL: GET and SET at once, unless it probes', branch, (t, { device }) => {
    t.result('GET SET', feature(t, device, GET | SET | 3), 'EINVAL');
  });
  add('a feature of nobody is ENOTTY', 'vfio_pci_core.c vfio_pci_core_ioctl_feature', (t, { device }) => {
    t.result('0xbe11', feature(t, device, PROBE | 0xbe11), 'ENOTTY');
    t.result('13', feature(t, device, PROBE | 13), 'ENOTTY');
  });
  add(
    'without migration: MIGRATION and MIG_DEVICE_STATE are ENOTTY',
    'vfio_ioctl_device_feature_migration',
    (t, { device }) => {
      for (const id of [1, 2, 9]) t.result(`${id}`, feature(t, device, PROBE | GET | id), 'ENOTTY');
    },
  );
  add('without logging: DMA_LOGGING is ENOTTY', 'vfio_ioctl_device_feature_logging_start', (t, { device }) => {
    for (const id of [6, 7, 8]) t.result(`${id}`, feature(t, device, PROBE | id), 'ENOTTY');
  });
  add('VF_TOKEN of a device without VFs is ENOTTY', 'vfio_pci_core.c vfio_pci_core_feature_token', (t, { device }) => {
    t.result('PROBE SET', feature(t, device, PROBE | SET | 0), 'ENOTTY');
  });
  add('LOW_POWER: probed by SET only', 'vfio_check_feature', (t, { device }) => {
    for (const id of [3, 4, 5]) {
      t.result(`${id}: PROBE SET`, feature(t, device, PROBE | SET | id), 0);
      t.result(`${id}: PROBE GET`, feature(t, device, PROBE | GET | id), 'EINVAL');
    }
  });
  add('an operation is needed', 'vfio_check_feature', (t, { device }) => {
    t.result('none', feature(t, device, 3), 'EINVAL');
    t.result('only PROBE', feature(t, device, PROBE | 3), 0);
  });
  add('LOW_POWER_EXIT without an entry is fine', 'vfio_pci_core.c vfio_pci_core_pm_exit', (t, { device }) => {
    t.result('exit', feature(t, device, SET | 5), 0);
  });
  add('LOW_POWER_ENTRY twice is EINVAL', 'vfio_pci_core.c vfio_pci_runtime_pm_entry', (t, { device }) => {
    t.result('entry', feature(t, device, SET | 3), 0);
    t.result('again', feature(t, device, SET | 3), 'EINVAL');
    t.result('exit', feature(t, device, SET | 5), 0);
  });
});

suite('hot reset', { needs: ['type1'], source: PCI, fixture: owned('nvme') }, (add) => {
  const hot = (t, device, request, argsz, flags = 0, count = 0) => {
    const bytes = new Uint8Array(128);
    new Uint32Array(bytes.buffer).set([argsz, flags, count]);
    return t.kernel.ioctl(device, request, bytes);
  };
  add(
    'of a device on the root bus: there is none, ENODEV',
    'vfio_pci_ioctl_get_pci_hot_reset_info',
    (t, { device }) => {
      t.result('argsz 11', hot(t, device, u.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, 11), 'EINVAL');
      t.result('info', hot(t, device, u.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, 12), 'ENODEV');
    },
  );
  add(
    'PCI_HOT_RESET: EINVAL flags, EINVAL no groups, before ENODEV',
    'vfio_pci_ioctl_pci_hot_reset',
    (t, { device }) => {
      t.result('argsz 11', hot(t, device, u.VFIO_DEVICE_PCI_HOT_RESET, 11), 'EINVAL');
      t.result('flags', hot(t, device, u.VFIO_DEVICE_PCI_HOT_RESET, 12, 1), 'EINVAL');
    },
  );
});
