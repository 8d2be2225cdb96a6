/** The policy nested on whole hosts: a stage 1 in user space's memory, the doorbell at an IOVA of its choice, and what it cannot do. */
import { describe, expect, it } from 'vitest';
import { CapabilityId } from '../src/arch/pci/index.ts';
import { command, Op, TLBI } from '../src/arch/smmuv3/index.ts';
import { BellRegister } from '../src/devices/index.ts';
import type { HostFunction } from '../src/machine/pci/function.ts';
import { IOMMU_OPTION_SW_MSI_SIZE, IOMMU_OPTION_SW_MSI_START } from '../src/uapi/belfry.ts';
import {
  IOMMU_OPTION,
  IOMMU_OPTION_OP_SET,
  IOMMU_VIOMMU_ALLOC,
  IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
  iommu_option,
  iommu_viommu_alloc,
} from '../src/uapi/iommufd.ts';
import { CdevDevice, Hwpt, Ioas, Iommufd, Nested, openDevice, VfioError } from '../src/vfio/index.ts';
import { countsOf, during } from './support/counts.ts';
import { DEVICE, type TestHostOptions, testHost } from './support/host.ts';
import { msiMessage, msixEntry } from './support/messages.ts';

const PAGE = 4096;
const VSID = 0x42;
/** Not the window's, not one that a table has to map elsewhere, and above 4 GiB. */
const IOVA = 0x7_1234_5000;
/** Where the lab's Linux programs its vectors: the ITS's page at the start of the window, GITS_TRANSLATER at 0x40. */
const WINDOW = 0x800_0000;
const IPA = 0x10_0000;
/** RnW 0, class IN. */
const WRITE_IN = 0x0000_0200_0000_0000n;
const recordOf = (id: number, input: number): bigint[] => [
  (BigInt(VSID) << 32n) | BigInt(id),
  WRITE_IN,
  BigInt(input),
  0n,
];

function caught(act: () => unknown): VfioError {
  try {
    act();
  } catch (error) {
    if (error instanceof VfioError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

function bed(options: TestHostOptions = {}, preset: Parameters<typeof testHost>[0] = 'arm-its') {
  const host = testHost(preset, { options: { msix: 3 }, ...options });
  const { kernel, process } = host.process();
  const fn: HostFunction = host.machine.pci.function(DEVICE)!;
  const dev = host.pciDevices.find(({ name }) => name === DEVICE)!;
  const iommufd = Iommufd.open(kernel);
  const ioas = Ioas.create(iommufd);
  const device = openDevice(kernel, DEVICE, ioas);
  device.config.busMaster = true;
  const dma = (iova: number, value: number): boolean | null => {
    let done: boolean | null = null;
    fn.dmaWrite(iova, new Uint8Array(Uint32Array.of(value).buffer), (ok) => {
      done = ok;
    });
    kernel.settle();
    return done;
  };
  const left = () => [process.descriptors.length, process.lockedPages];
  const addresses = () => [0, 1, 2].map((i) => msixEntry(host, dev, i).address);
  const attach = () => Nested.attach(device, ioas, { streamId: VSID });
  return { host, kernel, process, fn, dev, iommufd, ioas, device, dma, left, addresses, attach, tap: host.machine.tap };
}

describe('a doorbell at any IOVA', () => {
  it('20,000 interrupts of three vectors arrive, and nothing is left', () => {
    const { fn, kernel, iommufd, attach, addresses, left, tap, dev } = bed();
    const nested = attach();
    const state = nested.doorbell.set({ iova: IOVA + 0x40 });
    expect(state).toMatchObject({ iova: IOVA, window: WINDOW });
    const { vectors, granted } = nested.doorbell.enable(3);
    expect(granted).toBe(3);
    expect(addresses()).toEqual([IOVA + 0x40, IOVA + 0x40, IOVA + 0x40]);
    expect([nested.lookup(IOVA + 0x40), nested.lookup(WINDOW)]).toEqual([WINDOW + 0x40, WINDOW]);
    const taken = [0, 0, 0];
    const counts = during(tap, () => {
      for (let i = 0; i < 20_000; i++) {
        fn.raise(i % 3);
        kernel.settle();
        taken[i % 3]! += vectors[i % 3]!.take();
      }
    });
    expect(counts).toEqual({ sent: 20_000, delivered: 20_000, coalesced: 0, pending: 0, lost: {} });
    expect(taken).toEqual([6667, 6667, 6666]);
    expect(nested.events()).toEqual([]);
    iommufd.close();
    expect(left()).toEqual([0, 0]);
    expect(dev.iommuGroup!.domain === dev.iommuGroup!.defaultDomain).toBe(true);
  });

  it('without the stage-1 mapping they are lost, and a record carries the virtual stream id', () => {
    const { fn, kernel, attach, tap } = bed();
    const nested = attach();
    nested.doorbell.set({ iova: IOVA });
    const { vectors } = nested.doorbell.enable(3);
    expect(nested.unmap(IOVA, PAGE)).toBe(PAGE);
    const counts = during(tap, () => {
      fn.raise(1);
      kernel.settle();
    });
    expect(counts).toEqual({ sent: 1, delivered: 0, coalesced: 0, pending: 0, lost: { IOMMU_FAULT: 1 } });
    expect(nested.events()).toEqual([
      {
        sequence: 0,
        name: 'F_TRANSLATION',
        streamId: VSID,
        input: BigInt(IOVA + 0x40),
        words: recordOf(0x10, IOVA + 0x40),
      },
    ]);
    nested.map(IOVA, WINDOW, PAGE, 'device');
    fn.raise(1);
    kernel.settle();
    expect([vectors[1]!.take(), nested.events()]).toEqual([1, []]);
  });

  it('what the kernel rewrites arrives by the window before the repair, and by the IOVA after it', () => {
    const { fn, kernel, device, attach, addresses, tap } = bed();
    const nested = attach();
    nested.doorbell.set({ iova: IOVA, by: 'table' });
    const { vectors } = nested.doorbell.enable(3);
    // Programming a vector anew writes the kernel's message into its entry (vfio_pci_intrs.c `vfio_msi_set_vector_signal`).
    device.msix.program(1, [vectors[1]!.target]);
    expect(addresses()).toEqual([IOVA + 0x40, WINDOW + 0x40, IOVA + 0x40]);
    const ring = () =>
      during(tap, () => {
        for (const vector of [0, 1, 2]) {
          fn.raise(vector);
          kernel.settle();
          vectors[vector]!.take();
        }
      }).delivered;
    expect(ring()).toBe(3);
    expect([nested.doorbell.repair(), nested.doorbell.repair()]).toEqual([1, 0]);
    expect(addresses()).toEqual([IOVA + 0x40, IOVA + 0x40, IOVA + 0x40]);
    expect(ring()).toBe(3);
    nested.doorbell.clear();
    expect(addresses()).toEqual([WINDOW + 0x40, WINDOW + 0x40, WINDOW + 0x40]);
    expect([ring(), nested.lookup(IOVA)]).toEqual([3, null]);
    expect(countsOf(tap).lost).toEqual({});
  });

  it('moves while vectors are enabled, and is where the kernel has it without a choice', () => {
    const { fn, kernel, attach, addresses, tap } = bed();
    const nested = attach();
    const { vectors } = nested.doorbell.enable(3);
    expect(addresses()).toEqual([WINDOW + 0x40, WINDOW + 0x40, WINDOW + 0x40]);
    for (const iova of [IOVA, 0x1000, 0xffff_ffff_f000]) {
      nested.doorbell.set({ iova, by: 'table' });
      expect(addresses()).toEqual([iova + 0x40, iova + 0x40, iova + 0x40]);
      fn.raise(2);
      kernel.settle();
      vectors[2]!.take();
    }
    expect(countsOf(tap)).toMatchObject({ sent: 3, delivered: 3, lost: {} });
    expect(caught(() => nested.doorbell.set({ iova: 2 ** 48 }))).toMatchObject({ code: 'EINVAL', request: 'stage 1' });
  });
});

it('another page of the window is as good as any, and its own again afterwards', () => {
  const { fn, kernel, attach, addresses, tap } = bed();
  const nested = attach();
  // Where QEMU's virt has the guest's own ITS.
  nested.doorbell.set({ iova: 0x809_0040 });
  expect([nested.lookup(0x809_0040), nested.lookup(0x808_f000)]).toEqual([WINDOW + 0x40, 0x808_f000]);
  const { vectors } = nested.doorbell.enable(3);
  expect(addresses()).toEqual([0x809_0040, 0x809_0040, 0x809_0040]);
  fn.raise(0);
  kernel.settle();
  expect([vectors[0]!.take(), countsOf(tap).lost]).toEqual([1, {}]);
  nested.device.msix.disable();
  nested.doorbell.clear();
  expect(nested.lookup(0x809_0040)).toBe(0x809_0040);
});

describe('by PREPARE, as posted for Linux', () => {
  it('the kernel programs the IOVA itself, so that nothing is to be repaired; it holds until the vectors are disabled', () => {
    const { fn, kernel, device, attach, addresses } = bed({ abi: 'belfry' });
    const nested = attach();
    expect(nested.doorbell.set({ iova: IOVA, by: 'prepare' })).toMatchObject({ by: 'prepare', window: WINDOW });
    // Not through the library's own enable: there is nothing that it would add.
    const { vectors } = device.msix.enable(3);
    expect(addresses()).toEqual([IOVA + 0x40, IOVA + 0x40, IOVA + 0x40]);
    device.msix.program(1, [vectors[1]!.target]);
    expect([addresses()[1], nested.doorbell.repair()]).toEqual([IOVA + 0x40, 0]);
    fn.raise(1);
    kernel.settle();
    expect(vectors[1]!.take()).toBe(1);
    expect(caught(() => nested.doorbell.clear())).toMatchObject({ code: 'EBUSY', field: 'by' });
    expect(caught(() => nested.doorbell.set({ iova: 0x1000 }))).toMatchObject({ code: 'EBUSY' });
    expect(nested.doorbell.state).toMatchObject({ iova: IOVA });
    device.msix.disable();
    nested.doorbell.clear();
    device.msix.enable(3);
    expect(addresses()).toEqual([WINDOW + 0x40, WINDOW + 0x40, WINDOW + 0x40]);
    expect(caught(() => nested.doorbell.set({ iova: IOVA, by: 'prepare' })).code).toBe('EBUSY');
    expect(nested.doorbell.set({ iova: IOVA })).toMatchObject({ by: 'table' });
  });

  it('plain MSI too', () => {
    const { fn, kernel, dev, device, attach, tap } = bed({ abi: 'belfry', options: { msix: 0, msi: 2 } });
    const nested = attach();
    expect(nested.doorbell.set({ kind: 'msi', iova: IOVA })).toEqual({
      kind: 'msi',
      iova: IOVA,
      window: WINDOW,
      by: 'prepare',
    });
    const { vectors } = device.msi.enable(2);
    expect(msiMessage(dev)).toMatchObject({ address: IOVA + 0x40, vectors: 2, enabled: true });
    fn.raise(1);
    kernel.settle();
    expect([vectors[1]!.take(), countsOf(tap).lost]).toEqual([1, {}]);
  });

  it('nobody carries the window itself, which is the kernel’s own choice', () => {
    const { device, attach } = bed({ abi: 'linux-7.2' });
    const nested = attach();
    expect(nested.doorbell.set({ iova: WINDOW, by: 'table' })).toMatchObject({ iova: WINDOW, by: 'window' });
    device.msix.enable(1);
    expect([nested.doorbell.repair(), nested.lookup(WINDOW)]).toEqual([0, WINDOW]);
    nested.doorbell.clear();
    expect(nested.lookup(WINDOW)).toBe(WINDOW);
  });

  it('is what a choice takes where the kernel has it', () => {
    expect(bed({ abi: 'belfry' }).attach().doorbell.set({ iova: IOVA }).by).toBe('prepare');
    expect(bed({ abi: 'linux-7.2' }).attach().doorbell.set({ iova: IOVA }).by).toBe('table');
  });
});

describe('with the window moved (IOMMU_OPTION_SW_MSI_START and _SIZE)', () => {
  const MOVED = 0x4000_0000;
  const window = { start: MOVED, end: MOVED + 2 ** 20 - 1 };

  function moved(options: TestHostOptions = {}) {
    const made = bed({ abi: 'belfry', ...options });
    const { device, ioas, iommufd } = made;
    device.detach();
    for (const [option_id, val64] of [
      [IOMMU_OPTION_SW_MSI_START, MOVED],
      [IOMMU_OPTION_SW_MSI_SIZE, 1],
    ] as const) {
      const fields = { option_id, op: IOMMU_OPTION_OP_SET, object_id: device.id, val64 };
      iommufd.request('IOMMU_OPTION', IOMMU_OPTION, iommu_option, fields);
    }
    device.attach(ioas);
    const ring = (vector: number) =>
      during(made.tap, () => {
        made.fn.raise(vector);
        made.kernel.settle();
      });
    return { ...made, ring };
  }

  it('stage 1 maps it to itself, and the driver’s window is free for anything', () => {
    const { device, ioas, ring, addresses, dma } = moved();
    const buffer = ioas.mapDma({ length: PAGE, iova: WINDOW });
    const nested = Nested.attach(device, ioas, { streamId: VSID, window });
    expect([nested.windows, nested.lookup(MOVED), nested.lookup(WINDOW)]).toEqual([[window], MOVED, null]);
    const { vectors } = device.msix.enable(3);
    expect(addresses()).toEqual([MOVED + 0x40, MOVED + 0x40, MOVED + 0x40]);
    expect([ring(2).lost, vectors[2]!.take()]).toEqual([{}, 1]);
    nested.map(WINDOW, WINDOW, PAGE);
    expect([dma(WINDOW + 0x40, 0x5a), buffer.bytes[0x40]]).toEqual([true, 0x5a]);
  });

  it.each(['prepare', 'table'] as const)('an IOVA of its own by %s: onto the moved window’s page', (by) => {
    const { device, ioas, ring, addresses, iommufd, left } = moved();
    const nested = Nested.attach(device, ioas, { streamId: VSID, window });
    expect(nested.doorbell.set({ iova: IOVA, by })).toMatchObject({ iova: IOVA, window: MOVED, by });
    const { vectors } = nested.doorbell.enable(3);
    expect([addresses(), nested.lookup(IOVA + 0x40)]).toEqual([Array(3).fill(IOVA + 0x40), MOVED + 0x40]);
    expect([ring(0).lost, ring(1).lost, vectors[0]!.take(), vectors[1]!.take()]).toEqual([{}, {}, 1, 1]);
    iommufd.close();
    expect(left()).toEqual([0, 0]);
  });

  it('plain MSI by PREPARE', () => {
    const { device, ioas, ring, dev } = moved({ options: { msix: 0, msi: 2 } });
    const nested = Nested.attach(device, ioas, { streamId: VSID, window });
    expect(nested.doorbell.set({ kind: 'msi', iova: IOVA })).toMatchObject({ window: MOVED, by: 'prepare' });
    const { vectors } = device.msi.enable(2);
    expect([msiMessage(dev).address, ring(1).lost, vectors[1]!.take()]).toEqual([IOVA + 0x40, {}, 1]);
  });

  it('not told of it, MSI-X finds it in the table of the vectors; without a doorbell they are lost, and recorded', () => {
    const { device, ioas, ring } = moved();
    const nested = Nested.attach(device, ioas, { streamId: VSID });
    device.msix.enable(3);
    expect(ring(0).lost).toEqual({ IOMMU_FAULT: 1 });
    expect(nested.events()).toMatchObject([{ name: 'F_TRANSLATION', streamId: VSID, input: BigInt(MOVED + 0x40) }]);
    device.msix.disable();
    expect(nested.doorbell.set({ iova: IOVA })).toMatchObject({ window: MOVED });
    const { vectors } = nested.doorbell.enable(3);
    expect([ring(0).lost, vectors[0]!.take()]).toEqual([{}, 1]);
  });
});

it('20,000 interrupts on Linux 7.2 as it is: by the table', () => {
  const { fn, kernel, attach, tap } = bed({ abi: 'linux-7.2' });
  const nested = attach();
  nested.doorbell.set({ iova: IOVA });
  const { vectors } = nested.doorbell.enable(3);
  for (let i = 0; i < 20_000; i++) {
    fn.raise(i % 3);
    kernel.settle();
    vectors[i % 3]!.take();
  }
  expect(countsOf(tap)).toEqual({ sent: 20_000, delivered: 20_000, coalesced: 0, pending: 0, lost: {} });
});

it('an interrupt that comes while its entry is rewritten waits, and arrives', () => {
  const { fn, kernel, device, attach, host, dev, tap } = bed({ abi: 'linux-7.2' });
  const nested = attach();
  nested.doorbell.set({ iova: IOVA });
  const { vectors } = nested.doorbell.enable(3);
  for (let i = 0; i < 100; i++) {
    fn.raise(0);
    device.msix.program(1, [vectors[1]!.target]);
    fn.raise(1);
    nested.doorbell.repair();
    fn.raise(1);
    kernel.settle();
    vectors[0]!.take();
    vectors[1]!.take();
  }
  expect(msixEntry(host, dev, 1)).toMatchObject({ address: IOVA + 0x40, masked: false });
  const { sent, delivered, coalesced, pending, lost } = countsOf(tap);
  expect({ sent, ended: delivered + coalesced + pending, lost }).toEqual({ sent: 300, ended: 300, lost: {} });
});

it.each(['belfry', 'linux-7.2'] as const)(
  'pages of 64 KiB, abi %s: tables of that granule, the doorbell in one of them',
  (abi) => {
    const { fn, kernel, attach, ioas, dma, tap, addresses } = bed({ abi, input: { pageSize: 65536 } });
    const buffer = ioas.mapDma({ length: 65536, iova: IPA });
    const nested = attach();
    expect(nested.granule).toBe(65536);
    nested.map(0x7_0000, IPA, 65536);
    expect([dma(0x7_0008, 0x5a), buffer.bytes[8]]).toEqual([true, 0x5a]);
    nested.doorbell.set({ iova: 0x7_1234_0000 });
    const { vectors } = nested.doorbell.enable(1);
    // The page's offset of GITS_TRANSLATER is the frame's: 64 KiB pages hold all of it.
    expect(addresses()[0]).toBe(0x7_1234_0040);
    fn.raise(0);
    kernel.settle();
    expect([vectors[0]!.take(), countsOf(tap).lost]).toEqual([1, {}]);
  },
);

describe('a stage 1 in memory', () => {
  it('maps pages and blocks, refuses the rest, and forgets what is unmapped', () => {
    const { attach, ioas, dma } = bed();
    const buffer = ioas.mapDma({ length: 4 * 2 ** 20, iova: 0x4000_0000 });
    const words = new Uint32Array(buffer.bytes.buffer, buffer.bytes.byteOffset, buffer.length / 4);
    const nested = attach();
    expect(dma(0x4000_0000, 1)).toBe(false);
    // 2 MiB and a page: a block, then a table.
    nested.map(0x20_0000, 0x4000_0000, 0x20_1000);
    expect(dma(0x20_0010, 0x11)).toBe(true);
    expect(dma(0x40_0ffc, 0x22)).toBe(true);
    expect(dma(0x40_1000, 0x33)).toBe(false);
    expect([words[4], words[0x20_0ffc / 4]]).toEqual([0x11, 0x22]);
    expect(nested.events().map(({ name, input }) => [name, input])).toEqual([
      ['F_TRANSLATION', 0x4000_0000n],
      ['F_TRANSLATION', 0x40_1000n],
    ]);
    expect(caught(() => nested.unmap(0x20_0000, PAGE)).message).toBe(
      'stage 1: EINVAL: 0x0020_0000 + 0x1000 cuts the block 0x0020_0000 + 0x20_0000 (iova)',
    );
    expect(caught(() => nested.map(0x40_0000, IPA, PAGE)).code).toBe('EEXIST');
    expect(caught(() => nested.map(0x40_0800, IPA, PAGE)).code).toBe('EINVAL');
    expect(nested.unmap(0x20_0000, 0x20_1000)).toBe(0x20_1000);
    expect([dma(0x20_0010, 0x44), words[4]]).toEqual([false, 0x11]);
    expect(nested.unmap(0x20_0000, 0x20_1000)).toBe(0);
  });

  it('means the new page at once after an unmap and a map; commands of a guest pass, others are EIO', () => {
    const { attach, ioas, dma } = bed();
    const buffer = ioas.mapDma({ length: 2 * PAGE, iova: IPA });
    const nested = attach();
    nested.map(0x5000, IPA, PAGE);
    expect([dma(0x5000, 1), nested.unmap(0x5000, PAGE)]).toEqual([true, PAGE]);
    nested.map(0x5000, IPA + PAGE, PAGE);
    dma(0x5000, 2);
    expect([buffer.bytes[0], buffer.bytes[PAGE]]).toEqual([1, 2]);
    nested.invalidate([command(TLBI, { Opcode: Op.TLBI_NH_ASID, ASID: 1 })]);
    expect(caught(() => nested.invalidate([command(TLBI, { Opcode: Op.TLBI_S12_VMALL })])).code).toBe('EIO');
  });
});

describe('closing', () => {
  it.each(['nested', 'device', 'ioas', 'iommufd', 'process'] as const)('the %s first: counts at zero', (first) => {
    const { host, attach, device, ioas, iommufd, process, left, dev, tap, kernel, fn } = bed();
    const nested = attach();
    nested.doorbell.set({ iova: IOVA });
    const { vectors } = nested.doorbell.enable(3);
    fn.raise(0);
    kernel.settle();
    expect(vectors[0]!.take()).toBe(1);
    if (first === 'process') host.kernel.exit(process);
    else ({ nested, device, ioas, iommufd })[first].close();
    if (first === 'nested') {
      expect(device.table).toBe(null);
      device.attach(ioas);
      const again = attach();
      again.doorbell.set({ iova: 0x1000 });
    }
    if (first !== 'process') iommufd.close();
    expect(left()).toEqual([0, 0]);
    expect(dev.iommuGroup!.domain === dev.iommuGroup!.defaultDomain).toBe(true);
    expect(countsOf(tap)).toMatchObject({ sent: 1, delivered: 1, pending: 0, lost: {} });
    expect(host.msi.mode(dev)).toBe(null);
  });
});

describe('what it cannot do', () => {
  it('plain MSI on a kernel without PREPARE: its address is the kernel’s; at the window it arrives', () => {
    const { attach, device, fn, kernel, tap } = bed({ abi: 'linux-7.2', options: { msix: 0, msi: 1 } });
    expect(device.config.find(CapabilityId.MSIX)).toBe(null);
    const nested = attach();
    const error = caught(() => nested.doorbell.set({ kind: 'msi', iova: IOVA }));
    expect(error).toMatchObject({ code: 'EOPNOTSUPP', field: 'kind' });
    expect(error.message).toContain('lies in configuration space');
    expect([nested.doorbell.state, nested.lookup(IOVA)]).toEqual([null, null]);
    expect(caught(() => nested.doorbell.set({ iova: IOVA })).why).toContain('has no MSI-X');
    const { vectors } = device.msi.enable(1);
    fn.raise(0);
    kernel.settle();
    expect(vectors[0]!.take()).toBe(1);
    expect(countsOf(tap)).toMatchObject({ sent: 1, delivered: 1, lost: {} });
  });

  it('PREPARE where the kernel must have it and has not', () => {
    const { attach } = bed({ abi: 'linux-7.2' });
    const nested = attach();
    expect(caught(() => nested.doorbell.set({ iova: IOVA, by: 'prepare' }))).toMatchObject({
      code: 'EOPNOTSUPP',
      field: 'by',
    });
    expect(nested.doorbell.set({ iova: IOVA })).toMatchObject({ by: 'table' });
  });

  it('an SMMU that user space must not nest on, and x86: said, and the device detached', () => {
    const iommu = { type: 'smmuv3' as const, base: 0x5200_0000, s2fwb: false, canwbs: false };
    const arm = bed({ input: { iommu } });
    expect(caught(arm.attach)).toMatchObject({ code: 'EOPNOTSUPP' });
    arm.iommufd.close();
    expect(arm.left()).toEqual([0, 0]);
    const x86 = bed({}, 'x86');
    expect(caught(x86.attach).why).toContain('is no SMMUv3');
    x86.iommufd.close();
    expect(x86.left()).toEqual([0, 0]);
  });
});

describe('a refusal on the cdev path names the call, the check and what would pass', () => {
  it.each(['belfry', 'linux-7.2'] as const)('abi %s', (abi) => {
    const { kernel, iommufd, ioas, device, attach } = bed({ abi });
    const memory = kernel.allocate(PAGE);
    if (typeof memory === 'number') throw new Error('no memory');
    const other = Ioas.create(iommufd);
    other.map(WINDOW, memory.address, PAGE);
    expect(caught(() => ioas.map(WINDOW, memory.address, PAGE))).toMatchObject({
      request: 'IOMMU_IOAS_MAP',
      code: 'EINVAL',
      why: '0x0800_0000 to 0x0800_0fff overlaps the reserved region sw-msi 0x0800_0000 to 0x080f_ffff',
      hint: 'IOAS_IOVA_RANGES lists what may be mapped',
    });
    expect(caught(() => device.replace(other))).toMatchObject({
      request: 'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
      code: 'EADDRINUSE',
      why: 'the reserved region sw-msi 0x0800_0000 to 0x080f_ffff overlaps the mapping 0x0800_0000 to 0x0800_0fff',
      hint: 'unmap it, or attach the device before memory is mapped',
    });
    attach();
    expect(caught(attach)).toMatchObject({
      request: 'IOMMU_VDEVICE_ALLOC',
      code: 'EEXIST',
      why: expect.stringMatching(/^0000:01:00.0 is vDEVICE \d+ already, of vIOMMU \d+$/),
      hint: 'destroy that one first: a device has one name at a time',
    });
  });

  it('an entry with what is not the guest’s: which bits, and which fields it may have', () => {
    const { device, ioas, iommufd } = bed();
    const parent = Hwpt.create(device, ioas, { nestParent: true });
    const fields = { type: IOMMU_VIOMMU_TYPE_ARM_SMMUV3, dev_id: device.id, hwpt_id: parent.id };
    const { out_viommu_id } = iommufd.request('IOMMU_VIOMMU_ALLOC', IOMMU_VIOMMU_ALLOC, iommu_viommu_alloc, fields);
    const entry = (words: readonly [bigint, bigint]) => caught(() => Hwpt.nested(device, ioas, out_viommu_id, words));
    // SHCFG, bit 44 of word 1.
    expect(entry([0b1011n, 1n << 44n])).toMatchObject({
      request: 'IOMMU_HWPT_ALLOC',
      code: 'EIO',
      field: 'ste',
      why: "word 1 of the entry has bits 0x1000_0000_0000 of fields that are not the guest's",
      hint: 'there it may say S1DSS, S1CIR, S1COR, S1CSH, S1STALLD, EATS',
    });
    expect(entry([0b1101n, 0n])).toMatchObject({
      code: 'EIO',
      why: 'Config 6 is none of abort 0, bypass 4, stage 1 5',
      hint: "stage 2 is the kernel's, and stage 1 alone is 5",
    });
  });

  it('EPERM at the bind, where MSIs are not isolated', () => {
    const { kernel } = testHost('arm-v2m').process();
    const iommufd = Iommufd.open(kernel);
    expect(caught(() => CdevDevice.open(kernel, DEVICE).bind(iommufd))).toMatchObject({
      request: 'VFIO_DEVICE_BIND_IOMMUFD',
      code: 'EPERM',
      why: expect.stringContaining('not isolated'),
      hint: 'set iommufd.allow_unsafe_interrupts to accept that',
    });
  });
});

it('the bell rings by its own register too', () => {
  const { attach, device, kernel, tap } = bed();
  const nested = attach();
  nested.doorbell.set({ iova: IOVA });
  const { vectors } = nested.doorbell.enable(3);
  device.bar(0).write32(BellRegister.RING, 2);
  kernel.settle();
  expect([vectors[2]!.take(), countsOf(tap).delivered]).toEqual([1, 1]);
});
