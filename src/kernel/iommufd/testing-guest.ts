/** A guest's stage 1 for the tests of this room. */
import { pack } from '../../arch/bits.ts';
import { CD, CD_WORDS } from '../../arch/smmuv3/cd.ts';
import * as uapi from '../../uapi/iommufd.ts';
import type { Init } from '../../uapi/struct.ts';
import { allocate, named } from './testing.ts';
import { CdevLab } from './testing-machine.ts';

export const PAGE = 0x1000;
/** Where the guest's memory lies in its own physical addresses, and in the IOAS. */
export const IPA = 0x10_0000;
export const VSID = 0x42;
/** V, Config stage 1, and the context descriptor at the guest's page 1. */
export const STAGE1: [bigint, bigint] = [BigInt(IPA + PAGE) | (5n << 1n) | 1n, 0n];
export const BYPASS: [bigint, bigint] = [(4n << 1n) | 1n, 0n];
export const ABORT: [bigint, bigint] = [1n, 0n];
/** A page of level 3: valid, AF, inner shareable, accessible to devices, of one ASID; with bit 7 read-only. */
export const WRITABLE = 0xf43n;
export const READ_ONLY = 0xfc3n;
export const ASID = 5;

/** The program of the lab's step 5: a guest whose stage 1 is written by hand, 39 bits in three levels of 4 KiB tables. */
export class Guest {
  readonly lab = new CdevLab('arm-its');
  readonly iommufd = this.lab.iommufd;
  readonly memory = allocate(this.lab.client, 0x10_0000);
  readonly ioas: number;
  readonly parent: number;
  readonly viommu: number;
  /** Ids are 1 the device, 2 the IOAS, 3 the stage 2, 4 the vIOMMU. */
  constructor() {
    const { iommufd, lab } = this;
    lab.bind(0);
    this.ioas = iommufd.ioas();
    this.parent = Number(iommufd.hwpt(1, this.ioas, uapi.IOMMU_HWPT_ALLOC_NEST_PARENT));
    const fields = { type: 1, dev_id: 1, hwpt_id: this.parent };
    const answer = iommufd.call(uapi.IOMMU_VIOMMU_ALLOC, uapi.iommu_viommu_alloc, fields);
    if (answer.result !== 0) throw new Error(`VIOMMU_ALLOC: ${answer.result}`);
    this.viommu = answer.out_viommu_id;
    const mapped = iommufd.mapAt(this.ioas, IPA, this.memory.address, this.memory.length);
    if (mapped !== 0) throw new Error(`IOAS_MAP: ${mapped}`);
    const descriptor = { V: 1, AA64: 1, T0SZ: 25, EPD1: 1, IPS: 4, R: 1, A: 1, ASET: 1, ASID };
    // Attributes and the context descriptor in page 1; tables in pages 2, 3, 4.
    const words = pack(CD, CD_WORDS, {
      ...descriptor,
      MAIR: 0xffn,
      TTB0: BigInt(IPA + 2 * PAGE) >> BigInt(CD.TTB0.low),
    });
    words.forEach((word, i) => {
      this.poke(PAGE + i * 8, word);
    });
    this.poke(2 * PAGE, BigInt(IPA + 3 * PAGE) | 3n);
  }

  poke(offset: number, word: bigint): void {
    new DataView(this.memory.bytes.buffer, this.memory.bytes.byteOffset).setBigUint64(offset, word, true);
  }

  peek(offset: number): number {
    return new DataView(this.memory.bytes.buffer, this.memory.bytes.byteOffset).getUint32(offset, true);
  }

  /** A stage-1 mapping: each 2 MiB of IOVAs has a table of its own, page 4 and up. */
  map(iova: number, ipa: number, attributes = WRITABLE): void {
    const table = 4 + (iova >= 0x800_0000 ? 1 : 0);
    this.poke(3 * PAGE + (iova >>> 21) * 8, BigInt(IPA + table * PAGE) | 3n);
    this.poke(table * PAGE + ((iova >>> 12) & 511) * 8, BigInt(ipa) | attributes);
  }

  vdevice(fields: Init<typeof uapi.iommu_vdevice_alloc> = {}) {
    const request = { viommu_id: this.viommu, dev_id: 1, virt_id: VSID, ...fields };
    const { result, out_vdevice_id } = this.iommufd.call(uapi.IOMMU_VDEVICE_ALLOC, uapi.iommu_vdevice_alloc, request);
    return result === 0 ? out_vdevice_id : result;
  }

  /** A nested page table of these two words of an entry. */
  nested(entry: readonly [bigint, bigint], fields: Init<typeof uapi.iommu_hwpt_alloc> = {}) {
    const buffer = allocate(this.lab.client, PAGE);
    uapi.iommu_hwpt_arm_smmuv3.write(buffer.bytes, { ste: [...entry] });
    const data = { data_type: 2, data_len: 16, data_uptr: buffer.address };
    const request = { dev_id: 1, pt_id: this.viommu, ...data, ...fields };
    const { result, out_hwpt_id } = this.iommufd.call(uapi.IOMMU_HWPT_ALLOC, uapi.iommu_hwpt_alloc, request);
    buffer.free();
    return result === 0 ? out_hwpt_id : result;
  }

  attach(hwpt: number | string) {
    return this.iommufd.attach(this.lab.devices[0]!, Number(hwpt));
  }

  invalidate(commands: readonly (readonly bigint[])[], fields: Init<typeof uapi.iommu_hwpt_invalidate> = {}) {
    const buffer = allocate(this.lab.client, PAGE);
    for (const [i, words] of commands.entries()) {
      uapi.iommu_viommu_arm_smmuv3_invalidate.write(buffer.bytes, { cmd: [...words] }, i * 16);
    }
    const data = {
      hwpt_id: this.viommu,
      data_type: 1,
      data_uptr: buffer.address,
      entry_len: 16,
      entry_num: commands.length,
    };
    const answer = this.iommufd.call(uapi.IOMMU_HWPT_INVALIDATE, uapi.iommu_hwpt_invalidate, { ...data, ...fields });
    buffer.free();
    return [answer.result, answer.entry_num];
  }

  queue(fields: Init<typeof uapi.iommu_veventq_alloc> = {}) {
    const request = { viommu_id: this.viommu, type: 1, veventq_depth: 4, ...fields };
    return this.iommufd.call(uapi.IOMMU_VEVENTQ_ALLOC, uapi.iommu_veventq_alloc, request);
  }

  /** Events of a queue: [flags, sequence, words]. */
  events(fd: number, room = 400) {
    const bytes = new Uint8Array(room);
    const count = this.lab.client.pread(fd, bytes, 0);
    if (count < 0) return named(count);
    const found: [number, number, bigint[]][] = [];
    for (let at = 0; at < count; ) {
      const { flags, sequence } = uapi.iommufd_vevent_header.read(bytes, at);
      const words = flags === 0 ? uapi.iommu_vevent_arm_smmuv3.read(bytes, at + 8).evt : [];
      found.push([flags, sequence, words]);
      at += 8 + words.length * 8;
    }
    return found;
  }
}
