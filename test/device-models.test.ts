/** The models behind a simulated host: their drivers on the library, DMA through the IOMMU, interrupts to eventfds, the device's own error where nothing is mapped. */
import { describe, expect, it } from 'vitest';
import { openDevice } from '../src/vfio/index.ts';
import { countsOf } from './support/counts.ts';
import { DEVICE, testHost } from './support/host.ts';

const UNMAPPED = 0x7fff_0000;
const IRQ = { TYPE: 0x24, NUMBER: 0x28 };

function driverFor(device: string, options: Record<string, number | string | boolean>, preset: 'arm-its' | 'x86') {
  const host = testHost(preset, { device, options });
  const { kernel } = host.process();
  const opened = openDevice(kernel, DEVICE);
  opened.config.memoryEnabled = true;
  opened.config.busMaster = true;
  const memory = opened.space.mapDma({ length: 0x8000 });
  return {
    host,
    kernel,
    device: opened,
    memory,
    bar: opened.bar(0),
    view: new DataView(memory.bytes.buffer, memory.bytes.byteOffset, memory.length),
  };
}

describe.each(['arm-its', 'x86'] as const)('models on %s', (preset) => {
  it('ioat copies through the IOMMU, and halts where nothing is mapped', () => {
    const { host, kernel, device, memory, bar, view } = driverFor('ioat', {}, preset);
    const { vectors } = device.msix.enable(1);
    const start = (source: number, destination: number): number => {
      view.setUint32(0, 256, true);
      view.setUint32(4, 1, true);
      view.setBigUint64(8, BigInt(source), true);
      view.setBigUint64(16, BigInt(destination), true);
      bar.write8(0x84, 0x20);
      bar.write8(0x03, 0x08);
      bar.write64(0x90, BigInt(memory.iova));
      bar.write16(0x80, 0x09);
      bar.write16(0x86, 1);
      kernel.settle();
      return bar.read32(0x88) & 7;
    };
    memory.bytes.fill(0x5a, 0x1000, 0x1100);
    expect(start(memory.iova + 0x1000, memory.iova + 0x2000)).toBe(1);
    expect([memory.bytes[0x2000], memory.bytes[0x20ff], memory.bytes[0x2100], vectors[0]!.take()]).toEqual([
      0x5a, 0x5a, 0, 1,
    ]);
    expect([start(UNMAPPED, memory.iova + 0x2000), bar.read32(0xa8)]).toEqual([3, 0x100]);
    bar.write32(0xa8, 0x100);
    expect([start(memory.iova, UNMAPPED), bar.read32(0xa8), vectors[0]!.take()]).toEqual([3, 0x200, 0]);
    const { sent, delivered, lost } = countsOf(host.machine.tap);
    expect([sent, delivered, lost]).toEqual([1, 1, {}]);
    device.close();
  });

  it('nvme-drive: queues, a vector each, Data Transfer Error for unmapped data, a function level reset', () => {
    const { host, kernel, device, memory, bar, view } = driverFor('nvme-drive', { queues: 2 }, preset);
    const at = { asq: 0, acq: 0x1000, cq: 0x2000, sq: 0x3000, data: 0x4000 };
    const enable = (): void => {
      memory.bytes.fill(0);
      bar.write32(0x24, 0x0007_0007);
      bar.write64(0x28, BigInt(memory.iova + at.asq));
      bar.write64(0x30, BigInt(memory.iova + at.acq));
      bar.write32(0x14, 0x0046_0001);
    };
    const tails = [0, 0];
    const command = (queue: number, opcode: number, prp1: number, words: readonly number[]): number => {
      const [sq, cq] = queue === 0 ? [at.asq, at.acq] : [at.sq, at.cq];
      const slot = tails[queue];
      const entry = sq + slot * 64;
      view.setUint32(entry, opcode | (slot << 16), true);
      view.setUint32(entry + 4, 1, true);
      view.setBigUint64(entry + 24, BigInt(prp1), true);
      for (const [index, word] of words.entries()) view.setUint32(entry + 40 + index * 4, word, true);
      tails[queue] = (slot + 1) % 8;
      bar.write32(0x1000 + queue * 8, tails[queue]);
      kernel.settle();
      bar.write32(0x1004 + queue * 8, tails[queue]);
      return (view.getUint16(cq + slot * 16 + 14, true) >> 1) & 0x7ff;
    };
    const { vectors } = device.msix.enable(3);
    enable();
    expect(bar.read32(0x1c)).toBe(1);
    expect(command(0, 5, memory.iova + at.cq, [0x7_0001, 0x2_0003])).toBe(0);
    expect(command(0, 1, memory.iova + at.sq, [0x7_0001, 0x1_0001])).toBe(0);
    memory.bytes.fill(0xc3, at.data, at.data + 512);
    expect(command(1, 1, memory.iova + at.data, [7, 0, 0])).toBe(0);
    memory.bytes.fill(0, at.data, at.data + 512);
    expect(command(1, 2, memory.iova + at.data, [7, 0, 0])).toBe(0);
    expect([memory.bytes[at.data], memory.bytes[at.data + 511]]).toEqual([0xc3, 0xc3]);
    expect(command(1, 2, UNMAPPED, [7, 0, 0])).toBe(4);
    expect(vectors.map((vector) => vector.take())).toEqual([2, 0, 3]);
    device.reset();
    expect([bar.read32(0x14), bar.read32(0x1c), bar.read32(0x24)]).toEqual([0, 0, 0]);
    // Nobody took from the eventfds in between: the first of each vector is delivered, the others add to it.
    expect(countsOf(host.machine.tap)).toEqual({ sent: 5, delivered: 2, coalesced: 3, pending: 0, lost: {} });
    device.close();
  });

  it('pci-endpoint-test copies by MSI, and tells which address was bad', () => {
    const { kernel, device, memory, bar } = driverFor('pci-endpoint-test', {}, preset);
    const { vectors } = device.msi.enable(1);
    const copy = (from: number, to: number): number => {
      for (const [offset, value] of [
        [0x0c, from],
        [0x14, to],
        [0x1c, 64],
        [IRQ.TYPE, 1],
        [IRQ.NUMBER, 1],
      ])
        bar.write32(offset, value);
      bar.write32(0x04, 0x20);
      kernel.settle();
      return bar.read32(0x08);
    };
    memory.bytes.fill(0x77, 0x100, 0x140);
    expect(copy(memory.iova + 0x100, memory.iova + 0x1000)).toBe(0x50);
    expect([memory.bytes[0x1000], memory.bytes[0x103f], vectors[0]!.take()]).toEqual([0x77, 0x77, 1]);
    expect([copy(UNMAPPED, memory.iova), copy(memory.iova, UNMAPPED)]).toEqual([0xe0, 0x160]);
    device.close();
  });
});
