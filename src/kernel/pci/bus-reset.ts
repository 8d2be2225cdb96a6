/** Reset of everything below a bridge: drivers/pci/pci.c pci_reset_bus. Slots that a hot-plug driver could reset do not exist here. */
import { Command, Header } from '../../arch/pci/index.ts';
import { ERRNO } from '../../uapi/errno.ts';
import type { PciDevice } from './pci-device.ts';
import { secondaryBusReset } from './reset.ts';

/** pci_walk_bus over the bus that `dev` is on: each function, what is below it right behind it. */
export function busMembers(dev: PciDevice, all: readonly PciDevice[]): PciDevice[] {
  const below = (bridge: PciDevice | null): PciDevice[] =>
    all.filter((each) => each.parent === bridge).flatMap((each) => (each.isBridge ? [each, ...below(each)] : [each]));
  return below(dev.parent);
}

/** pci_probe_reset_bus: a root bus has no bridge that could reset it. */
export const canResetBus = (dev: PciDevice): boolean => dev.parent !== null;

/**
 * pci_reset_bus: 0, -ENOTTY on a root bus, -EAGAIN while a function's lock is held. Every function below is saved, silenced, reset and restored, bridges
 * before what is behind them.
 */
export function resetBus(dev: PciDevice, all: readonly PciDevice[]): number {
  if (dev.parent === null) return -ERRNO.ENOTTY;
  const members = busMembers(dev, all);
  if (members.some((each) => each.locked)) return -ERRNO.EAGAIN;
  const saved = members.map((each) => {
    each.setPowerState(0);
    const state = each.saveState();
    each.configWrite(Header.COMMAND, 2, Command.INTX_DISABLE);
    return state;
  });
  secondaryBusReset(dev.parent);
  for (const [i, each] of members.entries()) each.restoreState(saved[i]);
  return 0;
}
