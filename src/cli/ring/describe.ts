/** Parts of a run in words. */
import type { MachineSpec } from '../../machine/spec.ts';
import { hex } from '../../ports/address.ts';
import type { RingSession } from './session.ts';

/** `SMMUv3, GICv3 with an ITS, 4 KiB pages` */
export function machineTitle(spec: MachineSpec): string {
  const { iommu, interrupts, pageSize } = spec;
  const translator = iommu === null ? 'no IOMMU' : iommu.type === 'smmuv3' ? 'SMMUv3' : 'VT-d';
  const controller =
    interrupts.type === 'x86'
      ? `local APICs ${interrupts.remapping ? 'with' : 'without'} interrupt remapping`
      : interrupts.its !== undefined
        ? `GICv3 with ${interrupts.its.length === 1 ? 'an ITS' : `${interrupts.its.length} ITSs`}`
        : `GICv${interrupts.version} with a v2m frame`;
  return `${translator}, ${controller}, ${pageSize / 1024} KiB pages`;
}

/** `1b36:be11 bell` */
export function deviceTitle(session: RingSession): string {
  const { vendorId, deviceId } = session.host.pciDevices.find(({ name }) => name === session.name)!;
  const id = (value: number): string => value.toString(16).padStart(4, '0');
  return `${id(vendorId)}:${id(deviceId)} ${session.function.spec.name}`;
}

export const span = (start: number, end: number): string => `${hex(start)}-${hex(end)}`;
export const plural = (count: number, noun: string): string =>
  `${count.toLocaleString('en')} ${noun}${count === 1 ? '' : 's'}`;
