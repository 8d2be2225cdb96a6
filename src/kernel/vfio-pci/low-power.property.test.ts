/** Random programs of low power, PMCSR, requests, resets and closes, against a model of three booleans. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { VFIO_DEVICE_GET_INFO, VFIO_DEVICE_RESET, vfio_device_low_power_entry_with_wakeup } from '../../uapi/vfio.ts';
import { Rig } from './testing/rig.ts';

const SET = 1 << 17;
const STEPS = ['enter', 'enter with wakeup', 'leave', 'request', 'D3hot', 'D0', 'reset', 'reopen'] as const;

describe('a function in the hands of a user', () => {
  it('sleeps exactly while low power is engaged or PMCSR says so, and each wakeup is told once', () => {
    const rig = new Rig().open();
    const { fd, eventfd } = rig.eventfd();
    const payload = rig.user(vfio_device_low_power_entry_with_wakeup.bytes({ wakeup_eventfd: fd }));
    const info = rig.user(Uint8Array.of(24, 0, 0, 0));
    const control = rig.dev.capability(1) + 4;
    const feature = (id: number, address = 0, size = 0) => rig.core.feature(rig.process, id | SET, address, size);
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...STEPS), { maxLength: 12 }), (steps) => {
        let engaged = false;
        let wakes = false;
        let d3 = false;
        let told = 0;
        for (const step of steps) {
          // Every request wakes the function; what waits for that hears of it, and low power is over.
          if (engaged && wakes && step !== 'reopen') {
            told += 1;
            engaged = false;
          }
          if (step === 'enter' || step === 'enter with wakeup') {
            expect(step === 'enter' ? feature(3) : feature(4, payload, 8)).toBe(engaged ? -22 : 0);
            if (!engaged) wakes = step !== 'enter';
            engaged = true;
            d3 = false;
          } else if (step === 'leave') {
            expect(feature(5)).toBe(0);
            engaged = false;
          } else if (step === 'request') {
            expect(rig.core.ioctl(rig.process, VFIO_DEVICE_GET_INFO, BigInt(info))).toBe(0);
          } else if (step === 'D3hot' || step === 'D0') {
            rig.setConfig(control, 1, step === 'D0' ? 0 : 3);
            // Asleep again at once, the function is saved in D0.
            d3 = step === 'D3hot' && !engaged;
          } else if (step === 'reset') {
            expect(rig.core.ioctl(rig.process, VFIO_DEVICE_RESET, 0n)).toBe(0);
            d3 = false;
          } else {
            rig.core.closeDevice();
            rig.open();
            engaged = false;
            d3 = false;
          }
          expect([step, rig.dev.powerState]).toEqual([step, engaged || d3 ? 3 : 0]);
          expect(eventfd.count).toBe(told);
        }
        eventfd.drain();
        rig.core.closeDevice();
        rig.open();
      }),
      { numRuns: 1000 },
    );
  });
});
