/** Memory as files, from the library down to the bytes: one device's DMA into the BAR of another, and into a memfd. */
import { describe, expect, it } from 'vitest';
import { BellDma, BellRegister, createDevice } from '../src/devices/index.ts';
import { bootLinux } from '../src/kernel/index.ts';
import { defineMachine } from '../src/machine/define.ts';
import { Machine, type PresetName, presetInput } from '../src/machine/index.ts';
import { CdevDevice, DmaBuf, Ioas, Iommufd, MemoryFile, VfioError } from '../src/vfio/index.ts';

const PAGE = 4096;
const MEMORY_BAR = 4;

function host(name: PresetName = 'arm-its') {
  const base = presetInput(name);
  const bell = { at: '00.0', kind: 'function' as const, device: 'bell' };
  const slots = ['01.0', '02.0'].map((at) => ({ at, kind: 'root-port' as const, acs: true, below: [bell] }));
  const machine = new Machine(defineMachine({ ...base, pci: { ...base.pci, slots } }), createDevice);
  const booted = bootLinux(machine);
  const before = machine.memory.allocated;
  const { kernel, process } = booted.process();
  const iommufd = Iommufd.open(kernel);
  const ioas = Ioas.create(iommufd);
  const [first, second] = ['0000:01:00.0', '0000:02:00.0'].map((at) => {
    const device = CdevDevice.open(kernel, at);
    device.bind(iommufd);
    device.config.memoryEnabled = true;
    device.config.busMaster = true;
    return device;
  }) as [CdevDevice, CdevDevice];
  first.attach(ioas);
  const dma = (iova: number, value: number, command: number = BellDma.TO_MEMORY): void => {
    const bar = first.bar(0);
    if (command === BellDma.TO_MEMORY) first.bar(MEMORY_BAR).write32(0, value);
    bar.write32(BellRegister.DMA_IOVA_LO, iova >>> 0);
    bar.write32(BellRegister.DMA_IOVA_HI, Math.floor(iova / 2 ** 32));
    bar.write32(BellRegister.DMA_LOCAL, 0);
    bar.write32(BellRegister.DMA_LENGTH, 4);
    bar.write32(BellRegister.DMA_COMMAND, BellDma.START | command);
    kernel.settle();
  };
  const word = (at: number): number => second.bar(MEMORY_BAR).read32(at);
  return { machine, booted, kernel, process, iommufd, ioas, first, second, dma, word, before };
}

function code(body: () => unknown): string {
  try {
    body();
  } catch (error) {
    if (error instanceof VfioError) return error.code;
    throw error;
  }
  return '';
}

describe.each(['arm-its', 'x86'] as const)('%s', (name) => {
  it('a dma-buf: written and read by the other device, taken back, lent again', () => {
    const { ioas, first, second, dma, word } = host(name);
    const lent = second.exportDmaBuf(MEMORY_BAR);
    expect([lent.length, lent.label]).toEqual([second.bar(MEMORY_BAR).size, 'dma-buf of region 4 of 0000:02:00.0']);
    const iova = ioas.mapFile(lent, { length: 2 * PAGE });
    dma(iova + 16, 0xfeed);
    expect(word(16)).toBe(0xfeed);
    second.bar(MEMORY_BAR).write32(32, 0xbeef);
    dma(iova + 32, 0, 0);
    expect(first.bar(MEMORY_BAR).read32(0)).toBe(0xbeef);
    second.config.memoryEnabled = false;
    expect(code(() => ioas.mapFile(lent))).toBe('ENODEV');
    dma(iova + 16, 1);
    second.config.memoryEnabled = true;
    dma(iova + 16, 2);
    expect(word(16)).toBe(0xfeed);
    expect(ioas.unmap(iova, 2 * PAGE)).toBe(2 * PAGE);
    const again = ioas.mapFile(lent, { offset: PAGE, iova: 0x7000_0000 });
    dma(again, 3);
    expect([again, word(PAGE)]).toEqual([0x7000_0000, 3]);
    second.close();
    expect([code(() => ioas.mapFile(lent)), lent.isClosed]).toEqual(['EBADF', true]);
  });

  it('a memory file: the device and the program see the same bytes', () => {
    const { kernel, ioas, dma } = host(name);
    using memory = MemoryFile.create(kernel, { length: 3 * PAGE });
    const iova = ioas.mapFile(memory, { offset: PAGE });
    dma(iova + 4, 0x0102_0304);
    expect([...memory.bytes.subarray(PAGE, PAGE + 9)]).toEqual([0, 0, 0, 0, 4, 3, 2, 1, 0]);
    expect(memory.mapping.read32(PAGE + 4)).toBe(0x0102_0304);
    expect([
      code(() => ioas.mapFile(memory, { length: 4 * PAGE })),
      code(() => ioas.mapFile({ fd: 99, length: PAGE })),
    ]).toEqual(['EINVAL', 'EBADF']);
    expect(ioas.unmap(iova, 2 * PAGE)).toBe(2 * PAGE);
  });

  it('leaves nothing behind', () => {
    const { machine, booted, kernel, process, iommufd, ioas, second, dma, before } = host(name);
    const memory = MemoryFile.create(kernel, { length: 1 });
    dma(ioas.mapFile(memory), 1);
    dma(ioas.mapFile(second.exportDmaBuf(MEMORY_BAR)), 1);
    expect(second.exportDmaBuf(0, [{ offset: 0, length: PAGE }])).toBeInstanceOf(DmaBuf);
    memory.close();
    iommufd.close();
    booted.kernel.exit(process);
    expect(machine.memory.allocated).toBe(before);
  });
});

describe('what is refused, in words', () => {
  it('exports', () => {
    const { second } = host();
    expect(code(() => second.exportDmaBuf(1))).toBe('ENODEV');
    expect(code(() => second.exportDmaBuf(9))).toBe('ENODEV');
    expect(code(() => second.exportDmaBuf(-1))).toBe('ENODEV');
    expect(code(() => second.exportDmaBuf(MEMORY_BAR, []))).toBe('EINVAL');
    expect(code(() => second.exportDmaBuf(MEMORY_BAR, [{ offset: -1, length: PAGE }]))).toBe('EINVAL');
    expect(code(() => second.exportDmaBuf(MEMORY_BAR, [{ offset: 0, length: 100 }]))).toBe('EINVAL');
  });

  it('dma-bufs of several ranges, and files that hold no memory', () => {
    const { kernel, ioas, second, iommufd } = host();
    const two = second.exportDmaBuf(MEMORY_BAR, [
      { offset: 0, length: PAGE },
      { offset: 2 * PAGE, length: PAGE },
    ]);
    expect([two.length, code(() => ioas.mapFile(two))]).toEqual([2 * PAGE, 'EOPNOTSUPP']);
    expect(code(() => ioas.mapFile({ fd: iommufd.fd, length: PAGE }))).toBe('EINVAL');
    expect(code(() => MemoryFile.create(kernel, { length: 0 }))).toBe('EINVAL');
  });
});
