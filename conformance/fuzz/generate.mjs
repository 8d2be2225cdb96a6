/** Programs: a beginning that most programs share, then calls of what it made and of everything near it. */
import fc from 'fast-check';
import { deviceCalls } from './device.mjs';
import { cdevCalls, contextCalls, hwptCalls, ioasCalls, nestingCalls } from './iommufd.mjs';
import { containerCalls, groupCalls } from './type1.mjs';
import { weighted } from './values.mjs';

const open = (as, path) => ({ op: 'open', as, path });
const ioctl = (fd, request, more) => ({ op: 'ioctl', fd, request, ...more });

/** A container of type1 with the group in it, and the device. */
const owned = (model, container, iommu) => [
  open(container, container === 'i0' ? 'iommufd' : 'container'),
  open(`g-${model}`, `group ${model}`),
  ...(container === 'i0'
    ? [
        ioas,
        ioctl('i0', 'IOMMU_VFIO_IOAS', {
          struct: 'iommu_vfio_ioas',
          fields: { size: 12, ioas_id: 'id ioas 0', op: 1 },
        }),
      ]
    : []),
  ioctl(`g-${model}`, 'VFIO_GROUP_SET_CONTAINER', { tail: [`fd ${container}`] }),
  ioctl(container, 'VFIO_SET_IOMMU', { value: iommu }),
  ioctl(`g-${model}`, 'VFIO_GROUP_GET_DEVICE_FD', { tail: [`name ${model}`], as: `d-${model}` }),
];
const ioas = ioctl('i0', 'IOMMU_IOAS_ALLOC', {
  struct: 'iommu_ioas_alloc',
  fields: { size: 12 },
  keep: ['ioas', 'out_ioas_id'],
});
/** A cdev that is bound to a context with an IOAS. */
const bound = (model) => [
  open('i0', 'iommufd'),
  open(`d-${model}`, `cdev ${model}`),
  ioctl(`d-${model}`, 'VFIO_DEVICE_BIND_IOMMUFD', {
    struct: 'vfio_device_bind_iommufd',
    fields: { argsz: 16, iommufd: 'fd i0' },
    keep: ['dev', 'out_devid'],
  }),
  ioas,
];
const attached = (model) => [
  ...bound(model),
  ioctl(`d-${model}`, 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', {
    struct: 'vfio_device_attach_iommufd_pt',
    fields: { argsz: 12, pt_id: 'id ioas 0' },
    keep: ['hwpt', 'pt_id'],
  }),
];
/** A virtual IOMMU over a nest parent. */
const nested = (model) => [
  ...bound(model),
  ioctl('i0', 'IOMMU_HWPT_ALLOC', {
    struct: 'iommu_hwpt_alloc',
    fields: { size: 48, flags: 1, dev_id: 'id dev 0', pt_id: 'id ioas 0' },
    keep: ['hwpt', 'out_hwpt_id'],
  }),
  ioctl('i0', 'IOMMU_VIOMMU_ALLOC', {
    struct: 'iommu_viommu_alloc',
    fields: { size: 40, type: 1, dev_id: 'id dev 0', hwpt_id: 'id hwpt 0' },
    keep: ['viommu', 'out_viommu_id'],
  }),
];

/** @param platform of platforms.mjs. @param most calls behind the beginning */
export function programs({ window, features }, { most = 40 } = {}) {
  const has = (feature) => features.includes(feature);
  const scaled = (factor, calls) => calls.map(([weight, each]) => [weight * factor, each]);
  const legacy = (model) => [
    ...scaled(2, groupCalls(model)),
    ...scaled(4, containerCalls(window)),
    ...scaled(3, deviceCalls(model)),
  ];
  const modern = (model) => [
    ...scaled(1, contextCalls),
    ...scaled(2, ioasCalls(window)),
    ...scaled(5, cdevCalls(model)),
    ...scaled(4, hwptCalls(window)),
    ...deviceCalls(model).map(([weight, each]) => [weight / 4, each]),
    ...(has('nesting') ? scaled(8, nestingCalls()) : scaled(1, nestingCalls())),
  ];
  const body = (calls) => fc.array(weighted(...calls), { minLength: 5, maxLength: most, size: 'max' });
  const from = (start, calls) => body(calls).map((rest) => [...start, ...rest]);
  const of = (model) =>
    weighted(
      [6, from(owned(model, 'c0', 3), legacy(model))],
      [2, from(owned(model, 'c0', 1), legacy(model))],
      [2, from(owned(model, 'i0', 3), [...legacy(model), ...ioasCalls(window)])],
      [1, from([], [...legacy(model), ...modern(model)])],
      [3, from(bound(model), modern(model))],
      [6, from(attached(model), modern(model))],
      [has('nesting') ? 12 : 1, from(nested(model), [...modern(model), ...scaled(4, nestingCalls())])],
    );
  return weighted(
    [10, of('edu')],
    [2, of('nvme')],
    [2, of('igb')],
    [4, from([open('i0', 'iommufd'), ioas, ioas], [...contextCalls, ...scaled(3, ioasCalls(window))])],
  );
}

/**
 * @returns programs of at least `calls` calls together. Those of cdevs come last: interrupts of a device that is attached to nothing leave an event of the ITS
 * taken for ever (irq-gic-v3-its.c its_irq_domain_alloc), and whoever comes next has none.
 */
export function generate(platform, { seed, calls, most }) {
  const arbitrary = programs(platform, { most });
  const made = [];
  let count = 0;
  for (let batch = 0; count < calls; batch++) {
    for (const program of fc.sample(fc.noBias(arbitrary), { seed: seed + batch, numRuns: 100 })) {
      if (count >= calls) break;
      made.push(program);
      count += program.length;
    }
  }
  const last = (program) => Number(program.some(({ path }) => path?.startsWith('cdev')));
  return made.sort((a, b) => last(a) - last(b));
}
