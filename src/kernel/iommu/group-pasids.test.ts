import { describe, expect, it } from 'vitest';
import type { IommuDomain } from '../../ports/iommu.ts';
import { errnoName } from '../../uapi/errno.ts';
import type { PciDev } from '../pci/pci-dev.ts';
import { RefusalLog } from '../refusal.ts';
import { GroupPasids, type PasidOps } from './group-pasids.ts';

const dev = (name: string): PciDev => ({ name }) as PciDev;
const domain = (type: IommuDomain['type']): IommuDomain => ({ type }) as IommuDomain;

/** Two devices with 16 PASIDs and one without any; `fails` is the device that cannot have its next domain. */
function group() {
  const [a, b, plain] = [dev('a'), dev('b'), dev('plain')];
  const log: string[] = [];
  const names = new Map<IommuDomain | null, string>([[null, 'none']]);
  const rig = { fails: null as PciDev | null, foreign: new Set<IommuDomain>() };
  const ops: PasidOps = {
    maxPasids: (each) => (each === plain ? 0 : 16),
    canSetPasid: ({ type }) => type === 'unmanaged',
    isCompatible: (each) => !rig.foreign.has(each),
    setPasid: (each, pasid, to, old) => {
      const refused = rig.fails === each;
      if (refused) rig.fails = null;
      log.push(`${each.name} ${pasid} ${names.get(old)} -> ${names.get(to)}${refused ? ' fails' : ''}`);
      return refused ? -12 : 0;
    },
  };
  const pasids = new GroupPasids(new RefusalLog(), 7, [a, plain, b], ops);
  const made = (name: string, type: IommuDomain['type'] = 'unmanaged'): IommuDomain => {
    const one = domain(type);
    names.set(one, name);
    return one;
  };
  const named = (result: number) => (result < 0 ? errnoName(result) : result);
  return { a, b, plain, log, rig, pasids, made, named };
}

describe('the PASIDs of a group', () => {
  it('attach refuses in order: the kind of domain, whose it is, PASID 0, the range, what is attached', () => {
    const { pasids, made, named, rig, log } = group();
    const [nested, mine, other] = [made('nested', 'nested'), made('mine'), made('other')];
    rig.foreign.add(nested).add(other);
    expect(named(pasids.attach(nested, 0))).toBe('EOPNOTSUPP');
    expect(named(pasids.attach(other, 99))).toBe('EINVAL');
    expect(named(pasids.attach(mine, 0))).toBe('EINVAL');
    expect(named(pasids.attach(mine, 16))).toBe('EINVAL');
    expect(log).toEqual([]);
    expect([pasids.empty, named(pasids.attach(mine, 15)), pasids.empty]).toEqual([true, 0, false]);
    expect(named(pasids.attach(mine, 15))).toBe('EBUSY');
    // Of a PASID that is not attached there is nothing to replace; the range is not looked at.
    expect(named(pasids.replace(nested, 3))).toBe('EOPNOTSUPP');
    expect(named(pasids.replace(mine, 3))).toBe('EINVAL');
  });

  it('all devices that have PASIDs move together, or none', () => {
    const { pasids, made, named, rig, log, b } = group();
    const [x, y] = [made('x'), made('y')];
    rig.fails = b;
    expect(named(pasids.attach(x, 3))).toBe('ENOMEM');
    expect(pasids.domainOf(3)).toBe(null);
    expect(named(pasids.attach(x, 3))).toBe(0);
    rig.fails = b;
    expect(named(pasids.replace(y, 3))).toBe('ENOMEM');
    expect(pasids.domainOf(3)).toBe(x);
    expect(named(pasids.replace(x, 3))).toBe(0);
    expect(named(pasids.replace(y, 3))).toBe(0);
    pasids.detach(3);
    pasids.detach(3);
    expect(log).toEqual([
      'a 3 none -> x',
      'b 3 none -> x fails',
      'a 3 x -> none',
      'a 3 none -> x',
      'b 3 none -> x',
      'a 3 x -> y',
      'b 3 x -> y fails',
      'a 3 y -> x',
      'a 3 x -> y',
      'b 3 x -> y',
      'a 3 y -> none',
      'b 3 y -> none',
    ]);
    expect(pasids.empty).toBe(true);
  });

  it('devices without PASIDs take part in nothing', () => {
    const { pasids, made, log, plain } = group();
    expect(pasids.maxPasids(plain)).toBe(0);
    pasids.attach(made('x'), 1);
    expect(log.some((line) => line.startsWith('plain'))).toBe(false);
  });
});
