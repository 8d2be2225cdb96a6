/** A virtual SMMU: a slice of the hardware that user space may drive itself (struct iommufd_viommu, arm-smmu-v3-iommufd.c). */
import { getNumber, pack, setField } from '../../arch/bits.ts';
import { CFGI, Op, TLBI } from '../../arch/smmuv3/commands.ts';
import { EVENT } from '../../arch/smmuv3/events.ts';
import { STE, SteConfig, type SteField } from '../../arch/smmuv3/ste.ts';
import { IOMMU_VEVENTQ_TYPE_ARM_SMMUV3 } from '../../uapi/iommufd.ts';
import type { ArmSmmuV3Driver } from '../iommu/arm-smmu-v3/driver.ts';
import { NestedDomain } from '../iommu/nested-domain.ts';
import { PagingDomain } from '../iommu/paging-domain.ts';
import type { IommufdContext } from './context.ts';
import type { IommufdDevice } from './device.ts';
import type { HwptPaging } from './hwpt.ts';
import { IommufdObject } from './object.ts';
import type { Vdevice } from './vdevice.ts';
import type { VeventQueue } from './veventq.ts';

/** What user space may say of an entry, by word. */
const NESTING_ALLOWED: readonly (readonly SteField[])[] = [
  ['V', 'Config', 'S1Fmt', 'S1ContextPtr', 'S1CDMax'],
  ['S1DSS', 'S1CIR', 'S1COR', 'S1CSH', 'S1STALLD', 'EATS'],
];
const CONFIGS: readonly number[] = [SteConfig.ABORT, SteConfig.BYPASS, SteConfig.S1];
const OPCODE_MASK = 0xffn;
const U32_MAX = 0xffff_ffffn;

export class Viommu extends IommufdObject {
  readonly type = 'viommu';
  readonly ctx: IommufdContext;
  readonly driver: ArmSmmuV3Driver;
  /** Stage 2. */
  readonly parent: HwptPaging;
  /** By virtual stream id. */
  readonly vdevices = new Map<bigint, Vdevice>();
  /** By type. */
  readonly queues = new Map<number, VeventQueue>();

  /** Takes an id; the caller finalizes. */
  constructor(ctx: IommufdContext, driver: ArmSmmuV3Driver, parent: HwptPaging) {
    super();
    this.ctx = ctx;
    this.driver = driver;
    this.parent = parent;
    parent.users += 1;
    ctx.objects.add(this);
  }

  destroy(): void {
    this.parent.users -= 1;
  }

  /** arm_smmu_validate_vste: the nested domain of two words of an entry, or -EIO. */
  nestedDomain(entry: readonly [bigint, bigint]): NestedDomain | number {
    const { context } = this.ctx;
    const stage2 = this.parent.domain;
    if (!(stage2 instanceof PagingDomain)) throw new TypeError('the parent of a virtual SMMU is a domain of the SMMU');
    if (getNumber(entry, STE.V) === 0) return new NestedDomain(context, stage2, [0n, 0n]);
    const foreign = NESTING_ALLOWED.findIndex((names, word) => (entry[word] & ~maskOf(names)) !== 0n);
    if (foreign >= 0) {
      return context.refusals.refuse('EIO', `word ${foreign} of the entry has fields that are not the guest's`, 'ste');
    }
    const config = getNumber(entry, STE.Config);
    if (!CONFIGS.includes(config)) {
      return context.refusals.refuse('EIO', `Config ${config} is none of abort 0, bypass 4, stage 1 5`, 'ste');
    }
    const eats = getNumber(entry, STE.EATS);
    if (eats > 1) return context.refusals.refuse('EIO', `EATS ${eats} is neither 0 nor 1`, 'ste');
    return new NestedDomain(context, stage2, entry);
  }

  /** arm_vsmmu_convert_user_cmd: the command as the hardware may get it, or -EIO. */
  convert(command: readonly [bigint, bigint]): bigint[] | number {
    const { refusals } = this.ctx.context;
    const words = [...command];
    const vmid = (this.parent.domain as PagingDomain).tag;
    const opcode = Number(command[0] & OPCODE_MASK);
    switch (opcode) {
      case Op.TLBI_NSNH_ALL:
        return pack(TLBI, 2, { Opcode: Op.TLBI_NH_ALL, VMID: vmid });
      case Op.TLBI_NH_ALL:
      case Op.TLBI_NH_ASID:
      case Op.TLBI_NH_VA:
      case Op.TLBI_NH_VAA:
        setField(words, TLBI.VMID, vmid);
        return words;
      case Op.CFGI_CD:
      case Op.CFGI_CD_ALL:
      case Op.ATC_INV: {
        const vsid = BigInt(getNumber(words, CFGI.StreamID));
        const vdevice = this.vdevices.get(vsid);
        if (vdevice === undefined) return refusals.refuse('EIO', `no device has the virtual stream id ${vsid}`, 'cmd');
        setField(words, CFGI.StreamID, vdevice.device.dev.requester);
        return words;
      }
      default:
        return refusals.refuse('EIO', `opcode 0x${opcode.toString(16)} is none that a guest may give`, 'cmd');
    }
  }

  /** Runs commands, and waits for them. */
  issue(commands: readonly (readonly bigint[])[]): void {
    for (const words of commands) this.driver.commands.pushWords(words);
    this.driver.commands.sync();
  }

  /** arm_smmu_attach_prepare_vmaster: from now on the guest hears of what its stage 1 refuses the device. */
  watch(device: IommufdDevice): void {
    const { vdevice } = device;
    if (vdevice === null || vdevice.viommu !== this) return;
    this.driver.setEventSink(device.dev.requester, (record) => this.report(vdevice, record));
  }

  private report({ virtualId }: Vdevice, record: readonly bigint[]): boolean {
    const queue = this.queues.get(IOMMU_VEVENTQ_TYPE_ARM_SMMUV3);
    if (queue === undefined) return false;
    const words = [...record];
    setField(words, EVENT.StreamID, virtualId & U32_MAX);
    queue.add(words);
    return true;
  }
}

function maskOf(names: readonly SteField[]): bigint {
  let mask = 0n;
  for (const name of names) {
    const { high, low } = STE[name];
    mask |= ((1n << BigInt(high - low + 1)) - 1n) << BigInt(low);
  }
  return mask;
}
