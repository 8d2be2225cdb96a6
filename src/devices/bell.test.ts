import { describe, expect, it } from 'vitest';
import { BELL_ID, Bell, BellDma, BellStatus, BellRegister as R } from './bell.ts';
import { createDevice, deviceNames } from './registry.ts';
import { carry } from './testing/port.ts';

describe('bell', () => {
  it('rings what it is told', () => {
    const bell = new Bell();
    const { events } = carry(bell);
    expect(bell.read(R.ID, 4)).toBe(BELL_ID);
    bell.write(R.RING, 4, 3);
    bell.write(R.RING, 2, 4);
    bell.ring(31);
    bell.write(R.LINE, 4, 1);
    bell.write(R.LINE, 4, 0);
    expect(events).toEqual(['vector 3', 'vector 31', 'line up', 'line down']);
    expect(bell.read(R.RAISED, 4)).toBe(2);
  });

  it('moves bytes both ways, and interrupts when asked', () => {
    const bell = new Bell({ memory: 8192 });
    const { events, memory, port, drain } = carry(bell);
    memory.set([1, 2, 3, 4], 0x100);
    bell.write(R.DMA_IOVA_LO, 4, 0x100);
    bell.write(R.DMA_LOCAL, 4, 0x1000);
    bell.write(R.DMA_LENGTH, 4, 4);
    bell.write(R.DMA_VECTOR, 4, 7);
    bell.write(R.DMA_COMMAND, 4, BellDma.START | BellDma.INTERRUPT);
    expect(bell.read(R.STATUS, 4)).toBe(BellStatus.BUSY);
    drain();
    expect(bell.read(R.STATUS, 4)).toBe(BellStatus.DONE);
    expect([...port.barMemory(4, 0x1000, 4)]).toEqual([1, 2, 3, 4]);
    bell.write(R.DMA_IOVA_LO, 4, 0x200);
    bell.write(R.DMA_COMMAND, 4, BellDma.START | BellDma.TO_MEMORY);
    drain();
    expect([...memory.subarray(0x200, 0x204)]).toEqual([1, 2, 3, 4]);
    expect(events).toEqual(['vector 7']);
    bell.write(R.DMA_LENGTH, 4, 8192);
    bell.write(R.DMA_COMMAND, 4, BellDma.START);
    expect(bell.read(R.STATUS, 4)).toBe(BellStatus.DONE | BellStatus.FAILED);
    bell.write(R.DMA_LENGTH, 4, 4);
    bell.write(R.DMA_IOVA_HI, 4, 1);
    bell.write(R.DMA_COMMAND, 4, BellDma.START);
    drain();
    expect(bell.read(R.STATUS, 4)).toBe(BellStatus.DONE | BellStatus.FAILED);
  });

  it('writes a sequence number before each interrupt, and raises none without it', () => {
    const bell = new Bell();
    const { events, memory, drain } = carry(bell);
    bell.write(R.SEQUENCE_LO, 4, 0x400);
    bell.write(R.SEQUENCE_CONTROL, 4, 1);
    bell.write(R.RING, 4, 2);
    bell.write(R.RING, 4, 2);
    bell.write(R.RING, 4, 0);
    expect(events).toEqual([]);
    drain();
    expect(events).toEqual(['vector 2', 'vector 2', 'vector 0']);
    expect([memory[0x400], memory[0x408]]).toEqual([1, 2]);
    bell.write(R.SEQUENCE_HI, 4, 0x10);
    bell.write(R.RING, 4, 1);
    drain();
    expect([bell.read(R.SEQUENCE_FAILED, 4), events.length]).toEqual([1, 3]);
    bell.reset();
    bell.write(R.RING, 4, 1);
    expect(events).toHaveLength(4);
  });

  it('lays its table where it is told', () => {
    expect(createDevice('bell', { msix: 2048 }).spec).toMatchObject({
      msix: { vectors: 2048, table: { bar: 2, offset: 0 }, pba: { bar: 2, offset: 0x8000 } },
      bars: [{ size: 4096 }, null, { size: 0x1_0000 }, null, { size: 0x1_0000 }, null],
    });
    const odd = new Bell({ msix: 3, tableBar: 0, tableOffset: 0x1008, pbaBar: 4, memory: 4096 }).spec;
    expect(odd.msix).toEqual({ vectors: 3, table: { bar: 0, offset: 0x1008 }, pba: { bar: 4, offset: 0x1000 } });
    expect(odd.bars.map((bar) => bar?.size)).toEqual([0x2000, undefined, undefined, undefined, 0x2000, undefined]);
    const none = new Bell({ msix: 0, msi: 0, intx: false, express: false }).spec;
    expect([none.msix, none.msi, none.interruptPin, none.express]).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
  });
});

describe('the registry', () => {
  it('knows its names', () => {
    expect(deviceNames).toEqual(['bell', 'edu', 'ioat', 'nvme-drive', 'pci-endpoint-test']);
  });

  const refused: readonly [string, Record<string, number | string | boolean>, RegExp][] = [
    ['belll', {}, /no model is called "belll"; there are bell, edu/],
    ['toString', {}, /no model/],
    ['bell', { msix: 2049 }, /^bell: msix: expected an integer from 0 to 2048, got 2049$/],
    ['bell', { msix: 1.5 }, /msix/],
    ['bell', { msix: 'all' }, /msix.*"all"/],
    ['bell', { msi: 3 }, /msi: expected one of 0, 1, 2, 4, 8, 16, 32/],
    ['bell', { tableBar: 1 }, /tableBar/],
    ['bell', { tableOffset: 4 }, /tableOffset: expected a multiple of 8/],
    ['bell', { pbaOffset: 8 }, /pbaOffset: expected a place outside of the table/],
    ['bell', { flr: 1 }, /flr: expected true or false/],
    ['bell', { vectors: 4 }, /vectors: no such option; there are .*msix/],
    ['edu', { dmaMask: -1 }, /edu: dmaMask/],
  ];
  for (const [name, options, message] of refused) {
    it(`refuses ${name} ${JSON.stringify(options)}`, () => {
      expect(() => createDevice(name, options)).toThrow(RangeError);
      expect(() => createDevice(name, options)).toThrow(message);
    });
  }
});

describe('virtual functions', () => {
  it('declares what SR-IOV needs, and makes a bell without a pin whose BARs agree', () => {
    const bell = new Bell({ vfs: 8, msix: 4 });
    expect(bell.spec.sriov).toMatchObject({ totalVfs: 8, vfDeviceId: 0xbe12, offset: 0x80, stride: 1 });
    const { spec } = bell.virtualFunction();
    expect(spec.bars.map((bar) => bar?.size ?? 0)).toEqual([0x1_0000, 0, 0x1_0000, 0, 0x1_0000, 0]);
    expect(bell.spec.sriov?.bars.map((bar) => bar?.size ?? 0)).toEqual(spec.bars.map((bar) => bar?.size ?? 0));
    expect([spec.deviceId, spec.interruptPin, spec.powerManagement, spec.sriov, spec.msix?.vectors]).toEqual([
      0xbe12,
      undefined,
      undefined,
      undefined,
      4,
    ]);
  });

  it('has none by default, and refuses more than 64 or any without express', () => {
    expect(new Bell().spec.sriov).toBeUndefined();
    expect(() => new Bell({ vfs: 65 })).toThrow('bell: vfs: expected an integer from 0 to 64, got 65');
    expect(() => new Bell({ vfs: 1, express: false })).toThrow('bell: vfs: expected 0 without express, got 1');
  });
});
