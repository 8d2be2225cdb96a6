/**
 * A host as large as its limits allow: 1,024 functions with MSI-X tables of 2,048 entries, all handed to VFIO, and every LPI that
 * Linux uses (57,344: ids of 16 bits without the first 8,192) armed. The ITS's driver takes LPIs for a whole table at the first
 * enable, so that 28 functions have all their vectors and the next is refused.
 */
import { Command, Header } from '../../dist/arch/pci/index.js';
import { createDevice } from '../../dist/devices/index.js';
import { bootLinux } from '../../dist/kernel/boot/boot.js';
import { defineMachine } from '../../dist/machine/define.js';
import { Machine } from '../../dist/machine/machine.js';
import { presetInput } from '../../dist/machine/presets.js';
import { Container, openDevice, VfioError } from '../../dist/vfio/index.js';

const VECTORS = 2048;
const PORTS = 128;

const empty = process.memoryUsage().rss;
const started = performance.now();
const hex = (value) => value.toString(16).padStart(2, '0');
// A link carries one device of eight functions; eight root ports make a slot of the root bus.
const functions = () =>
  Array.from({ length: 8 }, (_, fn) => ({
    at: `00.${fn}`,
    kind: 'function',
    device: 'bell',
    options: { msix: VECTORS, msi: 0, memory: 4096, intx: false, acs: true },
  }));
const input = presetInput('arm-its');
const slots = Array.from({ length: PORTS }, (_, i) => ({
  at: `${hex(1 + (i >> 3))}.${i & 7}`,
  kind: 'root-port',
  acs: true,
  below: functions(),
}));
const host = bootLinux(new Machine(defineMachine({ ...input, pci: { ...input.pci, slots } }), createDevice));

const { kernel } = host.process({ limits: { nofile: 2 ** 20 } });
const names = host.pciDevices.filter(({ isBridge }) => !isBridge).map(({ name }) => name);
const container = Container.open(kernel);
const byName = new Map(host.machine.pci.functions.map((fn) => [nameOf(fn), fn]));
const eventfds = [];
const armed = [];
let refused = null;
for (const name of names) {
  const device = openDevice(kernel, name, container);
  device.config.write16(Header.COMMAND, Command.MEMORY | Command.BUS_MASTER);
  if (refused !== null) continue;
  try {
    for (const { vector, eventfd } of device.msix.enable(VECTORS, { minimum: VECTORS }).vectors) {
      eventfds.push(eventfd);
      armed.push({ port: byName.get(name), vector });
    }
  } catch (error) {
    if (!(error instanceof VfioError)) throw error;
    refused = `${name}: ${error.message}`;
  }
}
for (const { port, vector } of armed) port.raise(vector);
const delivered = eventfds.reduce((sum, eventfd) => sum + eventfd.drain(), 0);

function nameOf({ address: { bus, device, function: fn } }) {
  return `0000:${hex(bus)}:${hex(device)}.${fn}`;
}

console.log(
  JSON.stringify({
    resident: process.memoryUsage().rss,
    empty,
    functions: names.length,
    tables: names.length * VECTORS,
    armed: armed.length,
    refused,
    raised: armed.length,
    delivered,
    seconds: (performance.now() - started) / 1000,
  }),
);
