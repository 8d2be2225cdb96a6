/**
 * A device rings while its IOAS is replaced under it: before and after each replace, and after every single word that the kernel writes
 * to the tables in memory and to the IOMMU's registers meanwhile. No interrupt is lost, none goes to another address, DMA is the new
 * IOAS's from the replace on, and in the end nothing is left.
 *
 * The first host replaces 10,000 times, the others 2,000; BELFRY_REPLACES is another number for all (`npm run nightly`: 10,000).
 */
import { describe, expect, it } from 'vitest';
import { BellDma, BellRegister } from '../src/devices/index.ts';
import type { Host } from '../src/kernel/boot/boot.ts';
import type { PresetName } from '../src/machine/presets.ts';
import { Count } from '../src/ports/ledger.ts';
import { CdevDevice, Ioas, Iommufd } from '../src/vfio/index.ts';
import { countsOf } from './support/counts.ts';
import { afterEachWrite } from './support/fire.ts';
import { DEVICE, testHost } from './support/host.ts';
import { msixEntry } from './support/messages.ts';

const GIVEN = process.env['BELFRY_REPLACES'];
const VECTORS = 4;
const PAGE = 4096;
const IOVA = 0x10_0000;
/** DMA is looked at now and then; interrupts always. */
const LOOK = 50;

function underFire(host: Host, replaces: number, doorbell: number | null) {
  const { kernel, process } = host.process();
  const fn = host.machine.pci.function(DEVICE)!;
  const dev = host.pciDevices.find(({ name }) => name === DEVICE)!;
  const before = countsOf(host.machine.tap);
  /** `astray`: not at its own eventfd, once, as soon as it was sent. */
  let [vector, sent, astray, inside] = [0, 0, 0, 0];
  {
    using iommufd = Iommufd.open(kernel);
    using device = CdevDevice.open(kernel, DEVICE);
    device.bind(iommufd);
    const spaces = [Ioas.create(iommufd), Ioas.create(iommufd)];
    const buffers = spaces.map((space) => space.mapDma({ length: PAGE, iova: IOVA }));
    device.attach(spaces[0]!);
    if (doorbell !== null) device.doorbell.set({ iova: doorbell });
    device.config.busMaster = true;
    const { vectors } = device.msix.enable(VECTORS);
    const messages = vectors.map((_, i) => msixEntry(host, dev, i));
    const ring = (): void => {
      fn.raise(vector);
      host.machine.work.drain();
      sent++;
      if (vectors[vector]!.take() !== 1) astray++;
      vector = (vector + 1) % VECTORS;
    };
    const registers = device.bar(0);
    for (let i = 1; i <= replaces; i++) {
      const to = i % 2;
      ring();
      const quiet = afterEachWrite(host, () => {
        ring();
        inside++;
      });
      device.replace(spaces[to]!);
      quiet();
      ring();
      if (i % LOOK !== 0) continue;
      expect({ i, astray }).toEqual({ i, astray: 0 });
      expect(vectors.map((each) => each.take())).toEqual(new Array(VECTORS).fill(0));
      expect(vectors.map((_, at) => msixEntry(host, dev, at))).toEqual(messages);
      registers.write32(BellRegister.DMA_IOVA_LO, IOVA);
      registers.write32(BellRegister.DMA_IOVA_HI, 0);
      registers.write32(BellRegister.DMA_LOCAL, 0);
      registers.write32(BellRegister.DMA_LENGTH, 4);
      for (const { bytes } of buffers) bytes.fill(0xee, 0, 4);
      registers.write32(BellRegister.DMA_COMMAND, BellDma.START | BellDma.TO_MEMORY);
      kernel.settle();
      expect(buffers.map(({ bytes }) => bytes[0] === 0xee)).toEqual([to === 1, to === 0]);
    }
    expect(astray).toBe(0);
    const group = host.groups!.groups.find(({ devices }) => devices.includes(dev))!;
    expect(group.domain).not.toBe(group.defaultDomain);
    for (const buffer of buffers) buffer.close();
    device.close();
    for (const space of spaces) space.close();
    expect(group.domain).toBe(group.defaultDomain);
    expect(group.dmaOwner).toBe(null);
  }
  const after = countsOf(host.machine.tap);
  expect({ ...after, sent: after.sent - before.sent, delivered: after.delivered - before.delivered }).toEqual({
    ...before,
    sent,
    delivered: sent,
  });
  expect([process.descriptors.length, process.lockedPages, host.msi.mode(dev)]).toEqual([0, 0, null]);
  // Its memory goes with it: what the library had for the arguments of its requests.
  host.kernel.exit(process);
  expect(host.irqs.interrupts().filter(({ action }) => action.startsWith('vfio'))).toEqual([]);
  return { sent, inside };
}

describe('an IOAS replaced under fire', () => {
  it.each([
    ['arm-its', 'the kernel’s window', null, 10_000],
    ['arm-its', 'a doorbell of the user’s', 0x0809_0000, 2000],
    ['arm-v2m', 'the kernel’s window', null, 2000],
    ['x86', 'no window', null, 2000],
  ] as const)(
    '%s, %s: every interrupt arrives, at its own doorbell, and tables and counts are back at the end',
    (name: PresetName, _how, doorbell, usual) => {
      const replaces = GIVEN === undefined ? usual : Number(GIVEN);
      const host = testHost(name, { allowUnsafeInterrupts: name === 'arm-v2m', options: { msix: VECTORS } });
      // What a first owner leaves for good (tables of the controller) is there before.
      underFire(host, 2, doorbell);
      const { allocated } = host.machine.memory;
      const { sent, inside } = underFire(host, replaces, doorbell);
      expect(sent).toBeGreaterThan(replaces * 2);
      expect(inside).toBeGreaterThan(replaces);
      expect(host.machine.memory.allocated).toBe(allocated);
      expect(host.machine.tap.ledger[Count.FAULTS]).toBe(0);
    },
    300_000,
  );
});
