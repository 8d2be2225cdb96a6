/**
 * Commands to hardware whose queue belongs to somebody else's driver. They are put at the writer's place, and the rest of one round is
 * filled with commands that do nothing, so that the driver finds its own position as it left it.
 */
import { hi32, lo32, pack } from '../../src/arch/bits.ts';
import {
  encodeSync,
  GITS_CBASER,
  GITS_CREADR,
  GITS_CWRITER,
  ITS_COMMAND_SIZE,
  queueAddress,
  queueBytes,
} from '../../src/arch/gic/index.ts';
import { CFGI, command, Op, TLBI } from '../../src/arch/smmuv3/index.ts';
import {
  Granularity,
  QI_CONTEXT,
  QI_DESCRIPTOR_SIZE,
  QI_IOTLB,
  QI_WAIT,
  QiType,
  VtdReg,
} from '../../src/arch/vtd/index.ts';
import type { Host } from '../../src/kernel/boot/boot.ts';
import { ArmSmmuV3Driver } from '../../src/kernel/iommu/index.ts';
import type { GuestCpu } from '../../src/ports/guest.ts';
import type { VirtualMachine } from '../../src/vmm/index.ts';

/** An ITS as its software reaches it: registers, and the memory that its queue lies in. */
export interface ItsPort {
  readonly base: number;
  read32(address: number): number;
  write32(address: number, value: number): void;
  store(address: number, bytes: Uint8Array): void;
}

export const hostIts = ({ machine }: Host, base: number): ItsPort => ({
  base,
  read32: (address) => machine.bus.read32(address),
  write32: (address, value) => machine.bus.write32(address, value),
  store: (address, bytes) => void machine.memory.write(address, bytes),
});

export const guestIts = (vm: VirtualMachine, cpu: GuestCpu, base: number): ItsPort => ({
  base,
  read32: (address) => cpu.mmioRead(address, 4)!,
  write32: (address, value) => void cpu.mmioWrite(address, 4, value),
  store: (address, bytes) => vm.memory(address, bytes.length)!.set(bytes),
});

/** Runs one command of an ITS. */
export function sendIts(its: ItsPort, words: Int32Array): void {
  const low = its.read32(its.base + GITS_CBASER);
  const queue = queueAddress(low, its.read32(its.base + GITS_CBASER + 4));
  const size = queueBytes(low);
  const start = its.read32(its.base + GITS_CWRITER);
  const bytes = new Uint8Array(words.slice().buffer);
  const nothing = new Uint8Array(encodeSync(new Int32Array(ITS_COMMAND_SIZE / 4), 0).buffer);
  for (let done = 0; done < size; done += ITS_COMMAND_SIZE) {
    its.store(queue + ((start + done) % size), done === 0 ? bytes : nothing);
    // A queue that is full would look empty, so it is handed over in halves.
    if (done === size / 2) its.write32(its.base + GITS_CWRITER, (start + done) % size);
  }
  its.write32(its.base + GITS_CWRITER, start);
  if (its.read32(its.base + GITS_CREADR) !== start) throw new Error('the ITS did not come round its queue');
}

function smmuCommands(host: Host): ArmSmmuV3Driver['commands'] {
  if (host.iommuDriver instanceof ArmSmmuV3Driver) return host.iommuDriver.commands;
  throw new Error('this host has no SMMUv3');
}

/** CMD_CFGI_STE of one stream. */
export function invalidateStream(host: Host, sid: number): void {
  const commands = smmuCommands(host);
  commands.pushWords(command(CFGI, { Opcode: Op.CFGI_STE, StreamID: sid }));
  commands.sync();
}

/** CMD_CFGI_CD of substream 0. */
export function invalidateContext(host: Host, sid: number): void {
  const commands = smmuCommands(host);
  commands.pushWords(command(CFGI, { Opcode: Op.CFGI_CD, StreamID: sid }));
  commands.sync();
}

/** CMD_TLBI_NH_VA of one address: the page alone. */
export function invalidatePage(host: Host, asid: number, iova: number): void {
  const commands = smmuCommands(host);
  const Address = BigInt(Math.floor(iova / 4096));
  commands.pushWords(command(TLBI, { Opcode: Op.TLBI_NH_VA, ASID: asid, Address }));
  commands.sync();
}

/** CMD_TLBI_NH_ASID: everything of one address space. */
export function invalidateSpace(host: Host, asid: number): void {
  const commands = smmuCommands(host);
  commands.pushWords(command(TLBI, { Opcode: Op.TLBI_NH_ASID, ASID: asid }));
  commands.sync();
}

/** Descriptors of VT-d's invalidation queue, each of two words. */
export function sendVtd(host: Host, base: number, descriptors: readonly (readonly bigint[])[]): void {
  const { bus, memory } = host.machine;
  const read = (offset: number): number => bus.read32(base + offset);
  const queue = (read(VtdReg.IQA + 4) & 0xfffff) * 2 ** 32 + ((read(VtdReg.IQA) & ~0xfff) >>> 0);
  const count = 2 ** ((read(VtdReg.IQA) & 7) + 8);
  const size = count * QI_DESCRIPTOR_SIZE;
  const start = read(VtdReg.IQT);
  const nothing = pack(QI_WAIT, 2, { Type: QiType.WAIT });
  for (let i = 0; i < count; i++) {
    const at = queue + ((start + i * QI_DESCRIPTOR_SIZE) % size);
    const words = descriptors[i] ?? nothing;
    for (const [half, word] of words.entries()) memory.write64(at + half * 8, lo32(word), hi32(word));
    if (i === count / 2) bus.write32(base + VtdReg.IQT, (start + i * QI_DESCRIPTOR_SIZE) % size);
  }
  bus.write32(base + VtdReg.IQT, start);
  if (read(VtdReg.IQH) !== start) throw new Error('the unit did not come round its queue');
}

export const everyContext = (): bigint[] => pack(QI_CONTEXT, 2, { Type: QiType.CONTEXT, G: Granularity.GLOBAL });
export const everyTranslation = (): bigint[] => pack(QI_IOTLB, 2, { Type: QiType.IOTLB, G: Granularity.GLOBAL });
/** Interrupt entry cache, one entry: G in bit 4, the index in 47:32. */
export const oneEntry = (index: number): bigint[] => [
  BigInt(QiType.INTERRUPT_ENTRY) | 0x10n | (BigInt(index) << 32n),
  0n,
];
