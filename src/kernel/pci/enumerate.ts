/** Finds the functions of a segment by configuration cycles alone: drivers/pci/probe.c pci_scan_child_bus. */
import { Header, Header1, HeaderType } from '../../arch/pci/index.ts';
import { type ConfigAccess, requesterId } from '../../ports/pci.ts';
import { PciDevice } from './pci-device.ts';

/** From bus 0: all functions of a bus in the order of device and function, then what is below each of its bridges. `ioBase`: host-physical address of port 0. */
export function enumeratePci(config: ConfigAccess, segment: number, ioBase = 0): PciDevice[] {
  const scan: Scan = { config, segment, ioBase, found: [], seen: new Set(), lastBus: 0 };
  scanBus(scan, 0, null);
  return scan.found;
}

interface Scan {
  readonly config: ConfigAccess;
  readonly segment: number;
  readonly ioBase: number;
  readonly found: PciDevice[];
  /** Buses already scanned: bridges that point at each other end here. */
  readonly seen: Set<number>;
  /** Highest bus number in use. */
  lastBus: number;
}

function scanBus(scan: Scan, bus: number, parent: PciDevice | null): void {
  if (scan.seen.has(bus)) return;
  scan.seen.add(bus);
  scan.lastBus = Math.max(scan.lastBus, bus);
  const bridges: PciDevice[] = [];
  for (let device = 0; device < 32; device += 1) {
    const functions = isPresent(scan, bus, device, 0) ? functionCount(scan, bus, device) : 0;
    for (let fn = 0; fn < functions; fn += 1) {
      if (fn > 0 && !isPresent(scan, bus, device, fn)) continue;
      const found = new PciDevice(
        scan.config,
        { segment: scan.segment, bus, device, function: fn },
        parent,
        scan.found,
        scan.ioBase,
      );
      scan.found.push(found);
      if (found.isBridge) bridges.push(found);
    }
  }
  for (const bridge of bridges) scanBridge(scan, bus, bridge);
}

/** Vendor ids that mean that nobody answers (PCIe 2.3.2, pci_bus_generic_read_dev_vendor_id). */
function isPresent(scan: Scan, bus: number, device: number, fn: number): boolean {
  const id =
    scan.config.configRead(requesterId({ segment: scan.segment, bus, device, function: fn }), Header.VENDOR_ID, 4) >>>
    0;
  return id !== 0xffff_ffff && id !== 0 && id !== 0x0000_ffff && id !== 0xffff_0000;
}

function functionCount(scan: Scan, bus: number, device: number): number {
  const type = scan.config.configRead(
    requesterId({ segment: scan.segment, bus, device, function: 0 }),
    Header.HEADER_TYPE,
    1,
  );
  return (type & HeaderType.MULTI_FUNCTION) !== 0 ? 8 : 1;
}

/** Firmware's bus numbers are kept; a bridge without any, or with impossible ones, gets the next. */
function scanBridge(scan: Scan, bus: number, bridge: PciDevice): void {
  const secondary = bridge.configRead(Header1.SECONDARY_BUS, 1);
  if (secondary > bus && !scan.seen.has(secondary)) {
    scanBus(scan, secondary, bridge);
    scan.lastBus = Math.max(scan.lastBus, bridge.configRead(Header1.SUBORDINATE_BUS, 1));
    return;
  }
  if (scan.lastBus >= 255) return;
  const assigned = scan.lastBus + 1;
  bridge.configWrite(Header1.PRIMARY_BUS, 1, bus);
  bridge.configWrite(Header1.SECONDARY_BUS, 1, assigned);
  bridge.configWrite(Header1.SUBORDINATE_BUS, 1, 255);
  scanBus(scan, assigned, bridge);
  bridge.configWrite(Header1.SUBORDINATE_BUS, 1, scan.lastBus);
}
