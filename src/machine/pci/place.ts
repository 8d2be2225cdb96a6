/** Where a function sits, and what the bridges above it do for it. */
import type { PciAddress } from '../../ports/pci.ts';
import type { Decoder } from './bars.ts';
import type { HostFunction } from './function.ts';

export interface FunctionPlace extends Decoder {
  readonly address: PciAddress;
  /** `0000:01:00.0` */
  readonly name: string;
  /** The requester id that the IOMMU and the interrupt controller see. */
  readonly streamId: number;
  /** Do all bridges above forward requests (bus master on, secondary bus not in reset)? */
  readonly forwardsUpstream: boolean;
  /** The place `distance` routing ids further on the same bus, for a virtual function. */
  beside(distance: number): FunctionPlace;
  /** A virtual function begins or ends to answer here. */
  attach(fn: HostFunction): void;
  detach(fn: HostFunction): void;
  /** `pin` 1 to 4 as the function has it. */
  routeInterrupt(pin: number, asserted: boolean): void;
}
