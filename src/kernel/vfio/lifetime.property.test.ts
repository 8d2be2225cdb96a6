import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as uapi from '../../uapi/vfio.ts';
import { SimKernelClient } from '../client.ts';
import type { LocalProcess } from '../kernel.ts';
import { testMemory } from '../test-context.ts';
import { type MapDomain, testHost, testUnit } from './test-host.ts';
import { getDevice, mapDma, setContainer } from './test-requests.ts';

const GROUPS = 3;
const WHAT = [
  'open-container',
  'open-group',
  'set',
  'set',
  'iommu',
  'iommu',
  'device',
  'device',
  'map',
  'unset',
  'dup',
  'close',
  'close',
  'send',
  'fork',
  'exit',
] as const;

const step = fc.record({ what: fc.constantFrom(...WHAT), a: fc.nat(20), b: fc.nat(20), who: fc.nat(3) });

describe('random programs of open, attach, dup, pass, fork, close and exit', () => {
  it('close devices before their group leaves, and leave nothing behind', () => {
    const memory = testMemory();
    const shared = testUnit();
    let opened = 0;
    fc.assert(
      fc.property(fc.nat(GROUPS), fc.array(step, { maxLength: 60, size: 'max' }), (attached, steps) => {
        const host = testHost({ groups: GROUPS, units: [shared, shared, testUnit()], memory });
        const { kernel, vfio, groups, events, context } = host;
        const clients = [host.client];
        const container = host.client.open('/dev/vfio/vfio');
        for (let i = 0; i < attached; i++) setContainer(host.client, host.client.open(`/dev/vfio/${i}`), container);
        host.client.ioctl(container, uapi.VFIO_SET_IOMMU, 3);
        const alive = () => clients.filter((client) => !client.process.exited);
        for (const { what, a, b, who } of steps) {
          const running = alive();
          if (running.length === 0) break;
          const client = running[who % running.length];
          const fds = client.process.descriptors;
          const of = (kind: string) => fds.filter((fd) => client.process.file(fd)?.kind === kind);
          const pick = (list: readonly number[], n: number) => list[n % Math.max(list.length, 1)] ?? 99;
          if (what === 'open-container') client.open('/dev/vfio/vfio');
          else if (what === 'open-group') client.open(`/dev/vfio/${a % GROUPS}`);
          else if (what === 'set') setContainer(client, pick(of('group'), a), pick(of('container'), b));
          else if (what === 'iommu') client.ioctl(pick(of('container'), a), uapi.VFIO_SET_IOMMU, 3);
          else if (what === 'device') {
            const fd = pick(of('group'), a);
            const id = Number(client.process.file(fd)?.name.split('/').at(-1) ?? 0);
            getDevice(client, fd, `0000:0${(b % 5 === 0 ? b % GROUPS : id) + 1}:00.0`);
          } else if (what === 'unset') client.ioctl(pick(of('group'), a), uapi.VFIO_GROUP_UNSET_CONTAINER);
          else if (what === 'dup') client.process.dup(pick(fds, a));
          else if (what === 'close') client.close(pick(fds, a));
          else if (what === 'send') client.process.send(pick(fds, a), running[b % running.length].process);
          else if (what === 'exit') {
            if (running.length > 1 || a === 0) kernel.exit(client.process);
          } else if (what === 'fork') {
            const child: LocalProcess | null = clients.length < 6 ? kernel.fork(client.process) : null;
            if (child !== null) clients.push(new SimKernelClient(kernel, child));
          } else {
            const address = client.process.memory.allocate(8192);
            mapDma(client, pick(of('container'), a), b * 8192, address, 8192);
          }
          for (const group of vfio.groups) {
            const open = group.devices.filter((device) => device.openCount > 0).length;
            const users = group.container === null ? 0 : 1 + open;
            const owner = group.container === null ? null : group;
            if (group.containerUsers !== users || groups[group.id].dmaOwner !== owner) {
              throw new Error(`after ${what}: group ${group.id} has ${group.containerUsers} users, ${users} expected`);
            }
          }
        }
        for (const client of alive()) kernel.exit(client.process);
        opened += events.filter((event) => event.startsWith('open')).length;
        const open = new Set<string>();
        for (const event of events) {
          const [verb, name] = event.split(' ');
          if (verb === 'open') open.add(name);
          else if (verb === 'close') expect(open.delete(name)).toBe(true);
          else expect(open.has(`0000:0${Number(name) + 1}:00.0`)).toBe(false);
        }
        expect(open.size).toBe(0);
        for (const group of groups) {
          expect([group.dmaOwner, group.domain.type]).toEqual([null, 'dma']);
          expect(group.made.every((domain: MapDomain) => domain.freed)).toBe(true);
        }
        expect(clients.map((client) => client.process.lockedPages)).toEqual(clients.map(() => 0));
        expect(context.memory.allocated).toBe(0);
        expect(kernel.processes.size).toBe(0);
      }),
      { numRuns: 1000 },
    );
    // The programs must reach what they are about.
    expect(opened).toBeGreaterThan(125);
  });
});
