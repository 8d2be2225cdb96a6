import { describe, expect, it } from 'vitest';
import { IOAPIC_BASE } from '../../arch/x86/index.ts';
import { Count, Loss } from '../../ports/ledger.ts';
import { ERRNO } from '../../uapi/errno.ts';
import { send } from './testing/controllers.ts';
import { X86Host } from './testing/x86-host.ts';
import { IoApicChip } from './x86-ioapic-chip.ts';

function make(remapped: boolean): { host: X86Host; chip: IoApicChip } {
  const host = new X86Host();
  if (remapped) expect(host.table.init()).toBe(0);
  return { host, chip: new IoApicChip(host.context, host.vectors, remapped ? host.table : null) };
}

describe.each([
  ['IO-APIC', false],
  ['IR-IO-APIC', true],
])('%s', (name, remapped) => {
  it('signals a level, and again at each unmask while it is high', () => {
    const { host, chip } = make(remapped);
    expect(chip.name).toBe(name);
    const one = chip.connect(16);
    const two = chip.connect(17);
    expect([one, two]).toEqual([0x22, 0x122]);
    expect(chip.connect(16)).toBe(one);
    host.ioapic.setLine(17, true);
    expect(host.sink.take()).toEqual([]);
    chip.unmask(two);
    expect(host.sink.take()).toEqual([[0x122, 1]]);
    chip.mask(two);
    chip.unmask(two);
    expect(host.sink.take()).toEqual([[0x122, 1]]);
    host.ioapic.setLine(17, false);
    chip.mask(two);
    chip.unmask(two);
    chip.unmask(one);
    expect(host.sink.take()).toEqual([]);
    host.ioapic.setLine(16, true);
    host.ioapic.setLine(16, true);
    expect(host.sink.take()).toEqual([[0x22, 0]]);
    // Wires are not in the ledger.
    expect(host.context.tap.ledger.every((count) => count === 0)).toBe(true);
  });

  it('refuses a pin that is none, and ends with its vectors', () => {
    const { host, chip } = make(remapped);
    expect(chip.connect(24)).toBe(-ERRNO.EINVAL);
    while (host.vectors.available > 0) host.vectors.allocate();
    expect(chip.connect(16)).toBe(-ERRNO.ENOSPC);
    expect(host.table.legacy.used).toBe(0);
    host.ioapic.setLine(24, true);
    host.ioapic.setLine(-1, true);
  });
});

describe('I/O APIC', () => {
  it('says how many entries it has', () => {
    const { bus } = new X86Host().context;
    bus.write32(IOAPIC_BASE, 1);
    expect(bus.read32(IOAPIC_BASE + 0x10)).toBe((23 << 16) | 0x20);
  });

  it('forgets an edge that comes while it is masked', () => {
    const { host } = make(false);
    const { bus } = host.context;
    const write = (index: number, value: number): void => {
      bus.write32(IOAPIC_BASE, index);
      bus.write32(IOAPIC_BASE + 0x10, value);
    };
    write(0x10 + 2 * 4 + 1, 1 << 24);
    write(0x10 + 2 * 4, 0x31 | (1 << 16));
    host.ioapic.setLine(4, true);
    write(0x10 + 2 * 4, 0x31);
    expect(host.sink.take()).toEqual([]);
    host.ioapic.setLine(4, false);
    host.ioapic.setLine(4, true);
    expect(host.sink.take()).toEqual([[256 + 0x31, 1]]);
  });

  it('has entries of the remapping table that no device can use', () => {
    const { host, chip } = make(true);
    chip.connect(16);
    // Entry 0 through a device's message.
    send(host.context, 0x28, 0xfee0_0010, 0);
    expect(host.sink.take()).toEqual([]);
    expect(host.context.tap.ledger[Count.LOST + Loss.REMAP_FAULT]).toBe(1);
  });
});
