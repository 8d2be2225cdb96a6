/** Commands of a guest's ITS (IHI 0069 5.3; vgic-its.c vgic_its_cmd_handle_*). 0, or an {@link ItsError} that nobody sees. */
import type { Its } from './its.ts';
import { ItsError } from './its-errors.ts';
import { clearEvents, entryAddress, eventAddress, writeCollection, writeDevice, writeEvent } from './its-tables.ts';
import { GIC_LPI_OFFSET, type VgicIrq } from './vgic-irq.ts';

const Command = {
  MOVI: 0x01,
  INT: 0x03,
  CLEAR: 0x04,
  SYNC: 0x05,
  MAPD: 0x08,
  MAPC: 0x09,
  MAPTI: 0x0a,
  MAPI: 0x0b,
  INV: 0x0c,
  INVALL: 0x0d,
  MOVALL: 0x0e,
  DISCARD: 0x0f,
} as const;

type Words = readonly bigint[];

const commandId = (words: Words): number => Number(words[0] & 0xffn);
const deviceId = (words: Words): number => Number(words[0] >> 32n);
const eventId = (words: Words): number => Number(words[1] & 0xffff_ffffn);
const collectionId = (words: Words): number => Number(words[2] & 0xffffn);
const valid = (words: Words): boolean => (words[2] & (1n << 63n)) !== 0n;
/** RDbase: the number of a CPU, since TYPER.PTA is 0. */
const target = (word: bigint): number => Number((word >> 16n) & 0xf_ffff_ffffn);

export function executeItsCommand(its: Its, words: Words): number {
  switch (commandId(words)) {
    case Command.MAPD:
      return mapDevice(its, words);
    case Command.MAPC:
      return mapCollection(its, words);
    case Command.MAPI:
      return mapEvent(its, words, eventId(words));
    case Command.MAPTI:
      return mapEvent(its, words, Number(words[1] >> 32n));
    case Command.MOVI:
      return moveEvent(its, words);
    case Command.DISCARD:
      return discardEvent(its, words);
    case Command.CLEAR:
      return withEvent(its, words, ItsError.E_ITS_CLEAR_UNMAPPED_INTERRUPT, (irq) => irq.clear());
    case Command.INT:
      return interrupt(its, words);
    case Command.INV:
      return withEvent(its, words, ItsError.E_ITS_INV_UNMAPPED_INTERRUPT, (irq) => its.vgic.readLpiConfig(irq));
    case Command.INVALL:
      return invalidateCollection(its, words);
    case Command.MOVALL:
      return moveAll(its, words);
    default:
      // SYNC has nothing to wait for; what is unknown is ignored.
      return 0;
  }
}

function mapDevice(its: Its, words: Words): number {
  const { memory } = its.vgic.vm;
  const id = deviceId(words);
  const eventBits = Number(words[1] & 0x1fn) + 1;
  const at = entryAddress(memory, its.deviceTable, id);
  if (at === null) return ItsError.E_ITS_MAPD_DEVICE_OOR;
  if (valid(words) && eventBits > 16) return ItsError.E_ITS_MAPD_ITTSIZE_OOR;
  // Mapping again drops what the device had.
  its.devices.delete(id);
  its.vgic.invalidate();
  writeDevice(memory, at, null);
  if (!valid(words)) return 0;
  const device = { itt: Number(words[2] & 0xf_ffff_ffff_ff00n), eventBits };
  clearEvents(memory, device);
  writeDevice(memory, at, device);
  its.devices.add(id);
  return 0;
}

function mapCollection(its: Its, words: Words): number {
  const { memory, vcpus } = its.vgic.vm;
  const id = collectionId(words);
  const at = entryAddress(memory, its.collectionTable, id);
  const cpu = target(words[2]);
  its.vgic.invalidate();
  if (!valid(words)) {
    if (at !== null) writeCollection(memory, at, id, null);
    its.collections.delete(id);
    return 0;
  }
  if (!vcpus.has(cpu)) return ItsError.E_ITS_MAPC_PROCNUM_OOR;
  if (at === null) return ItsError.E_ITS_MAPC_COLLECTION_OOR;
  writeCollection(memory, at, id, cpu);
  its.collections.add(id);
  for (const irq of its.vgic.lpis.values()) {
    if (irq.its === its && irq.collection === id) irq.retarget(its.vgic.cpus[cpu] ?? null);
  }
  return 0;
}

function mapEvent(its: Its, words: Words, intid: number): number {
  const { memory } = its.vgic.vm;
  const device = its.device(deviceId(words));
  const event = eventId(words);
  const collection = collectionId(words);
  if (device === null) return ItsError.E_ITS_MAPTI_UNMAPPED_DEVICE;
  if (event >= 2 ** device.eventBits) return ItsError.E_ITS_MAPTI_ID_OOR;
  if (intid < GIC_LPI_OFFSET || intid >= its.vgic.lpiLimit) return ItsError.E_ITS_MAPTI_PHYSICALID_OOR;
  // Unpredictable in the architecture; KVM ignores it.
  if (its.event(deviceId(words), event) !== null) return 0;
  if (entryAddress(memory, its.collectionTable, collection) === null) return ItsError.E_ITS_MAPC_COLLECTION_OOR;
  writeEvent(memory, eventAddress(device, event), { intid, collection });
  const irq = its.vgic.lpi(intid);
  its.adopt(irq, collection, cpuOf(its, collection));
  its.vgic.readLpiConfig(irq);
  return 0;
}

function moveEvent(its: Its, words: Words): number {
  const { memory } = its.vgic.vm;
  const device = its.device(deviceId(words));
  const event = its.event(deviceId(words), eventId(words));
  if (device === null || event === null) return ItsError.E_ITS_MOVI_UNMAPPED_INTERRUPT;
  const collection = collectionId(words);
  if (its.target(collection) === null) return ItsError.E_ITS_MOVI_UNMAPPED_COLLECTION;
  writeEvent(memory, eventAddress(device, eventId(words)), { intid: event.intid, collection });
  its.adopt(its.vgic.lpi(event.intid), collection, cpuOf(its, collection));
  its.vgic.invalidate();
  return 0;
}

function discardEvent(its: Its, words: Words): number {
  const device = its.device(deviceId(words));
  const event = its.event(deviceId(words), eventId(words));
  if (device === null || event === null) return ItsError.E_ITS_DISCARD_UNMAPPED_INTERRUPT;
  its.vgic.invalidate();
  its.vgic.lpi(event.intid).clear();
  writeEvent(its.vgic.vm.memory, eventAddress(device, eventId(words)), null);
  return 0;
}

/** A message without a device: what the guest sends itself. */
function interrupt(its: Its, words: Words): number {
  const irq = its.translate(deviceId(words), eventId(words));
  if (typeof irq === 'number') return Math.max(irq, 0);
  irq.raise();
  return 0;
}

function invalidateCollection(its: Its, words: Words): number {
  const id = collectionId(words);
  const cpu = its.target(id);
  if (cpu === null) return ItsError.E_ITS_INVALL_UNMAPPED_COLLECTION;
  for (const irq of its.vgic.lpis.values()) if (irq.cpu?.index === cpu) its.vgic.readLpiConfig(irq);
  return 0;
}

function moveAll(its: Its, words: Words): number {
  const { vgic } = its;
  const from = target(words[2]);
  const to = target(words[3]);
  if (!vgic.vm.vcpus.has(from) || !vgic.vm.vcpus.has(to)) return ItsError.E_ITS_MOVALL_PROCNUM_OOR;
  for (const irq of vgic.lpis.values()) if (irq.cpu?.index === from) irq.retarget(vgic.cpus[to] ?? null);
  vgic.invalidate();
  return 0;
}

const cpuOf = (its: Its, collection: number) => its.vgic.cpus[its.target(collection) ?? -1] ?? null;

function withEvent(its: Its, words: Words, unmapped: number, act: (irq: VgicIrq) => void): number {
  const event = its.event(deviceId(words), eventId(words));
  if (event === null) return unmapped;
  act(its.vgic.lpi(event.intid));
  return 0;
}
