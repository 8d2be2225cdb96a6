/** A virtual SMMU of iommufd with one device: what a stage 1 in user space hangs on (vIOMMU, vDEVICE, event queue). */
import { unpack } from '../arch/bits.ts';
import { command, TLBI } from '../arch/smmuv3/commands.ts';
import { EVENT, eventName } from '../arch/smmuv3/events.ts';
import { Op } from '../arch/smmuv3/index.ts';
import { hex } from '../ports/address.ts';
import * as uapi from '../uapi/iommufd.ts';
import { fitting, refuseArgument, whole } from './argument.ts';
import type { CdevDevice } from './cdev-device.ts';
import { userMemory } from './dma-memory.ts';
import { check, VfioError } from './error.ts';
import type { Hwpt } from './hwpt.ts';
import type { Iommufd } from './iommufd.ts';
import { Resource } from './resource.ts';

/** A record that the virtual SMMU wrote for its owner (IHI 0070 7.3). */
export interface NestedEvent {
  /** Counts up over all events, lost ones too. */
  readonly sequence: number;
  /** `F_TRANSLATION`; `LOST_EVENTS` where the queue had no room. */
  readonly name: string;
  /** The virtual stream id. */
  readonly streamId: number;
  /** The IOVA that the device used. */
  readonly input: bigint;
  /** The four words of the record; none of lost events. */
  readonly words: readonly bigint[];
}

/** Registers of the SMMU as GET_HW_INFO tells them. */
export interface SmmuRegisters {
  /** IDR0 to IDR5. */
  readonly idr: readonly number[];
}

/** Stream ids have 32 bits (IHI 0070 3.2). */
const LAST_STREAM = 2 ** 32 - 1;
const READ_ROOM = 40 * 64;
const HEADER = uapi.iommufd_vevent_header.size;

/** An object of an iommufd that has an id alone. */
class Held extends Resource {
  readonly label: string;
  readonly id: number;
  readonly #iommufd: Iommufd;

  constructor(iommufd: Iommufd, label: string, id: number) {
    super();
    this.label = `${label} ${id}`;
    this.id = id;
    this.#iommufd = iommufd;
  }

  protected override release(): void {
    this.#iommufd.destroy(this.id);
  }
}

/** @throws VfioError EOPNOTSUPP when the IOMMU behind the device is no SMMUv3 */
export function smmuRegisters(iommufd: Iommufd, device: CdevDevice): SmmuRegisters {
  const name = 'IOMMU_GET_HW_INFO';
  iommufd.assertBound(device, name);
  const layout = uapi.iommu_hw_info_arm_smmuv3;
  const data = userMemory(iommufd.kernel, layout.size);
  try {
    const fields = { dev_id: device.id, data_len: layout.size, data_uptr: data.address };
    const answer = iommufd.request(name, uapi.IOMMU_GET_HW_INFO, uapi.iommu_hw_info, fields);
    if (answer.out_data_type === uapi.IOMMU_HW_INFO_TYPE_ARM_SMMUV3) return { idr: layout.read(data.bytes).idr };
    const why = `the IOMMU of ${device.name} is no SMMUv3 (type ${answer.out_data_type}): a stage 1 of user space's own is built for the SMMUv3 alone`;
    const hint = 'on x86 MSIs are taken before translation, and need no doorbell: attach to the IOAS';
    throw new VfioError({ code: 'EOPNOTSUPP', request: name, why, field: 'out_data_type', hint });
  } finally {
    data.free();
  }
}

export class VirtualSmmu extends Resource {
  readonly id: number;
  /** How the virtual SMMU calls the device. */
  readonly streamId: number;
  readonly #iommufd: Iommufd;
  #events = -1;

  private constructor(iommufd: Iommufd, id: number, streamId: number) {
    super();
    this.#iommufd = iommufd;
    this.id = id;
    this.streamId = streamId;
  }

  /** @param parent stage 2 @throws VfioError EOPNOTSUPP for an SMMU that user space must not nest on */
  static create(device: CdevDevice, parent: Hwpt, streamId: number, depth: number): VirtualSmmu {
    const { iommufd } = parent.ioas;
    whole(streamId, 'IOMMU_VDEVICE_ALLOC', 'virt_id', LAST_STREAM);
    whole(depth, 'IOMMU_VEVENTQ_ALLOC', 'veventq_depth');
    const fields = { type: uapi.IOMMU_VIOMMU_TYPE_ARM_SMMUV3, dev_id: device.id, hwpt_id: parent.id };
    const name = 'IOMMU_VIOMMU_ALLOC';
    const answer = iommufd.request(name, uapi.IOMMU_VIOMMU_ALLOC, uapi.iommu_viommu_alloc, fields, (code) =>
      code === 'EOPNOTSUPP'
        ? { why: `the SMMU of ${device.name} has neither S2FWB nor the firmware's word that it is coherent (CANWBS)` }
        : null,
    );
    const smmu = new VirtualSmmu(iommufd, answer.out_viommu_id, streamId);
    try {
      smmu.#add(device, depth);
      return smmu;
    } catch (error) {
      smmu.close();
      throw error;
    }
  }

  get label(): string {
    return `virtual SMMU ${this.id}`;
  }

  /** Commands of two words each, of those that a guest may give. @throws VfioError EIO at the first of another kind; those before it are done */
  invalidate(commands: readonly (readonly bigint[])[]): void {
    const name = 'IOMMU_HWPT_INVALIDATE';
    this.assertOpen(name);
    const layout = uapi.iommu_viommu_arm_smmuv3_invalidate;
    if (!Array.isArray(commands)) refuseArgument(name, 'data_uptr', 'a list of commands', commands);
    const list = userMemory(this.#iommufd.kernel, Math.max(1, commands.length) * layout.size);
    const fields = {
      hwpt_id: this.id,
      data_uptr: list.address,
      data_type: uapi.IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
      entry_len: layout.size,
      entry_num: commands.length,
    };
    try {
      for (const [i, words] of commands.entries()) {
        if (!Array.isArray(words)) refuseArgument(name, `data_uptr[${i}]`, 'two words', words);
        const [first = 0n, second = 0n] = words;
        fitting(name, () => layout.write(list.bytes, { cmd: [first, second] }, i * layout.size));
      }
      this.#iommufd.request(name, uapi.IOMMU_HWPT_INVALIDATE, uapi.iommu_hwpt_invalidate, fields);
    } finally {
      list.free();
    }
  }

  /** What the IOMMU remembers of the stage 1's pages [iova, iova + length), or of all of it. @throws VfioError */
  forget(asid: number, iova?: number, length = 0, granule = 4096): void {
    if (iova === undefined) {
      this.invalidate([command(TLBI, { Opcode: Op.TLBI_NH_ASID, ASID: asid })]);
      return;
    }
    const pages = Array.from({ length: Math.ceil(length / granule) }, (_, i) => iova + i * granule);
    const Leaf = 1;
    this.invalidate(
      pages.map((page) =>
        command(TLBI, { Opcode: Op.TLBI_NH_VA, ASID: asid, Leaf, Address: BigInt(page) >> BigInt(TLBI.Address.low) }),
      ),
    );
  }

  /** Takes what waits in the queue. @throws VfioError */
  events(): readonly NestedEvent[] {
    const name = 'read(vEVENTQ)';
    this.assertOpen(name);
    const { kernel } = this.#iommufd;
    const found: NestedEvent[] = [];
    const bytes = new Uint8Array(READ_ROOM);
    for (;;) {
      // Not pread: the queue is a stream, where Linux answers ESPIPE.
      const count = check(kernel, kernel.read(this.#events, bytes), name);
      if (count === 0) return found;
      for (let at = 0; at < count; ) {
        const event = eventAt(bytes, at);
        found.push(event);
        at += HEADER + event.words.length * 8;
      }
    }
  }

  protected override release(): void {
    this.#iommufd.destroy(this.id);
  }

  /** The queue's object goes after its file, which keeps it (EBUSY). */
  protected override closeChildren(): void {
    if (this.#events >= 0) this.#iommufd.kernel.close(this.#events);
    this.#events = -1;
    super.closeChildren();
  }

  #add(device: CdevDevice, depth: number): void {
    const named = { viommu_id: this.id, dev_id: device.id, virt_id: this.streamId };
    const vdevice = this.#iommufd.request(
      'IOMMU_VDEVICE_ALLOC',
      uapi.IOMMU_VDEVICE_ALLOC,
      uapi.iommu_vdevice_alloc,
      named,
      (code) =>
        code === 'EEXIST'
          ? { why: `${device.name} has a virtual SMMU already, or stream id ${hex(this.streamId, 1)} is taken` }
          : null,
    );
    this.adopt(new Held(this.#iommufd, 'vDEVICE', vdevice.out_vdevice_id));
    const wanted = { viommu_id: this.id, type: uapi.IOMMU_VEVENTQ_TYPE_ARM_SMMUV3, veventq_depth: depth };
    const name = 'IOMMU_VEVENTQ_ALLOC';
    const queue = this.#iommufd.request(name, uapi.IOMMU_VEVENTQ_ALLOC, uapi.iommu_veventq_alloc, wanted);
    this.adopt(new Held(this.#iommufd, 'vEVENTQ', queue.out_veventq_id));
    this.#events = queue.out_veventq_fd;
  }
}

function eventAt(bytes: Uint8Array, at: number): NestedEvent {
  const { flags, sequence } = uapi.iommufd_vevent_header.read(bytes, at);
  if ((flags & uapi.IOMMU_VEVENTQ_FLAG_LOST_EVENTS) !== 0) {
    return { sequence, name: 'LOST_EVENTS', streamId: 0, input: 0n, words: [] };
  }
  const words = uapi.iommu_vevent_arm_smmuv3.read(bytes, at + HEADER).evt;
  const { ID, StreamID, InputAddr } = unpack(EVENT, words);
  return { sequence, name: eventName(Number(ID)), streamId: Number(StreamID), input: InputAddr, words };
}
