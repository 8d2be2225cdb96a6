import { describe, expect, it } from 'vitest';
import { UserArray, UserData } from '../../kernel/iommufd/index.ts';
import { RefusalLog } from '../../kernel/refusal.ts';
import { errnoName } from '../../uapi/errno.ts';
import { MockGroup, mockDevice } from './mock-device.ts';
import { MockNested } from './mock-nested.ts';
import { MockOps } from './mock-ops.ts';
import * as structs from './structs.ts';

const IOTLB = 0xbadbeef;

/** A program with nothing but these bytes, at address 4096. */
function programWith(bytes: Uint8Array) {
  const at = (address: number): number => address - 4096;
  return {
    pid: 1,
    comm: 'program',
    credentials: { euid: 0, capabilities: new Set<string>() },
    limits: { memlock: 0, nofile: 64 },
    lockedPages: 0,
    pinnedPages: 0,
    memory: {
      copyIn: (address: number, into: Uint8Array) => {
        if (at(address) < 0 || at(address) + into.length > bytes.length) return false;
        into.set(bytes.subarray(at(address), at(address) + into.length));
        return true;
      },
      copyOut: () => false,
      pin: () => -14,
    },
    file: () => null,
    install: () => -24,
  };
}

const refusals = new RefusalLog();
const named = (result: unknown): unknown => (typeof result === 'number' && result < 0 ? errnoName(result) : result);

function dataOf(type: number, length: number, iotlb = IOTLB, pagetable_type = 0): UserData {
  const process = programWith(structs.iommu_hwpt_selftest.bytes({ iotlb, pagetable_type }));
  return new UserData({ process, refusals, type, address: 4096n }, length);
}

function entries(
  list: readonly { flags?: number; iotlb_id?: number }[],
  type: number = structs.INVALIDATE_TYPE,
): UserArray {
  const bytes = new Uint8Array(Math.max(8, list.length * 8));
  list.forEach((entry, i) => {
    structs.iommu_hwpt_invalidate_selftest.write(bytes, entry, i * 8);
  });
  return new UserArray({ process: programWith(bytes), refusals, type, address: 4096n }, 8, list.length);
}

describe('a nested table of the mock', () => {
  const made = (): MockNested => new MockNested(refusals, IOTLB, null);

  it('takes data of its type (selftest.c __mock_domain_alloc_nested)', () => {
    expect(named(MockNested.from(refusals, dataOf(structs.HWPT_DATA_TYPE + 1, 8), null))).toBe('EOPNOTSUPP');
    expect(named(MockNested.from(refusals, dataOf(structs.HWPT_DATA_TYPE, 3), null))).toBe('EINVAL');
    const table = MockNested.from(refusals, dataOf(structs.HWPT_DATA_TYPE, 4, 77), null);
    expect(table).toMatchObject({ iotlb: [77, 77, 77, 77], type: 'nested' });
  });

  it('forgets the entries that are invalidated, up to the first wrong one', () => {
    const table = made();
    const { done, error } = table.invalidate(entries([{ iotlb_id: 1 }, { iotlb_id: 4 }, { iotlb_id: 0 }]));
    expect([done, named(error), table.iotlb]).toEqual([1, 'EINVAL', [IOTLB, 0, IOTLB, IOTLB]]);
    const flags = table.invalidate(entries([{ iotlb_id: 0 }, { flags: 2 }]));
    expect([flags.done, named(flags.error), table.iotlb[0]]).toEqual([1, 'EOPNOTSUPP', 0]);
    expect(table.invalidate(entries([{ flags: 1, iotlb_id: 0 }]))).toEqual({ done: 1, error: 0 });
    expect(table.iotlb).toEqual([0, 0, 0, 0]);
    expect(named(table.invalidate(entries([], 5)).error)).toBe('EINVAL');
    expect(table.invalidate(entries([]))).toEqual({ done: 0, error: 0 });
  });
});

describe('the driver of the mock', () => {
  const ops = new MockOps(refusals, { alloc: () => null });
  const dev = mockDevice(0, new MockGroup(refusals, 0, ops, 0));

  it('knows its own types alone', () => {
    expect(named(ops.hwInfo(dev, structs.HW_INFO_TYPE + 1))).toBe('EOPNOTSUPP');
    expect(ops.hwInfo(dev, 0)).toMatchObject({
      type: 0xfeedbeef,
      data: new Uint8Array([0, 0, 0, 0, 0xef, 0xbe, 0xad, 0xde]),
    });
    expect([ops.hasViommu(dev, structs.VIOMMU_TYPE), ops.hasViommu(dev, 1)]).toEqual([true, false]);
    expect(named(ops.allocPaging(dev, 16, null))).toBe('EOPNOTSUPP');
    expect(named(ops.allocPaging(dev, 0, dataOf(structs.HWPT_DATA_TYPE, 8, 0, 2)))).toBe('EOPNOTSUPP');
    expect(named(ops.allocNested(dev, {}, 1, dataOf(structs.HWPT_DATA_TYPE, 8)))).toBe('EOPNOTSUPP');
  });

  it('makes tables of small pages, and of huge ones over other addresses', () => {
    const small = ops.allocPaging(dev, 0, null);
    expect(small).toMatchObject({ pageSizes: [2048, 0x10_0000], apertureStart: 2 ** 24, apertureEnd: 2 ** 31 - 1 });
    const huge = ops.allocPaging(dev, 0, dataOf(structs.HWPT_DATA_TYPE, 8, 0, 1));
    expect(huge).toMatchObject({ pageSizes: [4096, 0x10_0000], apertureStart: 0 });
  });
});
