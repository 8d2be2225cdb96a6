/** /sys/devices and /sys/bus/pci: devices in their tree, and the drivers' bind, unbind, new_id. */
import type { PciDev } from '../pci/pci-dev.ts';
import type { Process } from '../process.ts';
import { control, type DirectoryNode, directory, link, type TreeNode } from './node.ts';
import { devicePath, linkToDevice } from './paths.ts';
import { type PciDirectoryContext, pciDirectory } from './pci-device.ts';

/** /sys/devices: a directory for each root bus, with its devices and what is behind its bridges. */
export function devicesDirectory(context: PciDirectoryContext): DirectoryNode {
  const children = (parent: PciDev | null, root: string): ReadonlyMap<string, TreeNode> =>
    new Map(
      context.core.devices
        .filter((dev) => dev.parent === parent && devicePath(dev)[0] === root)
        .map((dev) => [dev.name, pciDirectory(dev, context, () => children(dev, root))]),
    );
  return directory(() => {
    const roots = new Set(context.core.devices.map((dev) => devicePath(dev)[0]));
    return new Map([...roots].map((root) => [root, directory(() => children(null, root))]));
  });
}

/** /sys/bus/pci. */
export function pciBusDirectory(context: PciDirectoryContext): DirectoryNode {
  const { core } = context;
  const devices = directory(() => new Map(core.devices.map((dev) => [dev.name, link(linkToDevice(3, dev))])));
  const drivers = directory(() => new Map(core.drivers.map((name) => [name, driverDirectory(name, context)])));
  const probe = control(null, (_process, text) => {
    const dev = named(context, text);
    return typeof dev === 'number' ? dev : core.probe(dev);
  });
  return directory(() => ({ devices, drivers, drivers_probe: probe }));
}

function driverDirectory(name: string, context: PciDirectoryContext): DirectoryNode {
  const { core } = context;
  const onDevice = (act: (dev: PciDev) => number) => (_process: Process, text: string) => {
    const dev = named(context, text);
    return typeof dev === 'number' ? dev : act(dev);
  };
  const onIds = (act: (vendor: number, device: number) => number) => (_process: Process, text: string) => {
    // sscanf's %x, which takes a number with its 0x too: driverctl writes them so.
    const ids = /^\s*(?:0x)?([0-9a-f]{1,8})\s+(?:0x)?([0-9a-f]{1,8})\b/i.exec(text);
    if (ids === null)
      return context.refusals.refuse('EINVAL', `${JSON.stringify(text)} does not begin with a vendor and a device id`);
    return act(Number.parseInt(ids[1], 16), Number.parseInt(ids[2], 16));
  };
  const controls: Record<string, TreeNode> = {
    bind: control(
      null,
      onDevice((dev) => core.bind(dev, name)),
    ),
    unbind: control(
      null,
      onDevice((dev) => core.unbind(dev, name)),
    ),
    new_id: control(
      null,
      onIds((vendor, device) => core.newId(name, vendor, device)),
    ),
    remove_id: control(
      null,
      onIds((vendor, device) => core.removeId(name, vendor, device)),
    ),
  };
  return directory(() => {
    const entries = new Map(Object.entries(controls));
    if (name === 'vfio-pci') entries.set('module', link('../../../../module/vfio_pci'));
    for (const dev of core.devices) if (dev.driver === name) entries.set(dev.name, link(linkToDevice(4, dev)));
    return entries;
  });
}

/** The device that a write names, or -ENODEV. */
function named(context: PciDirectoryContext, text: string): PciDev | number {
  const name = text.trim();
  const dev = context.core.devices.find((candidate) => candidate.name === name);
  return dev ?? context.refusals.refuse('ENODEV', `there is no PCI device ${JSON.stringify(name)}`);
}
