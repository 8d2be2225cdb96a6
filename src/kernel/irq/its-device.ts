/** A device of an ITS: its ITT, its chunk of LPIs, and the events in use. Linux's struct its_device with its event_lpi_map. */
import { encodeMapd } from '../../arch/gic/index.ts';
import type { KernelContext } from '../context.ts';
import type { ItsNode } from './its-node.ts';
import { countOrder, RegionBitmap } from './region-bitmap.ts';

/** ITT_addr has its low 8 bits zero; memory comes in pages. */
const PAGE = 4096;

export class ItsDevice {
  readonly deviceId: number;
  readonly lpiBase: number;
  readonly lpis: number;
  /** lpi_map: events in use. */
  readonly events: RegionBitmap;
  /** col_map: CPU of each event. */
  readonly cpus: Uint16Array;
  /** More than one function came with this device id: it is kept for good. */
  shared = false;
  private readonly context: KernelContext;
  private readonly node: ItsNode;
  private readonly itt: number;
  private readonly ittBytes: number;

  private constructor(
    context: KernelContext,
    node: ItsNode,
    deviceId: number,
    itt: number,
    ittBytes: number,
    lpiBase: number,
    lpis: number,
  ) {
    this.context = context;
    this.node = node;
    this.deviceId = deviceId;
    this.itt = itt;
    this.ittBytes = ittBytes;
    this.lpiBase = lpiBase;
    this.lpis = lpis;
    this.events = new RegionBitmap(lpis);
    this.cpus = new Uint16Array(lpis);
  }

  /**
   * its_create_device: an ITT of a power of two of entries, at least 2, and as many LPIs as can be had (half as many, and so on).
   * A reason when there is none; Linux answers ENOMEM to all of them.
   */
  static create(context: KernelContext, node: ItsNode, deviceId: number, vectors: number): ItsDevice | string {
    if (!node.allocateDeviceTable(deviceId))
      return `the device table of the ITS has no entry for device id ${deviceId}`;
    const order = Math.max(countOrder(vectors), 1);
    if (order > node.type.eventBits)
      return `${vectors} events, and the ITS has ${2 ** node.type.eventBits} for a device`;
    const ittBytes = Math.ceil((2 ** order * node.type.ittEntrySize) / PAGE) * PAGE;
    const itt = context.memory.allocate(ittBytes, PAGE);
    if (itt === null) return `no memory for an ITT of ${ittBytes} bytes`;
    const { ranges } = node.lpis;
    let lpis = 2 ** countOrder(vectors);
    let lpiBase = ranges.allocate(lpis);
    while (lpiBase < 0 && lpis > 1) {
      lpis /= 2;
      lpiBase = ranges.allocate(lpis);
    }
    if (lpiBase < 0) {
      context.memory.free(itt, ittBytes);
      return `all LPIs below ${2 ** node.lpis.idBits} are taken`;
    }
    const device = new ItsDevice(context, node, deviceId, itt, ittBytes, lpiBase, lpis);
    encodeMapd(node.command, deviceId, order, itt, true);
    node.send(-1);
    return device;
  }

  /** MAPD with V = 0; the ITT and the LPIs go back. */
  free(): void {
    encodeMapd(this.node.command, this.deviceId, 1, 0, false);
    this.node.send(-1);
    this.node.lpis.ranges.release(this.lpiBase, this.lpis);
    this.context.memory.free(this.itt, this.ittBytes);
  }

  /** its_get_event_id. */
  eventOf(lpi: number): number {
    return lpi - this.lpiBase;
  }
}
