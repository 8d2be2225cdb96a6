/** The gsi routing table of a VM (virt/kvm/irqchip.c): replaced as a whole, read by every irqfd. */
import type { UserMemory } from '../../ports/process.ts';
import {
  KVM_IRQ_ROUTING_IRQCHIP,
  KVM_IRQ_ROUTING_MSI,
  KVM_MSI_VALID_DEVID,
  kvm_irq_routing,
  kvm_irq_routing_entry,
} from '../../uapi/kvm.ts';
import type { RefusalLog } from '../refusal.ts';
import type { GuestIrqchip } from './irqchip.ts';

/** KVM_MAX_IRQ_ROUTES: entries of a table, and the first gsi that cannot be. */
export const KVM_MAX_IRQ_ROUTES = 4096;

/** One entry. Halves are signed; `pin` and `irqchip` are those of an IRQCHIP entry. */
export interface RoutingEntry {
  readonly gsi: number;
  readonly type: number;
  readonly flags: number;
  readonly addressLo: number;
  readonly addressHi: number;
  readonly data: number;
  readonly devid: number;
  readonly irqchip: number;
  readonly pin: number;
}

export type RoutingTable = ReadonlyMap<number, readonly RoutingEntry[]>;

export const pinEntry = (gsi: number, irqchip: number, pin: number): RoutingEntry => ({
  gsi,
  type: KVM_IRQ_ROUTING_IRQCHIP,
  flags: 0,
  addressLo: 0,
  addressHi: 0,
  data: 0,
  devid: 0,
  irqchip,
  pin,
});

export const msiEntry = (gsi: number, address: number, data: number, devid: number | null): RoutingEntry => ({
  gsi,
  type: KVM_IRQ_ROUTING_MSI,
  flags: devid === null ? 0 : KVM_MSI_VALID_DEVID,
  addressLo: address | 0,
  addressHi: (address / 4294967296) | 0,
  data: data | 0,
  devid: devid ?? 0,
  irqchip: 0,
  pin: 0,
});

/**
 * KVM_SET_GSI_ROUTING from user memory, in Linux's order: EFAULT, EINVAL without an irqchip, too many, flags; then each entry. MSI
 * addresses are not looked at: they fail when they are used. The new table, or -errno with the old one still in force.
 */
export function readRouting(
  memory: UserMemory,
  address: number,
  irqchip: GuestIrqchip | null,
  refusals: RefusalLog,
): RoutingTable | number {
  const header = new Uint8Array(kvm_irq_routing.size);
  if (!memory.copyIn(address, header))
    return refusals.refuse('EFAULT', 'the routing header is not readable', 'argument');
  const { nr, flags } = kvm_irq_routing.read(header);
  if (irqchip === null) {
    return refusals.refuse('EINVAL', 'the VM has no in-kernel interrupt controller to route to');
  }
  if (nr > KVM_MAX_IRQ_ROUTES) {
    return refusals.refuse('EINVAL', `${nr} entries are more than ${KVM_MAX_IRQ_ROUTES}`, 'nr');
  }
  if (flags !== 0) return refusals.refuse('EINVAL', `flags ${flags} must be 0`, 'flags');
  const bytes = new Uint8Array(nr * kvm_irq_routing_entry.size);
  if (nr > 0 && !memory.copyIn(address + kvm_irq_routing.size, bytes)) {
    return refusals.refuse('EFAULT', `${nr} routing entries are not readable`, 'entries');
  }
  return parseEntries(bytes, nr, irqchip, refusals);
}

function parseEntries(
  bytes: Uint8Array,
  nr: number,
  irqchip: GuestIrqchip,
  refusals: RefusalLog,
): RoutingTable | number {
  const raw = Array.from({ length: nr }, (_, i) => kvm_irq_routing_entry.read(bytes, i * kvm_irq_routing_entry.size));
  const beyond = raw.find((entry) => entry.gsi >= KVM_MAX_IRQ_ROUTES);
  if (beyond !== undefined) {
    return refusals.refuse('EINVAL', `gsi ${beyond.gsi} is not below ${KVM_MAX_IRQ_ROUTES}`, 'gsi');
  }
  const table = new Map<number, RoutingEntry[]>();
  for (const { gsi, type, flags, u } of raw) {
    const allowed = type === KVM_IRQ_ROUTING_MSI ? KVM_MSI_VALID_DEVID : 0;
    if ((flags & ~allowed) !== 0) {
      return refusals.refuse('EINVAL', `gsi ${gsi}: flags ${flags} of an entry of type ${type}`, 'flags');
    }
    const others = table.get(gsi) ?? [];
    const clash = others.some(
      (other) =>
        type !== KVM_IRQ_ROUTING_IRQCHIP ||
        other.type !== KVM_IRQ_ROUTING_IRQCHIP ||
        other.irqchip === u.irqchip.irqchip,
    );
    if (clash)
      return refusals.refuse('EINVAL', `gsi ${gsi} has two entries that are not pins of distinct irqchips`, 'gsi');
    if (type === KVM_IRQ_ROUTING_IRQCHIP) {
      const { irqchip: chip, pin } = u.irqchip;
      if (!irqchip.hasPin(chip, pin)) {
        return refusals.refuse('EINVAL', `gsi ${gsi}: ${irqchip.name} has no pin ${pin} on irqchip ${chip}`, 'pin');
      }
      table.set(gsi, [...others, pinEntry(gsi, chip, pin)]);
    } else if (type === KVM_IRQ_ROUTING_MSI) {
      const { address_lo, address_hi, data, devid } = u.msi;
      const address = { addressLo: address_lo | 0, addressHi: address_hi | 0 };
      table.set(gsi, [{ ...pinEntry(gsi, 0, 0), type, flags, ...address, data: data | 0, devid: devid | 0 }]);
    } else {
      return refusals.refuse('EINVAL', `gsi ${gsi}: unknown entry type ${type}`, 'type');
    }
  }
  return table;
}

/** What an irqfd keeps of the table: its gsi's entry, or null unless there is exactly one (never injected atomically then). */
export function soleEntry(table: RoutingTable, gsi: number): RoutingEntry | null {
  const entries = table.get(gsi);
  return entries?.length === 1 ? entries[0] : null;
}
