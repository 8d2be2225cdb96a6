/** Whole hosts for the workers, out of dist/. */
import { Command, Header } from '../../dist/arch/pci/index.js';
import { createDevice } from '../../dist/devices/index.js';
import { bootLinux } from '../../dist/kernel/boot/boot.js';
import { defineMachine } from '../../dist/machine/define.js';
import { Machine } from '../../dist/machine/machine.js';
import { presetInput } from '../../dist/machine/presets.js';

const hex = (value) => value.toString(16).padStart(2, '0');

/**
 * The preset arm-its with `devices` bells of `vectors` MSI-X vectors, each behind a root port of its own.
 * @param {{ devices?: number, vectors?: number, driver?: string | null }} options driver: bound at boot; null for none
 */
export function bootHost({ devices = 1, vectors = 32, driver = 'vfio-pci' } = {}) {
  const input = presetInput('arm-its');
  // Eight root ports to a slot, from slot 1 on.
  const slots = Array.from({ length: devices }, (_, i) => ({
    at: `${hex(1 + (i >> 3))}.${i & 7}`,
    kind: 'root-port',
    acs: true,
    below: [{ at: '00.0', kind: 'function', device: 'bell', options: { msix: vectors, msi: 0, memory: 4096 }, driver }],
  }));
  const spec = defineMachine({ ...input, pci: { ...input.pci, slots } });
  return bootLinux(new Machine(spec, createDevice));
}

/** Counts: the smallest handler there is. */
class Counter {
  seen = 0;
  handleIrq() {
    this.seen = (this.seen + 1) | 0;
  }
}

/** A driver of the host's own: all vectors of one device, one handler. */
export function bootHostDriver(vectors) {
  const host = bootHost({ vectors, driver: null });
  const [port] = host.machine.pci.functions;
  const dev = host.pciDevices.find(({ isBridge }) => !isBridge);
  const counter = new Counter();
  dev.configWrite(Header.COMMAND, 2, Command.MEMORY | Command.BUS_MASTER);
  if (host.msi.allocIrqVectors(dev, vectors, vectors, 'msix') !== vectors) throw new Error('no vectors');
  for (let i = 0; i < vectors; i++) {
    if (host.msi.requestIrq(host.msi.irqVector(dev, i), counter, 'bench') !== 0) throw new Error('request_irq');
  }
  return { host, port, counter };
}
