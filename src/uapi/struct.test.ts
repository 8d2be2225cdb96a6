import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { array, hole, overlay, s32, tail, u8, u16, u32, u64 } from './field.ts';
import { kvm_irq_routing, kvm_irq_routing_entry } from './kvm.ts';
import { nested, struct, type Value } from './struct.ts';
import { vfio_irq_set } from './vfio-irq.ts';
import { vfio_pci_dependent_device } from './vfio-pci.ts';
import { vfio_iommu_type1_dirty_bitmap_get, vfio_iommu_type1_info_cap_migration } from './vfio-type1.ts';

const pair = struct('pair', { low: u8, pad: array(u8, 3), high: s32, wide: u64 });

describe('a struct is its table', () => {
  it('places fields as the C compiler does', () => {
    expect(pair.size).toBe(16);
    expect(pair.offsetOf('high')).toBe(4);
    expect(pair.endOf('high')).toBe(8);
    expect(vfio_iommu_type1_dirty_bitmap_get.offsetOf('bitmap')).toBe(16);
  });

  it('refuses a table that a compiler would pad', () => {
    expect(() => struct('x', { a: u8, b: u32 })).toThrow('struct x: a hole of 3 before b');
    expect(() => struct('x', { a: u64, b: u32 })).toThrow('struct x: a hole of 4 at the end');
    expect(() => struct('x', { a: tail(u8), b: u8 })).toThrow('struct x: b stands behind the tail');
  });

  it('writes little-endian, and zero for what is left out', () => {
    expect([...pair.bytes({ high: -2, wide: 0x1_0000_0002 })]).toEqual([
      0, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 2, 0, 0, 0, 1, 0, 0, 0,
    ]);
  });

  it('names the field that does not fit', () => {
    expect(() => pair.bytes({ low: 256 })).toThrow('pair.low: expected u8, an integer from 0 to 255, got 256');
    expect(() => pair.bytes({ low: 0.5 })).toThrow('pair.low');
    expect(() => pair.bytes({ wide: -1n })).toThrow('pair.wide: expected u64');
    expect(() => pair.bytes({ wide: 1n << 64n })).toThrow('pair.wide: expected u64');
    expect(() => pair.bytes({ wide: 2 ** 53 })).toThrow('pair.wide: expected u64');
    expect(() => pair.bytes({ pad: [0, 0, 0, 0] })).toThrow('pair.pad: expected at most 3 elements, got 4');
    const wrong = { hihg: 1 };
    expect(() => pair.bytes(wrong as object)).toThrow('struct pair has no field hihg');
  });

  it('names the buffer that is too short', () => {
    expect(() => pair.read(new Uint8Array(15))).toThrow('struct pair: needs 16 bytes at 0, the buffer has 15');
    expect(() => pair.read(new Uint8Array(32), 17)).toThrow('struct pair: needs 16 bytes at 17');
    expect(pair.readShort(Uint8Array.of(7))).toEqual({ low: 7, pad: [0, 0, 0], high: 0, wide: 0n });
  });

  it('patches single fields and leaves the rest', () => {
    const bytes = pair.bytes({ low: 1, wide: 5n });
    pair.patch(bytes, { high: 9 });
    expect(pair.read(bytes)).toEqual({ low: 1, pad: [0, 0, 0], high: 9, wide: 5n });
    expect(pair.get(bytes, 'wide')).toBe(5n);
  });

  it('reads and writes at an offset of a view that has one itself', () => {
    const inner = new Uint8Array(64).subarray(8);
    pair.write(inner, { low: 3 }, 16);
    expect(inner[16]).toBe(3);
    expect(pair.read(inner, 16).low).toBe(3);
  });

  it('round-trips every value of every kind', () => {
    const all = struct('all', {
      a: u8,
      b: u8,
      c: u16,
      d: u32,
      e: u64,
      f: s32,
      h: hole(4),
      n: nested(pair),
      t: tail(u16),
    });
    const value = fc.record({
      a: fc.integer({ min: 0, max: 255 }),
      b: fc.constant(0),
      c: fc.integer({ min: 0, max: 65535 }),
      d: fc.integer({ min: 0, max: 0xffffffff }),
      e: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      f: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
      n: fc.record({
        low: fc.integer({ min: 0, max: 255 }),
        pad: fc.constant<number[]>([0, 0, 0]),
        high: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
        wide: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      }),
      t: fc.array(fc.integer({ min: 0, max: 65535 }), { maxLength: 9 }),
    });
    fc.assert(
      fc.property(value, (v: Value<typeof all>) => {
        expect(all.read(all.bytes(v))).toEqual(v);
      }),
      { numRuns: 1000 },
    );
  });
});

describe('tails, unions, holes', () => {
  it('a tail has as many elements as the buffer holds', () => {
    const bytes = vfio_irq_set.bytes({ argsz: 24, data: [1, 2, 3, 4] });
    expect(bytes.length).toBe(24);
    expect(vfio_irq_set.read(bytes).data).toEqual([1, 2, 3, 4]);
    expect(vfio_irq_set.size).toBe(20);
    expect(() => vfio_irq_set.write(new Uint8Array(21), { data: [1, 2] })).toThrow('the buffer has room for 1, got 2');
  });

  it('a nested tail of unions', () => {
    const bytes = kvm_irq_routing.bytes({
      nr: 1,
      entries: [{ gsi: 7, type: 2, flags: 1, u: { msi: { address_lo: 0x0809_0040, data: 3, devid: 0x100 } } }],
    });
    expect(bytes.length).toBe(8 + 48);
    expect(kvm_irq_routing_entry.read(bytes, 8).u.msi.devid).toBe(0x100);
    expect(kvm_irq_routing_entry.read(bytes, 8).u.pad[0]).toBe(0x0809_0040);
    expect(() => kvm_irq_routing_entry.bytes({ u: { msi: {}, irqchip: {} } })).toThrow('one member of the union');
  });

  it('two names of the same bytes read the same, and write once', () => {
    const bytes = vfio_pci_dependent_device.bytes({ devid: 0xffffffff, bus: 1 });
    expect(vfio_pci_dependent_device.read(bytes)).toMatchObject({ group_id: 0xffffffff, devid: 0xffffffff, bus: 1 });
    expect(() => vfio_pci_dependent_device.bytes({ group_id: 1, devid: 2 })).toThrow('shares its bytes with group_id');
    expect(overlay(u32).size).toBe(4);
  });

  it('a hole has no value', () => {
    const value = vfio_iommu_type1_info_cap_migration.read(new Uint8Array(32));
    expect(Object.keys(value)).toEqual(['header', 'flags', 'pgsize_bitmap', 'max_dirty_bitmap_size']);
  });
});
