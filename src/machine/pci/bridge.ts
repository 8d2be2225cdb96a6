/** A bridge: root port, switch port, or PCIe-to-PCI bridge, with a real type 1 header (PCI-to-PCI Bridge 1.2; PCIe 7.5.1.3). */
import {
  Acs,
  BridgeControl,
  CapabilityId,
  ClassCode,
  CONFIG_SIZE,
  Command,
  EXTENDED_CAPABILITIES,
  EXTENDED_CONFIG_SIZE,
  Express,
  ExpressType,
  ExtendedCapabilityId,
  extendedHeader,
  Header,
  Header1,
  HeaderType,
  PciStatus,
  Power,
  Window,
} from '../../arch/pci/index.ts';
import { ConfigSpace, type ConfigWatcher } from './config-space.ts';
import { allowPrefixes, CapabilityList, writeExpressCommon } from './layout.ts';
import { PciBus } from './pci-bus.ts';
import { attachState, type StateCapabilities, type StateOwner } from './state.ts';

export type BridgeKind = 'root-port' | 'switch-upstream' | 'switch-downstream' | 'pci-bridge';

/** Ids of the ports, under the vendor id that QEMU's own devices use; the device ids are this project's. */
const IDS = {
  'root-port': { device: 0xbe01, type: ExpressType.ROOT_PORT },
  'switch-upstream': { device: 0xbe02, type: ExpressType.UPSTREAM_PORT },
  'switch-downstream': { device: 0xbe03, type: ExpressType.DOWNSTREAM_PORT },
  'pci-bridge': { device: 0xbe04, type: ExpressType.PCI_BRIDGE },
} as const;
export const BELFRY_VENDOR = 0x1b36;

export class Bridge implements ConfigWatcher, StateOwner {
  readonly kind: BridgeKind;
  readonly config: ConfigSpace;
  readonly state: StateCapabilities;
  /** The bus that the bridge itself sits on. */
  readonly primary: PciBus;
  readonly devfn: number;
  readonly secondary: PciBus;
  /** False for a bridge between two conventional buses. */
  readonly isExpress: boolean;
  private inReset = false;

  constructor(kind: BridgeKind, acs: boolean, primary: PciBus, devfn: number) {
    this.kind = kind;
    this.primary = primary;
    this.devfn = devfn;
    this.isExpress = kind !== 'pci-bridge' || primary.bridge?.kind !== 'pci-bridge';
    this.config = bridgeConfig(kind, acs, this.isExpress);
    this.state = attachState(this.config, this);
    this.secondary = new PciBus(this);
    this.config.watch(Header.COMMAND, 2, this);
    this.config.watch(Header1.PRIMARY_BUS, 0x28, this);
    this.config.seal();
  }

  get secondaryNumber(): number {
    return this.config.bytes[Header1.SECONDARY_BUS];
  }

  /** Does a configuration cycle for this bus go below? */
  forwardsConfig(bus: number): boolean {
    const { bytes } = this.config;
    const secondary = bytes[Header1.SECONDARY_BUS];
    return secondary !== 0 && bus >= secondary && bus <= bytes[Header1.SUBORDINATE_BUS] && !this.inReset;
  }

  /** Do requests from below go up? */
  get forwardsRequests(): boolean {
    const command = this.config.read(Header.COMMAND, 2);
    return (command & Command.BUS_MASTER) !== 0 && !this.inReset && this.isPowered;
  }

  private get isPowered(): boolean {
    return (this.state.power?.state ?? Power.D0) === Power.D0;
  }

  /** Does a redirecting ACS control send peer-to-peer requests of this port up? */
  get redirects(): boolean {
    return this.state.acs?.redirectsRequests === true;
  }

  /** Is the whole range [base, base + size) forwarded below? */
  passes(base: number, size: number, kind: 'memory' | 'io'): boolean {
    const command = this.config.read(Header.COMMAND, 2);
    if (!this.isPowered || this.inReset) return false;
    if ((command & (kind === 'io' ? Command.IO : Command.MEMORY)) === 0) return false;
    const end = base + size - 1;
    const within = (window: AddressWindow): boolean => base >= window.base && end <= window.limit;
    return kind === 'io' ? within(this.ioWindow) : within(this.memoryWindow) || within(this.prefetchWindow);
  }

  get memoryWindow(): AddressWindow {
    const { config } = this;
    return {
      base: (config.read(Header1.MEMORY_BASE, 2) & 0xfff0) * 0x1_0000,
      limit: (config.read(Header1.MEMORY_LIMIT, 2) & 0xfff0) * 0x1_0000 + 0xf_ffff,
    };
  }

  get prefetchWindow(): AddressWindow {
    const { config } = this;
    const upper = 2 ** 32;
    return {
      base:
        (config.read(Header1.PREFETCH_BASE, 2) & 0xfff0) * 0x1_0000 +
        config.read(Header1.PREFETCH_BASE_UPPER, 4) * upper,
      limit:
        (config.read(Header1.PREFETCH_LIMIT, 2) & 0xfff0) * 0x1_0000 +
        0xf_ffff +
        config.read(Header1.PREFETCH_LIMIT_UPPER, 4) * upper,
    };
  }

  get ioWindow(): AddressWindow {
    const { config } = this;
    return {
      base: (config.read(Header1.IO_BASE, 1) & 0xf0) * 0x100 + config.read(Header1.IO_BASE_UPPER, 2) * 0x1_0000,
      limit:
        (config.read(Header1.IO_LIMIT, 1) & 0xf0) * 0x100 + 0xfff + config.read(Header1.IO_LIMIT_UPPER, 2) * 0x1_0000,
    };
  }

  configRead(offset: number, size: number): number {
    return this.config.read(offset, size);
  }

  configWrite(offset: number, size: number, value: number): void {
    this.config.write(offset, size, value);
  }

  written(): void {
    const inReset = (this.config.read(Header1.BRIDGE_CONTROL, 2) & BridgeControl.BUS_RESET) !== 0;
    const begins = inReset && !this.inReset;
    this.inReset = inReset;
    if (begins) this.secondary.reset();
    this.secondary.changed();
  }

  /** Reset from above: the bridge forgets its numbers and windows, and all below is reset too. */
  reset(): void {
    this.config.reset();
    this.state.power?.reset();
    this.inReset = false;
    this.secondary.reset();
    this.secondary.changed();
  }

  functionReset(): void {
    this.reset();
  }

  powerChanged(soft: boolean): void {
    if (soft) this.reset();
    else this.secondary.changed();
  }
}

/** Addresses, both ends inclusive; a limit below the base is a closed window. */
export interface AddressWindow {
  readonly base: number;
  readonly limit: number;
}

function bridgeConfig(kind: BridgeKind, acs: boolean, express: boolean): ConfigSpace {
  const config = new ConfigSpace(express ? EXTENDED_CONFIG_SIZE : CONFIG_SIZE);
  config.set(Header.VENDOR_ID, 2, BELFRY_VENDOR);
  config.set(Header.DEVICE_ID, 2, IDS[kind].device);
  config.set(Header.CLASS_CODE, 3, ClassCode.PCI_BRIDGE);
  config.set(Header.HEADER_TYPE, 1, HeaderType.BRIDGE);
  const list = new CapabilityList(config);
  const power = list.add(CapabilityId.POWER_MANAGEMENT, Power.LENGTH);
  config.set(power + Power.CAPABILITIES, 2, Power.VERSION_3);
  config.set(power + Power.CONTROL, 2, Power.NO_SOFT_RESET);
  if (express) {
    const at = list.add(CapabilityId.EXPRESS, Express.LENGTH_V2);
    writeExpressCommon(config, at, IDS[kind].type, 0);
    allowPrefixes(config, at);
  }
  if (acs && express) {
    config.set(EXTENDED_CAPABILITIES, 4, extendedHeader(ExtendedCapabilityId.ACS, 1, 0));
    const bits =
      Acs.SOURCE_VALIDATION |
      Acs.TRANSLATION_BLOCKING |
      Acs.REQUEST_REDIRECT |
      Acs.COMPLETION_REDIRECT |
      Acs.UPSTREAM_FORWARDING;
    config.set(EXTENDED_CAPABILITIES + Acs.CAPABILITY, 2, bits);
  }
  closeWindows(config);
  allowHeader(config);
  return config;
}

/** Windows with their base above their limit, so that a bridge forwards nothing before software opens it. */
function closeWindows(config: ConfigSpace): void {
  config.set(Header1.IO_BASE, 2, 0x00f0 | Window.IO_32 | (Window.IO_32 << 8));
  config.set(Header1.MEMORY_BASE, 4, 0x0000_fff0);
  config.set(Header1.PREFETCH_BASE, 4, 0x0000_fff0 | Window.PREFETCH_64 | (Window.PREFETCH_64 << 16));
}

function allowHeader(config: ConfigSpace): void {
  config.allow(
    Header.COMMAND,
    2,
    Command.IO | Command.MEMORY | Command.BUS_MASTER | Command.PARITY | Command.SERR | Command.INTX_DISABLE,
  );
  config.allowClear(Header.STATUS, 2, PciStatus.WRITE_ONE_TO_CLEAR);
  config.allowClear(Header1.SECONDARY_STATUS, 2, PciStatus.WRITE_ONE_TO_CLEAR);
  config.allow(Header.CACHE_LINE_SIZE, 1, 0xff);
  config.allow(Header1.PRIMARY_BUS, 4, 0x00ff_ffff);
  config.allow(Header1.IO_BASE, 2, 0xf0f0);
  config.allow(Header1.MEMORY_BASE, 4, 0xfff0_fff0);
  config.allow(Header1.PREFETCH_BASE, 4, 0xfff0_fff0);
  config.allow(Header1.PREFETCH_BASE_UPPER, 4, -1);
  config.allow(Header1.PREFETCH_LIMIT_UPPER, 4, -1);
  config.allow(Header1.IO_BASE_UPPER, 4, -1);
  config.allow(Header.INTERRUPT_LINE, 1, 0xff);
  config.allow(
    Header1.BRIDGE_CONTROL,
    2,
    BridgeControl.PARITY | BridgeControl.SERR | BridgeControl.ISA | BridgeControl.VGA | BridgeControl.BUS_RESET,
  );
}
