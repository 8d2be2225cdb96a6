import { describe, expect, it } from 'vitest';
import { CapabilityId } from '../../arch/pci/index.ts';
import { swizzle } from './intx.ts';
import { capabilityOf, rig, single, TestModel } from './testing/rig.ts';

const COMMAND = 0x04;
const STATUS = 0x06;
const INTERRUPT = 0x08;

describe('INTx', () => {
  it('device 1 pin A is the second line; the status bit follows the device, the line also the disable bit', () => {
    const { fn, lines } = single({ interruptPin: 1 });
    fn.setInterruptLine(true);
    expect([lines, fn.configRead(STATUS, 2) & INTERRUPT]).toEqual([['1+'], INTERRUPT]);
    fn.setInterruptLine(true);
    fn.configWrite(COMMAND, 2, 0x400);
    expect([lines, fn.configRead(STATUS, 2) & INTERRUPT]).toEqual([['1+', '1-'], INTERRUPT]);
    fn.setInterruptLine(false);
    fn.setInterruptLine(true);
    fn.configWrite(COMMAND, 2, 0);
    expect(lines).toEqual(['1+', '1-', '1+']);
    fn.setInterruptLine(false);
    expect([lines.at(-1), fn.configRead(STATUS, 2) & INTERRUPT]).toEqual(['1-', 0]);
  });

  it('is silent while MSI is enabled, without a pin, and after a reset', () => {
    const { fn, lines } = single({ interruptPin: 1, msi: { vectors: 1 } });
    const at = capabilityOf(fn, CapabilityId.MSI) + 2;
    fn.configWrite(at, 2, 1);
    fn.setInterruptLine(true);
    expect(lines).toEqual([]);
    fn.configWrite(at, 2, 0);
    expect(lines).toEqual(['1+']);
    fn.reset();
    expect(lines).toEqual(['1+', '1-']);
    const without = single({});
    without.fn.setInterruptLine(true);
    expect(without.lines).toEqual([]);
  });

  it('a line is up while any pin on it is', () => {
    const { root, lines } = rig();
    const a = root.addFunction(root.rootBus, 1 << 3, new TestModel({ interruptPin: 1 }));
    const b = root.addFunction(root.rootBus, 5 << 3, new TestModel({ interruptPin: 1 }));
    root.start();
    a.setInterruptLine(true);
    b.setInterruptLine(true);
    a.setInterruptLine(false);
    expect(lines).toEqual(['1+']);
    b.setInterruptLine(false);
    expect(lines).toEqual(['1+', '1-']);
  });

  it('turns by the device number at each bridge', () => {
    // PCI-to-PCI Bridge 1.2, table 9-1: device 0 A-A, device 1 A-B, device 2 A-C, device 3 A-D, device 4 A-A.
    expect([0, 1, 2, 3, 4].map((device) => swizzle(1, device))).toEqual([1, 2, 3, 4, 1]);
    expect(swizzle(4, 1)).toBe(1);
    const { root, lines } = rig();
    const port = root.addBridge(root.rootBus, 2 << 3, 'root-port');
    const bridge = root.addBridge(port.secondary, 0, 'pci-bridge');
    const fn = root.addFunction(bridge.secondary, 3 << 3, new TestModel({ interruptPin: 2 }));
    root.start();
    // B at device 3 is A above the bridge; the bridge is device 0: A; the port is device 2 on the root bus: line 2.
    fn.setInterruptLine(true);
    expect(lines).toEqual(['2+']);
  });
});
