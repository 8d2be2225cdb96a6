/** Where the devices of `belfry exec` sit: each behind a root port of its own, or where `slot=` says. */
import type { MachineSpec, PciSpec, SlotSpec } from '../../machine/spec.ts';
import { UsageError } from '../usage.ts';
import type { DeviceChoice } from './options.ts';

/** Device numbers of the root bus that root ports and devices can have: 1 to 31. */
const HIGHEST = 31;
const SLOT = /^([0-9a-f]{4}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/;

interface Place {
  readonly bus: number;
  readonly device: number;
  readonly function: number;
  readonly slot: SlotSpec;
}

/**
 * The machine with these devices in place of its own: 0000:01:00.0, 0000:02:00.0, …, each in a group of its own, where no `slot` names another place.
 * Bus N is behind the Nth root port; what is on bus 0 sits on the root bus itself, and the root ports beside it.
 * @throws UsageError naming the field
 */
export function withDevices(spec: MachineSpec, devices: readonly DeviceChoice[]): MachineSpec {
  if (devices.length === 0) return spec;
  if (devices.length > HIGHEST) throw new UsageError(`--device: at most ${HIGHEST}`, 'exec');
  const taken: Place[] = [];
  for (const choice of devices) if (choice.slot !== null) taken.push(named(spec.pci, choice, choice.slot, taken));
  for (const choice of devices) if (choice.slot === null) taken.push(next(choice, taken));
  return { ...spec, pci: { ...spec.pci, slots: tree(taken) } };
}

function named({ segment }: PciSpec, choice: DeviceChoice, text: string, taken: readonly Place[]): Place {
  const [, at = '', bus = '', device = '', fn = ''] = SLOT.exec(text) ?? [];
  if (at === '') throw wrong(choice, `expected a place such as 0000:01:00.0, got ${JSON.stringify(text)}`);
  const hex = (value: string): number => Number.parseInt(value, 16);
  if (hex(at) !== segment) throw wrong(choice, `${text}: the host has PCI segment ${padded(segment, 4)} alone`);
  const place = placeAt(choice, hex(bus), hex(device), hex(fn));
  if (place.bus > HIGHEST) throw wrong(choice, `${text}: buses are 00 and, behind root ports, 01 to 1f`);
  if (place.bus === 0 && place.device === 0) throw wrong(choice, `${text} is the host bridge's own place`);
  if (place.bus > 0 && place.device > 0) throw wrong(choice, `${text}: a root port has device 00 alone behind it`);
  const same = (each: Place): boolean =>
    each.bus === place.bus && each.device === place.device && each.function === place.function;
  const other = taken.find(same)?.slot;
  if (other?.kind === 'function') throw wrong(choice, `${text} is not free: ${other.device} is there`);
  return place;
}

/** Behind the first root port that has nothing behind it. */
function next(choice: DeviceChoice, taken: readonly Place[]): Place {
  let bus = 1;
  while (taken.some((each) => each.bus === bus)) bus += 1;
  return placeAt(choice, bus, 0, 0);
}

function placeAt({ name, options }: DeviceChoice, bus: number, device: number, fn: number): Place {
  const at = `${padded(device, 2)}.${fn}`;
  return { bus, device, function: fn, slot: { at, kind: 'function', device: name, options } };
}

/** Root ports as far as the highest bus, so that firmware numbers the buses so, at device numbers that no device of the root bus has. */
function tree(places: readonly Place[]): SlotSpec[] {
  const on = (bus: number): SlotSpec[] =>
    places
      .filter((place) => place.bus === bus)
      .sort((a, b) => a.device - b.device || a.function - b.function)
      .map(({ slot }) => slot);
  const own = new Set(places.filter(({ bus }) => bus === 0).map(({ device }) => device));
  const free = Array.from({ length: HIGHEST }, (_, i) => i + 1).filter((device) => !own.has(device));
  const last = Math.max(...places.map(({ bus }) => bus));
  if (last > free.length) {
    const why = `${last} root ports and ${own.size} devices beside them are more than the root bus has places for`;
    throw new UsageError(`--device: slot: ${why}`, 'exec');
  }
  const ports = free
    .slice(0, last)
    .map((device, i): SlotSpec => ({ at: `${padded(device, 2)}.0`, kind: 'root-port', acs: true, below: on(i + 1) }));
  return [...ports, ...on(0)];
}

const padded = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');

const wrong = (choice: DeviceChoice, why: string): UsageError =>
  new UsageError(`--device ${choice.name}: slot: ${why}`, 'exec');
