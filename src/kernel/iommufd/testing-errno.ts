/** What the errno suites share: answers that name the field at fault, and arguments that the kernel can read and not write. */
import { errnoName } from '../../uapi/errno.ts';
import type { SimKernelClient } from '../client.ts';
import { TestOps, testDevice } from '../vfio/test-host.ts';
import { iommufdHost } from './testing.ts';

export const PAGE = 4096;
export const U64_MAX = 0xffff_ffff_ffff_ffffn;
/** The window of Linux's Arm drivers. */
export const WINDOW = 0x800_0000;

/** `EINVAL length`: the errno and the field that was refused, so that two checks with one errno are told apart. What is no error stays. */
export function blamed(client: SimKernelClient, result: number | string | bigint): number | string | bigint {
  if (typeof result !== 'string') return result;
  const { field } = client.kernel.context.refusals.last ?? {};
  return field === undefined ? result : `${result} ${field}`;
}

/** The same for a raw system call. */
export const blamedCall = (client: SimKernelClient, result: number): number | string | bigint =>
  blamed(client, result < 0 ? errnoName(result) : result);

/** The address of a page that holds `bytes` from `at` on, and that its process may only read. */
export function readOnlyPage(client: SimKernelClient, bytes: Uint8Array, at = 0): number {
  const { memory } = client.kernel.context;
  const pa = memory.allocate(PAGE);
  if (pa === null) throw new Error('no memory');
  memory.write(pa + at, bytes);
  const open = () => {
    throw new Error('nobody looks');
  };
  return client.process.memory.mapFile({ pa, length: PAGE, deviceMemory: false, open, close: () => {} }, false) + at;
}

/** A request whose argument is at `address`, wherever that is. */
export const ioctlAt = (client: SimKernelClient, fd: number, request: number, address: number | bigint) =>
  blamedCall(client, client.kernel.syscalls.ioctl(client.process, fd, request, BigInt(address)));

/** Two devices in group 0, bound as 1 and 2, and IOAS 3. */
export function twins() {
  const host = iommufdHost();
  const name = '0000:01:00.1';
  host.vfio.register(testDevice(name, host.groups[0]!), new TestOps(name, host.events, host.context));
  const devices = [host.devices[0]!, host.client.open('/dev/vfio/devices/vfio1')];
  for (const device of devices) host.iommufd.bind(device);
  return { ...host, devices, id: host.iommufd.ioas() };
}
