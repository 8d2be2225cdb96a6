/** The messages that a real kernel programmed: MSI's by sysfs, MSI-X's by the mapped table. What VFIO's own files show is the owner's copy. */
import {
  CapabilityId,
  capabilities,
  MSIX_BAR_MASK,
  Msi,
  MsiFlags,
  Msix,
  MsixEntry,
  msiDataOffset,
} from '../../arch/pci/index.ts';
import type { Kernel } from '../../ports/kernel.ts';
import type { Device } from '../../vfio/index.ts';
import type { Message } from './vector-table.ts';

/** The messages of the first `count` vectors, and where they were read; or why they cannot be. */
export interface Messages {
  readonly from: string;
  readonly messages: readonly Message[];
}

const CONFIG_BYTES = 256;
const HEADER_BYTES = 64;

export function programmedMessages(device: Device, kind: 'msi' | 'msix', count: number): Messages {
  return kind === 'msix' ? byTable(device, count) : bySysfs(device.kernel, device.name, count);
}

function byTable(device: Device, count: number): Messages {
  const { config, kernel } = device;
  const capability = config.find(CapabilityId.MSIX) ?? 0;
  const where = config.read32(capability + Msix.TABLE);
  const at = (where & ~MSIX_BAR_MASK) >>> 0;
  const bar = device.bar(where & MSIX_BAR_MASK);
  const start = at - (at % kernel.pageSize);
  const end = Math.min(bar.size, Math.ceil((at + count * MsixEntry.SIZE) / kernel.pageSize) * kernel.pageSize);
  const from = `BAR ${where & MSIX_BAR_MASK}`;
  if (!bar.info.mappable) return { from: `${from} cannot be mapped`, messages: [] };
  const mapping = bar.map(start, end - start);
  const messages = Array.from({ length: count }, (_, vector) => {
    const entry = at - start + vector * MsixEntry.SIZE;
    const address =
      mapping.read32(entry + MsixEntry.ADDRESS_HI) * 2 ** 32 + mapping.read32(entry + MsixEntry.ADDRESS_LO);
    return { address, data: mapping.read32(entry + MsixEntry.DATA) };
  });
  mapping.close();
  return { from: `the table in ${from}`, messages };
}

/** Only root is shown more than the header. */
function bySysfs(kernel: Kernel, name: string, count: number): Messages {
  const path = `/sys/bus/pci/devices/${name}/config`;
  const bytes = new Uint8Array(CONFIG_BYTES);
  const fd = kernel.open(path, 'r');
  const read = fd < 0 ? fd : kernel.pread(fd, bytes, 0);
  if (fd >= 0) kernel.close(fd);
  if (read <= HEADER_BYTES) return { from: `${path} shows this user no capabilities`, messages: [] };
  const view = new DataView(bytes.buffer);
  const at = capabilities((offset) => view.getUint8(offset)).find(({ id }) => id === CapabilityId.MSI)?.offset;
  if (at === undefined) return { from: `${path} has no MSI capability`, messages: [] };
  const flags = view.getUint16(at + Msi.FLAGS, true);
  const high = (flags & MsiFlags.ADDRESS_64) !== 0 ? view.getUint32(at + Msi.ADDRESS_HI, true) : 0;
  const address = high * 2 ** 32 + view.getUint32(at + Msi.ADDRESS_LO, true);
  const data = view.getUint16(at + msiDataOffset(flags), true);
  return { from: path, messages: Array.from({ length: count }, (_, vector) => ({ address, data: data | vector })) };
}
