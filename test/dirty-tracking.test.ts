/** Dirty tracking from the library down to a device's DMA: edu writes, and the SMMU's tables say where. */
import { describe, expect, it } from 'vitest';
import { EDU_BUFFER, EduDma, EduRegister } from '../src/devices/index.ts';
import type { PresetName } from '../src/machine/index.ts';
import { CdevDevice, type DirtyRange, Hwpt, Ioas, Iommufd, VfioError } from '../src/vfio/index.ts';
import { DEVICE, testHost } from './support/host.ts';

const PAGE = 4096;
const M = 2 ** 20;

function owner(preset: PresetName = 'arm-its', dirtyTracking = true, hugePages = true) {
  const host = testHost(preset, { device: 'edu', options: { dmaMask: 2 ** 40 - 1 } });
  const { kernel } = host.process();
  const iommufd = Iommufd.open(kernel);
  const ioas = Ioas.create(iommufd, { hugePages });
  const device = CdevDevice.open(kernel, DEVICE);
  device.bind(iommufd);
  const hwpt = Hwpt.create(device, ioas, { dirtyTracking });
  device.attach(hwpt);
  device.config.busMaster = true;
  const bar = device.region(0);
  /** edu's engine: `count` bytes between its buffer and an IOVA. */
  const dma = (iova: number, count: number, toMemory: boolean): void => {
    const [source, destination] = toMemory ? [EDU_BUFFER.base, iova] : [iova, EDU_BUFFER.base];
    for (const [register, value] of [
      [EduRegister.DMA_SOURCE, source],
      [EduRegister.DMA_DESTINATION, destination],
      [EduRegister.DMA_COUNT, count],
    ] as const) {
      bar.write32(register, value | 0);
      bar.write32(register + 4, Math.floor(value / 2 ** 32));
    }
    bar.write32(EduRegister.DMA_COMMAND, EduDma.START | (toMemory ? EduDma.FROM_DEVICE : 0));
    host.machine.clock.advance(100_000_000);
    kernel.settle();
  };
  return { host, kernel, iommufd, ioas, device, hwpt, dma };
}

const plain = (ranges: readonly DirtyRange[]): [number, number][] => ranges.map(({ iova, length }) => [iova, length]);

function code(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof VfioError) return `${error.code}: ${error.why}`;
    throw error;
  }
  return 'nothing was thrown';
}

describe('a page table that tracks', () => {
  it('tells where edu wrote: a write over a page’s end is two pages, a read is none', () => {
    const { iommufd, ioas, hwpt, dma } = owner();
    const buffer = ioas.mapDma({ length: 64 * PAGE, iova: 0x10_0000 });
    buffer.bytes.fill(0x5a, 9 * PAGE, 10 * PAGE);
    hwpt.setDirtyTracking(true);
    dma(0x10_0000 + 9 * PAGE, 256, false);
    expect(plain(hwpt.readDirty())).toEqual([]);
    dma(0x10_0000 + 4 * PAGE - 64, 128, true);
    dma(0x10_0000 + 20 * PAGE, 256, true);
    expect([...buffer.bytes.subarray(20 * PAGE, 20 * PAGE + 2)]).toEqual([0x5a, 0x5a]);
    const wrote = [
      [0x10_0000 + 3 * PAGE, 2 * PAGE],
      [0x10_0000 + 20 * PAGE, PAGE],
    ];
    expect(plain(hwpt.readDirty({ keep: true }))).toEqual(wrote);
    expect(plain(hwpt.readDirty())).toEqual(wrote);
    expect(hwpt.readDirty()).toEqual([]);
    iommufd.close();
  });

  it('a copy of memory that follows the bitmap is the memory', () => {
    const { iommufd, ioas, hwpt, dma } = owner();
    const length = 6 * M;
    const [a, b] = [0x4000_0000, 0x5000_0000].map((iova) => ioas.mapDma({ length, iova }));
    hwpt.setDirtyTracking(true);
    const copies = [a!, b!].map(({ bytes }) => bytes.slice());
    for (let round = 0; round < 12; round++) {
      const source = a!.bytes;
      // The engine's buffer is filled from a page that the program itself marks, which is no DMA write.
      source.fill(round + 1, 5 * M, 5 * M + 64);
      copies[0]!.set(source.subarray(5 * M, 5 * M + 64), 5 * M);
      dma(a!.iova + 5 * M, 64, false);
      for (let i = 0; i < 4; i++) dma(b!.iova + ((round * 7919 + i * 104_729 * PAGE) % (length - 64)), 64, true);
      dma(a!.iova + ((round * 3 * PAGE) % (4 * M)), 64, true);
      for (const { iova, length: bytes } of hwpt.readDirty({ keep: round % 3 === 0 })) {
        const [buffer, copy] = iova >= b!.iova ? [b!, copies[1]!] : [a!, copies[0]!];
        const at = iova - buffer.iova;
        copy.set(buffer.bytes.subarray(at, at + bytes), at);
      }
      for (const [i, { bytes }] of [a!, b!].entries()) {
        if (Buffer.compare(bytes, copies[i]!) !== 0) throw new Error(`round ${round}: the copy of buffer ${i} differs`);
      }
    }
    iommufd.close();
  });

  it('a block is told as a whole, and page by page where the IOAS has no huge pages', () => {
    for (const [hugePages, told] of [
      [true, [[0x4000_0000, 2 * M]]],
      [false, [[0x4000_5000, PAGE]]],
    ] as const) {
      const { iommufd, ioas, hwpt, dma } = owner('arm-its', true, hugePages);
      ioas.mapDma({ length: 4 * M, iova: 0x4000_0000 });
      hwpt.setDirtyTracking(true);
      dma(0x4000_5000, 8, true);
      expect(plain(hwpt.readDirty())).toEqual(told);
      iommufd.close();
    }
  });

  it('interrupts through the doorbell are none of its pages, and go on arriving', () => {
    const { kernel, iommufd, ioas, device, hwpt, dma } = owner();
    const buffer = ioas.mapDma({ length: 4 * PAGE, iova: 0x10_0000 });
    hwpt.setDirtyTracking(true);
    const { vectors } = device.msi.enable(1);
    const bar = device.region(0);
    for (let i = 0; i < 3; i++) {
      bar.write32(EduRegister.INTERRUPT_RAISE, 1);
      kernel.settle();
      bar.write32(EduRegister.INTERRUPT_ACKNOWLEDGE, 1);
      expect(hwpt.readDirty()).toEqual([]);
    }
    expect(vectors[0]!.take()).toBe(3);
    dma(buffer.iova, 4, true);
    expect(plain(hwpt.readDirty())).toEqual([[buffer.iova, PAGE]]);
    iommufd.close();
  });

  it('a range and a page size of one’s own', () => {
    const { iommufd, ioas, hwpt, dma } = owner();
    ioas.mapDma({ length: 32 * PAGE, iova: 0x10_0000 });
    ioas.mapDma({ length: 4 * PAGE, iova: 0x20_0000 });
    hwpt.setDirtyTracking(true);
    for (const iova of [0x10_0000, 0x10_5000, 0x20_1000]) dma(iova, 8, true);
    const range = { iova: 0x10_0000, length: 32 * PAGE };
    expect(plain(hwpt.readDirty({ range, pageSize: 4 * PAGE, keep: true }))).toEqual([[0x10_0000, 8 * PAGE]]);
    expect(plain(hwpt.readDirty({ range }))).toEqual([
      [0x10_0000, PAGE],
      [0x10_5000, PAGE],
    ]);
    expect(plain(hwpt.readDirty())).toEqual([[0x20_1000, PAGE]]);
    expect(code(() => hwpt.readDirty({ range: { iova: 0x10_0800, length: PAGE } }))).toMatch(/^EINVAL: .*pages/);
    expect(code(() => hwpt.readDirty({ range, pageSize: 64 * PAGE }))).toMatch(/^EINVAL: .*page_size/);
    iommufd.close();
    expect(code(() => hwpt.readDirty())).toMatch(/^EBADF/);
  });
});

describe('where there is none', () => {
  it('a page table that was made without says how it is made', () => {
    const { iommufd, hwpt } = owner('arm-its', false);
    expect(code(() => hwpt.setDirtyTracking(true))).toBe('EOPNOTSUPP: the page table does not track dirty pages');
    expect(code(() => hwpt.readDirty({ range: { iova: 0, length: PAGE } }))).toMatch(/^EOPNOTSUPP/);
    iommufd.close();
  });

  it('VT-d in legacy mode refuses to make one', () => {
    expect(code(() => owner('x86'))).toMatch(/^EOPNOTSUPP: .*does not track dirty pages/);
  });
});
