/**
 * `ioat`: Intel's I/OAT DMA engine as in Skylake-SP (8086:2021, version 3.2), the device for which the kernel's VFIO selftests bring a driver.
 * It copies and fills memory. XOR, P+Q and DCA are not built, and DMACAPABILITY says so.
 *
 * BAR 0: 16 KiB, the registers, the MSI-X table at 0x2000 and its pending bits at 0x3000; one vector for each channel.
 */
import type { FunctionSpec, PciFunction, PciPort, Registers } from '../../ports/pci.ts';
import { type DeviceOptions, OptionReader } from '../options.ts';
import { type ChannelOwner, IoatChannel } from './channel.ts';
import { CHANNEL_STRIDE, FILL_BLOCK, Intrctrl, IoatRegister as R } from './registers.ts';

export const IOAT_VENDOR = 0x8086;
export const IOAT_DEVICE = 0x2021;
const VERSION = 0x32;
const TABLE = 0x2000;
const PENDING = 0x3000;
const BAR_BYTES = 0x4000;
const MOST_CHANNELS = 8;

export class Ioat implements PciFunction, Registers, ChannelOwner {
  readonly spec: FunctionSpec;
  /** Bytes of the largest transfer. */
  readonly largest: number;
  port: PciPort | null = null;
  private readonly transferLog2: number;
  private readonly channels: IoatChannel[];
  private generalControl = 0;
  private interruptControl = 0;
  private delay = 0;
  private attention = 0;

  /**
   * Options: `channels` 1 to 8 (1), `xfercap` 12 to 20: the largest transfer is 2^xfercap bytes (20).
   * @throws RangeError naming the option.
   */
  constructor(options: DeviceOptions = {}) {
    const read = new OptionReader('ioat', options);
    const channels = read.integer('channels', 1, 1, MOST_CHANNELS);
    this.transferLog2 = read.integer('xfercap', 20, 12, 20);
    this.largest = 2 ** this.transferLog2;
    read.finish();
    this.channels = Array.from({ length: channels }, (_, index) => new IoatChannel(this, index));
    this.spec = {
      name: 'ioat',
      vendorId: IOAT_VENDOR,
      deviceId: IOAT_DEVICE,
      revision: 4,
      classCode: 0x088000,
      bars: [
        {
          type: 'memory64',
          size: BAR_BYTES,
          ranges: [{ kind: 'registers', offset: 0, size: TABLE, registers: this }],
        },
      ],
      msi: { vectors: 1, address64: true },
      msix: { vectors: channels, table: { bar: 0, offset: TABLE }, pba: { bar: 0, offset: PENDING } },
      interruptPin: 1,
      express: { type: 'endpoint', flr: true },
      powerManagement: true,
    };
  }

  connect(port: PciPort): void {
    this.port = port;
  }

  reset(): void {
    this.generalControl = 0;
    this.interruptControl = 0;
    this.delay = 0;
    this.attention = 0;
    for (const channel of this.channels) channel.powerOn();
  }

  /** Accesses of 1, 2 and 4 bytes; one that crosses a word reads zero and is dropped. */
  read(offset: number, size: number): number {
    const lane = offset & 3;
    if (lane + size > 4) return 0;
    const word = this.readWord(offset - lane, lane, size);
    return size === 4 ? word : (word >>> (lane << 3)) & (size === 2 ? 0xffff : 0xff);
  }

  write(offset: number, size: number, value: number): void {
    if ((offset & 3) + size > 4) return;
    const channel = this.channelAt(offset);
    if (channel !== null) channel.write(offset % CHANNEL_STRIDE, size, value);
    else if (offset === R.GENCTRL) this.generalControl = value & 1;
    else if (offset === R.INTRCTRL) this.writeInterruptControl(value);
    else if (offset === R.INTRDELAY && size >= 2) this.delay = value & 0x3fff;
  }

  /** A channel has something to tell: by its own vector, or by the one interrupt that all share. */
  interrupt(channel: number): void {
    const { port } = this;
    if (port === null) return;
    if (port.messagesEnabled && (this.interruptControl & Intrctrl.MSIX_VECTOR_CONTROL) !== 0) {
      port.raise(channel);
      return;
    }
    const before = this.isAsserted;
    this.attention |= 1 << channel;
    this.assert(before);
  }

  private channelAt(offset: number): IoatChannel | null {
    return this.channels[Math.floor(offset / CHANNEL_STRIDE) - 1] ?? null;
  }

  private readWord(offset: number, lane: number, size: number): number {
    const touches = (at: number): boolean => at >= lane && at < lane + size;
    switch (offset) {
      case R.CHANCNT: {
        const value = this.channels.length | (this.transferLog2 << 8) | (this.generalControl << 16);
        return value | (touches(R.INTRCTRL) ? this.readInterruptControl() << 24 : 0);
      }
      case R.ATTNSTATUS: {
        const before = this.isAsserted;
        const value = this.attention;
        this.attention = 0;
        this.assert(before);
        return value;
      }
      case R.CBVER:
        return VERSION;
      case R.INTRDELAY:
        return this.delay;
      case R.DMACAPABILITY:
        return FILL_BLOCK;
      default:
        return this.channelAt(offset)?.readWord(offset % CHANNEL_STRIDE) ?? 0;
    }
  }

  private get isAsserted(): boolean {
    return (this.interruptControl & Intrctrl.MASTER_INT_EN) !== 0 && this.attention !== 0;
  }

  private assert(before: boolean): void {
    const { port, isAsserted } = this;
    if (port === null || isAsserted === before) return;
    if (!port.messagesEnabled) port.setInterruptLine(isAsserted);
    else if (isAsserted) port.raise(0);
  }

  private readInterruptControl(): number {
    const before = this.isAsserted;
    const value =
      this.interruptControl | (this.attention !== 0 ? Intrctrl.INT_STATUS : 0) | (before ? Intrctrl.INT : 0);
    this.interruptControl &= ~Intrctrl.MASTER_INT_EN;
    this.assert(before);
    return value;
  }

  private writeInterruptControl(value: number): void {
    const before = this.isAsserted;
    this.interruptControl = value & (Intrctrl.MASTER_INT_EN | Intrctrl.MSIX_VECTOR_CONTROL);
    this.assert(before);
  }
}
