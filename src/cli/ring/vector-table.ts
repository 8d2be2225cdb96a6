/** A device's vectors twice: as the guest wrote them, and as the hardware holds them, read back over the bus. */
import {
  CapabilityId,
  MSIX_BAR_MASK,
  Msi,
  MsiFlags,
  Msix,
  MsixEntry,
  msiDataOffset,
  msixVectors,
} from '../../arch/pci/index.ts';
import { NestedDomain } from '../../kernel/iommu/nested-domain.ts';
import type { PciDevice } from '../../kernel/pci/pci-device.ts';
import type { RingSession } from './session.ts';

/** A message: where it goes and what it carries. */
export interface Message {
  readonly address: number;
  readonly data: number;
}

/** A doorbell as the IOMMU's tables map it: `users` vectors hold its IOVA. */
export interface Doorbell {
  readonly iova: number;
  /** What the VMM's stage 1 makes of it, where there is one. */
  readonly ipa: number | null;
  readonly pa: number;
  readonly users: number;
}

type Read = (offset: number, size: number) => number;

/** Vectors that are listed one by one. */
export function guestMessages(session: RingSession, count: number): Message[] {
  return session.interrupts.interrupts.slice(0, count).map(({ message }) => message);
}

/** What the function's own registers hold, by vector; MSI's one message, counted up, for every vector. */
export function hardwareMessages(session: RingSession): Message[] {
  const dev = session.host.pciDevices.find(({ name }) => name === session.name) as PciDevice;
  const config: Read = (offset, size) => dev.configRead(offset, size);
  return session.kind === 'msix'
    ? msixMessages(session, dev)
    : msiMessages(config, dev.capability(CapabilityId.MSI), session.granted);
}

/** The pages that the vectors' addresses lie in, translated by the VMM's stage 1 and the device's domain; none where nothing translates. */
export function doorbells(session: RingSession): Doorbell[] {
  const dev = session.host.pciDevices.find(({ name }) => name === session.name) as PciDevice;
  const attached = dev.iommuGroup?.domain ?? null;
  const domain = attached instanceof NestedDomain ? attached.parent : attached;
  const { nested } = session.assignment;
  const granule = Math.max(session.host.context.pageSize, domain?.pageSizes[0] ?? 0);
  const users = new Map<number, number>();
  for (const { address } of hardwareMessages(session)) {
    const page = address - (address % granule);
    users.set(page, (users.get(page) ?? 0) + 1);
  }
  const found: Doorbell[] = [];
  for (const [iova, count] of users) {
    const ipa = nested === null ? null : nested.lookup(iova);
    const input = nested === null ? iova : ipa;
    const pa = input === null ? -1 : (domain?.lookup(input) ?? -1);
    if (pa >= 0) found.push({ iova, ipa, pa, users: count });
  }
  return found;
}

function msixMessages(session: RingSession, dev: PciDevice): Message[] {
  const { bus } = session.host.machine;
  const capability = dev.capability(CapabilityId.MSIX);
  const where = dev.configRead(capability + Msix.TABLE, 4);
  const table = dev.resources[where & MSIX_BAR_MASK]!.base + ((where & ~MSIX_BAR_MASK) >>> 0);
  const messages: Message[] = [];
  for (let i = 0; i < msixVectors(dev.configRead(capability + Msix.FLAGS, 2)); i++) {
    const at = table + i * MsixEntry.SIZE;
    const address =
      (bus.read32(at + MsixEntry.ADDRESS_HI) >>> 0) * 2 ** 32 + (bus.read32(at + MsixEntry.ADDRESS_LO) >>> 0);
    if (address !== 0) messages.push({ address, data: bus.read32(at + MsixEntry.DATA) >>> 0 });
  }
  return messages;
}

function msiMessages(config: Read, at: number, count: number): Message[] {
  const flags = config(at + Msi.FLAGS, 2);
  const high = (flags & MsiFlags.ADDRESS_64) !== 0 ? config(at + Msi.ADDRESS_HI, 4) >>> 0 : 0;
  const address = high * 2 ** 32 + (config(at + Msi.ADDRESS_LO, 4) >>> 0);
  const data = config(at + msiDataOffset(flags), 2);
  return Array.from({ length: count }, (_, vector) => ({ address, data: data | vector }));
}
