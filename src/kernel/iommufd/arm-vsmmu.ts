/** A virtual SMMU: struct arm_vsmmu (arm-smmu-v3-iommufd.c). */
import { getNumber, pack, setField } from '../../arch/bits.ts';
import { CFGI, Op, TLBI } from '../../arch/smmuv3/commands.ts';
import { EVENT } from '../../arch/smmuv3/events.ts';
import { STE, SteConfig, type SteField } from '../../arch/smmuv3/ste.ts';
import { hex } from '../../ports/address.ts';
import {
  iommu_viommu_arm_smmuv3_invalidate as commandLayout,
  IOMMU_HWPT_DATA_ARM_SMMUV3,
  IOMMU_VEVENTQ_TYPE_ARM_SMMUV3,
  IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
  iommu_hwpt_arm_smmuv3,
  iommu_vevent_arm_smmuv3,
} from '../../uapi/iommufd.ts';
import type { ArmSmmuV3Driver } from '../iommu/arm-smmu-v3/driver.ts';
import { NestedDomain } from '../iommu/nested-domain.ts';
import { PagingDomain } from '../iommu/paging-domain.ts';
import { dmaAliases } from '../iommu/pci-topology.ts';
import type { IommufdContext } from './context.ts';
import type { IommufdDevice } from './device.ts';
import type { IommufdGroup } from './group.ts';
import type { HwptPaging } from './hwpt.ts';
import type { NestedTable } from './iommu-ops.ts';
import type { Invalidated, UserArray, UserData } from './user-data.ts';
import type { Vdevice } from './vdevice.ts';
import { Viommu } from './viommu.ts';

/** What user space may say of an entry, by word. */
const NESTING_ALLOWED: readonly (readonly SteField[])[] = [
  ['V', 'Config', 'S1Fmt', 'S1ContextPtr', 'S1CDMax'],
  ['S1DSS', 'S1CIR', 'S1COR', 'S1CSH', 'S1STALLD', 'EATS'],
];
const CONFIGS: readonly number[] = [SteConfig.ABORT, SteConfig.BYPASS, SteConfig.S1];
const OPCODE_MASK = 0xffn;
const U32_MAX = 0xffff_ffffn;
/** Commands that are issued at once: CMDQ_BATCH_ENTRIES - 1. */
const BATCH = 63;

export class ArmVsmmu extends Viommu {
  readonly driver: ArmSmmuV3Driver;

  constructor(ctx: IommufdContext, driver: ArmSmmuV3Driver, parent: HwptPaging) {
    super(ctx, driver, parent);
    this.driver = driver;
  }

  /** arm_vsmmu_alloc_domain_nested: no flags, and an entry. */
  allocNested(flags: number, data: UserData): NestedDomain | number {
    if (flags !== 0) {
      return this.ctx.context.refusals.refuse('EOPNOTSUPP', `flags ${hex(flags)}: a virtual SMMU takes none`, 'flags');
    }
    const config = data.read(iommu_hwpt_arm_smmuv3, IOMMU_HWPT_DATA_ARM_SMMUV3, 'ste');
    if (typeof config === 'number') return config;
    const [first, second] = config.ste;
    return this.nestedDomain([first, second]);
  }

  /** arm_vsmmu_cache_invalidate: the whole array is read before anything is done. */
  invalidate(array: UserArray): Invalidated {
    const entries = array.all(commandLayout, IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3);
    if (typeof entries === 'number') return { done: 0, error: entries };
    let batch: bigint[][] = [];
    for (const [done, { cmd }] of entries.entries()) {
      const words = this.convert([cmd[0], cmd[1]]);
      // As in Linux, what stands in the same batch before it counts as done, and was not issued.
      if (typeof words === 'number') return { done, error: words };
      batch.push(words);
      if (batch.length < BATCH && done + 1 < entries.length) continue;
      this.issue(batch);
      batch = [];
    }
    return { done: entries.length, error: 0 };
  }

  /** arm_vsmmu_vdevice_init: a device with one stream id. */
  override acceptDevice({ dev }: IommufdDevice): number {
    if (dmaAliases(dev).length === 0) return 0;
    return this.ctx.context.refusals.refuse('EOPNOTSUPP', `${dev.name} has more than one stream id`, 'dev_id');
  }

  /** arm_smmu_attach_prepare_vmaster: a stage 1 of the guest's serves devices that the guest has a name for. */
  override admit({ bound }: IommufdGroup, table: NestedTable): number {
    if (!(table instanceof NestedDomain) || !table.translates) return 0;
    const nameless = bound.find(({ vdevice }) => vdevice?.viommu !== this);
    if (nameless === undefined) return 0;
    const why = `${nameless.dev.name} is no vDEVICE of vIOMMU ${this.id}, and the page table has a stage 1`;
    return this.ctx.context.refusals.refuse('ENOENT', why, 'pt_id');
  }

  /** arm_smmu_validate_vste: the nested domain of two words of an entry, or -EIO. */
  private nestedDomain(entry: readonly [bigint, bigint]): NestedDomain | number {
    const { context } = this.ctx;
    const stage2 = this.parent.domain;
    if (!(stage2 instanceof PagingDomain)) throw new TypeError('the parent of a virtual SMMU is a domain of the SMMU');
    if (getNumber(entry, STE.V) === 0) return new NestedDomain(context, stage2, [0n, 0n]);
    const foreign = NESTING_ALLOWED.findIndex((names, word) => (entry[word] & ~maskOf(names)) !== 0n);
    if (foreign >= 0) {
      const names = NESTING_ALLOWED[foreign]!;
      const bits = entry[foreign] & ~maskOf(names);
      const why = `word ${foreign} of the entry has bits ${hex(bits)} of fields that are not the guest's`;
      return context.refusals.refuse('EIO', why, 'ste', `there it may say ${names.join(', ')}`);
    }
    const config = getNumber(entry, STE.Config);
    if (!CONFIGS.includes(config)) {
      const why = `Config ${config} is none of abort 0, bypass 4, stage 1 5`;
      return context.refusals.refuse('EIO', why, 'ste', "stage 2 is the kernel's, and stage 1 alone is 5");
    }
    const eats = getNumber(entry, STE.EATS);
    if (eats > 1)
      return context.refusals.refuse('EIO', `EATS ${eats} is neither 0 nor 1`, 'ste', 'without ATS it is 0');
    return new NestedDomain(context, stage2, entry);
  }

  /** arm_vsmmu_convert_user_cmd: the command as the hardware may get it, or -EIO. */
  private convert(command: readonly [bigint, bigint]): bigint[] | number {
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
  private issue(commands: readonly (readonly bigint[])[]): void {
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
    const words = [...record];
    setField(words, EVENT.StreamID, virtualId & U32_MAX);
    const [w0 = 0n, w1 = 0n, w2 = 0n, w3 = 0n] = words;
    const data = iommu_vevent_arm_smmuv3.bytes({ evt: [w0, w1, w2, w3] });
    return this.reportEvent(IOMMU_VEVENTQ_TYPE_ARM_SMMUV3, data);
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
