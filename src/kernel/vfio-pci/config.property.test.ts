/** Random configuration writes: what a user must never reach stays as the host has it, whatever is written where. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Rig } from './testing/rig.ts';

const MSI_CAP = 0x05;
const MSIX_CAP = 0x11;

const write = fc.record({
  pos: fc.oneof(fc.nat(0xff), fc.nat(0x3f), fc.nat(4095)),
  bytes: fc.uint8Array({ minLength: 1, maxLength: 9 }),
});

describe('random configuration writes', () => {
  it('the real BARs, ROM, MSI message and MSI-X control never change, MSI is never enabled, every access in range succeeds', () => {
    const rig = new Rig({
      vendorId: 0x1b36,
      deviceId: 0x0010,
      classCode: 0x010802,
      bars: [{ type: 'memory64', size: 0x4000 }, null, { type: 'memory32', size: 0x1000 }, null, null, null],
      msi: { vectors: 4, address64: true, perVectorMask: true },
      msix: { vectors: 8, table: { bar: 0, offset: 0x2000 }, pba: { bar: 0, offset: 0x3000 } },
      interruptPin: 1,
      express: { type: 'endpoint', flr: true },
      powerManagement: true,
    });
    const { dev } = rig;
    const msi = dev.capability(MSI_CAP);
    const msix = dev.capability(MSIX_CAP);
    const host = (): number[] => [
      ...[0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30, msi + 4, msi + 8].map((at) => dev.configRead(at, 4)),
      dev.configRead(msi + 12, 2),
      dev.configRead(msix + 2, 2),
      dev.configRead(msi + 2, 2) & 1,
      dev.configRead(0, 4),
    ];
    rig.open();
    const before = host();
    fc.assert(
      fc.property(fc.array(write, { minLength: 1, maxLength: 20 }), (writes) => {
        for (const { pos, bytes } of writes) {
          expect(rig.write(7, pos, bytes)).toBe(pos + bytes.length <= 4096 ? bytes.length : 'EFAULT');
        }
        // Back to D0 with decoding on, as an owner would go on.
        rig.setConfig(dev.capability(1) + 4, 2, 0);
        rig.setConfig(4, 2, 2);
        expect(host()).toEqual(before);
        expect(rig.core.state.irqType).toBe(5);
        expect(rig.config(0, 4)).toBe(0x0010_1b36);
      }),
      { numRuns: 1000 },
    );
    rig.core.closeDevice();
    expect(dev.powerState).toBe(3);
  });

  it('reads of any size and place agree byte for byte', () => {
    const rig = new Rig().open();
    const whole = rig.read(7, 0, 4096) as Uint8Array;
    fc.assert(
      fc.property(fc.nat(4095), fc.integer({ min: 1, max: 17 }), (pos, count) => {
        const expected = pos + count <= 4096 ? whole.slice(pos, pos + count) : 'EFAULT';
        expect(rig.read(7, pos, count)).toEqual(expected);
      }),
      { numRuns: 1000 },
    );
  });
});
