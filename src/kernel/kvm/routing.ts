/** The gsi routing table of a VM (virt/kvm/irqchip.c): replaced as a whole, read by every irqfd. */
import type { UserMemory } from '../../ports/process.ts';
import {
  KVM_IRQ_ROUTING_IRQCHIP,
  KVM_IRQ_ROUTING_MSI,
  KVM_MSI_VALID_DEVID,
  kvm_irq_routing,
  kvm_irq_routing_entry,
  kvm_irq_routing_irqchip,
  kvm_irq_routing_msi,
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

const AT = {
  gsi: kvm_irq_routing_entry.offsetOf('gsi'),
  type: kvm_irq_routing_entry.offsetOf('type'),
  flags: kvm_irq_routing_entry.offsetOf('flags'),
  u: kvm_irq_routing_entry.offsetOf('u'),
};
const OF_MSI = {
  addressLo: kvm_irq_routing_msi.offsetOf('address_lo'),
  addressHi: kvm_irq_routing_msi.offsetOf('address_hi'),
  data: kvm_irq_routing_msi.offsetOf('data'),
  devid: kvm_irq_routing_msi.offsetOf('devid'),
};
const OF_PIN = kvm_irq_routing_irqchip.offsetOf('pin');

/** Reads by offset: a VMM gives the table anew with each change of a vector. */
function parseEntries(
  bytes: Uint8Array,
  nr: number,
  irqchip: GuestIrqchip,
  refusals: RefusalLog,
): RoutingTable | number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { size } = kvm_irq_routing_entry;
  for (let i = 0; i < nr; i += 1) {
    const gsi = view.getUint32(i * size + AT.gsi, true);
    if (gsi < KVM_MAX_IRQ_ROUTES) continue;
    return refusals.refuse('EINVAL', `gsi ${gsi} is not below ${KVM_MAX_IRQ_ROUTES}`, 'gsi');
  }
  const table = new Map<number, readonly RoutingEntry[]>();
  for (let i = 0; i < nr; i += 1) {
    const entry = parseEntry(view, i * size, table, irqchip, refusals);
    if (typeof entry === 'number') return entry;
    const others = table.get(entry.gsi);
    table.set(entry.gsi, others === undefined ? [entry] : [...others, entry]);
  }
  return table;
}

/** kvm_set_irq_routing and setup_routing_entry for one entry, in their order. */
function parseEntry(
  view: DataView,
  at: number,
  table: RoutingTable,
  irqchip: GuestIrqchip,
  refusals: RefusalLog,
): RoutingEntry | number {
  const gsi = view.getUint32(at + AT.gsi, true);
  const type = view.getUint32(at + AT.type, true);
  const flags = view.getUint32(at + AT.flags, true);
  const u = at + AT.u;
  const chip = view.getUint32(u, true);
  const allowed = type === KVM_IRQ_ROUTING_MSI ? KVM_MSI_VALID_DEVID : 0;
  if ((flags & ~allowed) !== 0) {
    return refusals.refuse('EINVAL', `gsi ${gsi}: flags ${flags} of an entry of type ${type}`, 'flags');
  }
  const pins = type === KVM_IRQ_ROUTING_IRQCHIP;
  const others = table.get(gsi) ?? [];
  if (others.some((other) => !pins || other.type !== KVM_IRQ_ROUTING_IRQCHIP || other.irqchip === chip)) {
    return refusals.refuse('EINVAL', `gsi ${gsi} has two entries that are not pins of distinct irqchips`, 'gsi');
  }
  if (pins) {
    const pin = view.getUint32(u + OF_PIN, true);
    if (irqchip.hasPin(chip, pin)) return pinEntry(gsi, chip, pin);
    return refusals.refuse('EINVAL', `gsi ${gsi}: ${irqchip.name} has no pin ${pin} on irqchip ${chip}`, 'pin');
  }
  if (type !== KVM_IRQ_ROUTING_MSI) return refusals.refuse('EINVAL', `gsi ${gsi}: unknown entry type ${type}`, 'type');
  return {
    gsi,
    type,
    flags,
    addressLo: view.getInt32(u + OF_MSI.addressLo, true),
    addressHi: view.getInt32(u + OF_MSI.addressHi, true),
    data: view.getInt32(u + OF_MSI.data, true),
    devid: view.getInt32(u + OF_MSI.devid, true),
    irqchip: 0,
    pin: 0,
  };
}

/** What an irqfd keeps of the table: its gsi's entry, or null unless there is exactly one (never injected atomically then). */
export function soleEntry(table: RoutingTable, gsi: number): RoutingEntry | null {
  const entries = table.get(gsi);
  return entries?.length === 1 ? entries[0] : null;
}
