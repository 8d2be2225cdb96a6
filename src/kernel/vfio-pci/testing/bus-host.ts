/** A booted Arm host with several functions behind one root port, and a program that has them in a type1 container. */

import { defineMachine } from '../../../machine/define.ts';
import { Machine } from '../../../machine/machine.ts';
import { TestModel } from '../../../machine/pci/testing/rig.ts';
import { presetInput } from '../../../machine/presets.ts';
import type { SlotSpec } from '../../../machine/spec.ts';
import type { FunctionSpec } from '../../../ports/pci.ts';
import * as uapi from '../../../uapi/vfio.ts';
import { bootLinux, type Host } from '../../boot/boot.ts';
import type { SimKernelClient } from '../../client.ts';
import type { PciDevice } from '../../pci/pci-device.ts';
import { ENDPOINT } from './rig.ts';

/** `driver` of each function 0, 1, … of the slot at 0000:01:00; null leaves it without one. */
export interface BusHostOptions {
  readonly drivers?: readonly (string | null)[];
  readonly spec?: Partial<FunctionSpec>;
}

export class BusHost {
  readonly models: TestModel[] = [];
  readonly host: Host;
  readonly client: SimKernelClient;
  readonly container: number;

  constructor({ drivers = ['vfio-pci', 'vfio-pci'], spec = {} }: BusHostOptions = {}) {
    const below: SlotSpec[] = drivers.map((driver, fn) => ({
      at: `00.${fn}`,
      kind: 'function',
      device: 'test',
      driver,
    }));
    const input = presetInput('arm-its');
    input.pci.slots = [{ at: '01.0', kind: 'root-port', acs: true, below }];
    const machine = new Machine(defineMachine(input), () => {
      const model = new TestModel({ ...ENDPOINT, express: { type: 'endpoint', flr: true, acs: true }, ...spec });
      this.models.push(model);
      return model;
    });
    this.host = bootLinux(machine);
    this.client = this.host.process().kernel;
    this.container = this.client.open('/dev/vfio/vfio');
  }

  dev(name: string): PciDevice {
    const found = this.host.drivers.devices.find((each) => each.name === name);
    if (found === undefined) throw new Error(`no ${name}`);
    return found;
  }

  /** The group of a function, in the container. */
  group(name: string): number {
    const fd = this.client.open(`/dev/vfio/${this.dev(name).iommuGroup?.id}`);
    if (fd < 0) throw new Error(this.client.refusal()?.why);
    this.client.ioctl(fd, uapi.VFIO_GROUP_SET_CONTAINER, s32(this.container));
    this.client.ioctl(this.container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1v2_IOMMU);
    return fd;
  }

  device(group: number, text: string): number {
    return this.client.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, new TextEncoder().encode(`${text}\0`));
  }

  why(): string {
    return this.client.refusal()?.why ?? '';
  }
}

export const s32 = (...values: number[]): Uint8Array => new Uint8Array(Int32Array.from(values).buffer);
