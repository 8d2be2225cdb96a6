import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../uapi/errno.ts';
import { IRQ_TYPE } from './irq-chip.ts';
import { ItsHost, V2mHost } from './testing/controllers.ts';

describe.each([
  ['GICv3', () => new ItsHost()],
  ['GICv2', () => new V2mHost()],
])('%s as a chip of wired interrupts', (name, make) => {
  it('signals a level until it is served, again at each unmask', () => {
    const { gic, chip, sink } = make();
    expect(chip.name).toBe(name);
    gic.setLine(36, true);
    expect(sink.take()).toEqual([]);
    chip.unmask(36);
    expect(sink.take()).toEqual([[36, 0]]);
    chip.mask(36);
    chip.unmask(36);
    expect(sink.take()).toEqual([[36, 0]]);
    gic.setLine(36, false);
    chip.mask(36);
    chip.unmask(36);
    expect(sink.take()).toEqual([]);
  });

  it('takes edges when told to', () => {
    const { gic, chip, sink } = make();
    expect(chip.setType(40, IRQ_TYPE.EDGE_RISING)).toBe(0);
    gic.setLine(40, true);
    gic.setLine(40, false);
    chip.unmask(40);
    expect(sink.take()).toEqual([[40, 0]]);
    expect(chip.setType(40, IRQ_TYPE.LEVEL_HIGH)).toBe(0);
    gic.setLine(40, true);
    expect(sink.take()).toEqual([[40, 0]]);
  });

  it('routes to a CPU', () => {
    const { gic, chip, sink } = make();
    expect(chip.setAffinity(33, 1)).toBe(0);
    chip.unmask(33);
    gic.setLine(33, true);
    expect(sink.take()).toEqual([[33, 1]]);
  });

  it('refuses what is no SPI and no CPU', () => {
    const { chip } = make();
    expect(chip.setType(31, IRQ_TYPE.EDGE_RISING)).toBe(-ERRNO.EINVAL);
    expect(chip.setAffinity(2000, 0)).toBe(-ERRNO.EINVAL);
    expect(chip.setAffinity(33, 7)).toBe(-ERRNO.EINVAL);
  });
});
