/** /sys/module: the modules of VFIO, by which programs tell that it is there (DPDK does), and parameters that can be set while the kernel runs. */
import type { ModuleParameters } from '../context.ts';
import type { RefusalLog } from '../refusal.ts';
import { attribute, control, type DirectoryNode, directory, link, type TreeNode } from './node.ts';

/** What a module that is loaded shows (kernel/module/main.c show_initstate). */
const LOADED = { initstate: attribute(() => 'live') };

/** The drivers that a module has registered (drivers/base/module.c): driverctl goes this way. */
const DRIVERS: Readonly<Record<string, Record<string, TreeNode>>> = {
  vfio_pci: { drivers: directory(() => ({ 'pci:vfio-pci': link('../../../bus/pci/drivers/vfio-pci') })) },
};

export function modulesDirectory(modules: ModuleParameters, refusals: RefusalLog): DirectoryNode {
  const nodes = new Map<string, TreeNode>(
    Object.entries(modules).map(([name, parameters]: [string, Record<string, boolean | number>]) => {
      const entries = new Map(Object.keys(parameters).map((key) => [key, parameter(parameters, key, refusals)]));
      return [name, directory(() => ({ ...LOADED, ...DRIVERS[name], parameters: directory(() => entries) }))];
    }),
  );
  nodes.set(
    'vfio',
    directory(() => ({ ...LOADED, parameters: directory(() => noIommu(refusals)) })),
  );
  nodes.set(
    'vfio_pci_core',
    directory(() => LOADED),
  );
  return directory(() => nodes);
}

/** As with CONFIG_VFIO_NOIOMMU, which Debian's kernels have: it is off. DPDK's tools read it before they bind a device. */
const noIommu = (refusals: RefusalLog): Record<string, TreeNode> => ({
  enable_unsafe_noiommu_mode: control(
    () => 'N',
    (_process, text) =>
      parseBool(text.trim()) === false
        ? 0
        : refusals.refuse('EINVAL', 'devices without an IOMMU cannot be used here: that mode is not built'),
  ),
});

function parameter(parameters: Record<string, boolean | number>, key: string, refusals: RefusalLog): TreeNode {
  const show = (): string => {
    const value = parameters[key];
    return typeof value === 'number' ? String(value) : value ? 'Y' : 'N';
  };
  return control(show, (_process, text) => {
    const parsed = typeof parameters[key] === 'number' ? parseNumber(text.trim()) : parseBool(text.trim());
    if (parsed === null) return refusals.refuse('EINVAL', `${JSON.stringify(text)} is no value for ${key}`);
    parameters[key] = parsed;
    return 0;
  });
}

/** kstrtobool. */
function parseBool(text: string): boolean | null {
  if (/^([y1t]|on)/i.test(text)) return true;
  return /^([n0f]|of)/i.test(text) ? false : null;
}

/** kstrtouint with base 0, for decimal and hexadecimal. */
function parseNumber(text: string): number | null {
  const value = /^(0x[0-9a-f]+|[0-9]+)$/i.test(text) ? Number(text) : Number.NaN;
  return value <= 0xffff_ffff ? value : null;
}
