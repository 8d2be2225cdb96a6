/** The stream table entries and context descriptors that the driver writes (arm_smmu_make_s1_cd, arm_smmu_make_s2_domain_ste). */
import { getNumber, pack, setField } from '../../../arch/bits.ts';
import { encodeSl0 } from '../../../arch/lpae/geometry.ts';
import { CD, CD_WORDS, MAIR_LINUX, TG0 } from '../../../arch/smmuv3/cd.ts';
import { encodeAddressSize } from '../../../arch/smmuv3/registers.ts';
import { S1Dss, STE, STE_WORDS, SteConfig } from '../../../arch/smmuv3/ste.ts';
import type { NestedDomain } from '../nested-domain.ts';
import type { PagingDomain } from '../paging-domain.ts';
import { abortEntry } from './stream-table.ts';

/** Write-back, read- and write-allocate; inner shareable. */
const CACHED = 1;
const INNER_SHAREABLE = 3;

/** What entries need to know of the SMMU. */
export interface EntryFeatures {
  readonly oas: number;
  readonly stall: boolean;
}

/** A field's own value from an address: the field begins at bit `low`. */
const address = (pa: number, low: number): bigint => BigInt(pa) >> BigInt(low);

export function stage1Descriptor(domain: PagingDomain, features: EntryFeatures): bigint[] {
  const { format } = domain;
  return pack(CD, CD_WORDS, {
    T0SZ: 64 - format.inputBits,
    TG0: TG0[2 ** format.granuleShift],
    IR0: CACHED,
    OR0: CACHED,
    SH0: INNER_SHAREABLE,
    EPD1: 1,
    V: 1,
    IPS: encodeAddressSize(features.oas),
    AA64: 1,
    HA: domain.dirtyOps === undefined ? 0 : 1,
    HD: domain.dirtyOps === undefined ? 0 : 1,
    S: features.stall ? 1 : 0,
    R: 1,
    A: 1,
    ASET: 1,
    ASID: domain.tag,
    TTB0: address(domain.table.base, CD.TTB0.low),
    MAIR: MAIR_LINUX,
  });
}

/** A table of context descriptors, as an entry names it. */
export interface ContextTable {
  /** Physical address. */
  readonly base: number;
  /** S1Fmt and S1CDMax. */
  readonly format: number;
  readonly bits: number;
}

/** `dss`: what becomes of transactions without a substream id (arm_smmu_make_cdtable_ste). */
export function stage1Entry(table: ContextTable, dss: number, features: EntryFeatures): bigint[] {
  return pack(STE, STE_WORDS, {
    V: 1,
    Config: SteConfig.S1,
    S1Fmt: table.format,
    S1ContextPtr: address(table.base, STE.S1ContextPtr.low),
    S1CDMax: table.bits,
    S1DSS: dss,
    // As in a bypass entry: incoming attributes.
    SHCFG: dss === S1Dss.BYPASS ? 1 : 0,
    S1CIR: CACHED,
    S1COR: CACHED,
    S1CSH: INNER_SHAREABLE,
    S1STALLD: features.stall ? 0 : 1,
  });
}

export function stage2Entry(domain: PagingDomain, features: EntryFeatures): bigint[] {
  const { format } = domain;
  return pack(STE, STE_WORDS, {
    V: 1,
    Config: SteConfig.S2,
    SHCFG: 1,
    S2VMID: domain.tag,
    S2T0SZ: 64 - format.inputBits,
    S2SL0: encodeSl0(format.granuleShift, format.startLevel),
    S2IR0: CACHED,
    S2OR0: CACHED,
    S2SH0: INNER_SHAREABLE,
    S2TG: TG0[2 ** format.granuleShift],
    S2PS: encodeAddressSize(features.oas),
    S2AA64: 1,
    S2PTW: 1,
    S2R: 1,
    S2TTB: address(domain.table.base, STE.S2TTB.low),
  });
}

/**
 * arm_smmu_make_nested_domain_ste: what user space said of stage 1, over the kernel's stage 2. Without V, or with abort, nothing passes; with
 * bypass the stage 2 stands alone.
 */
export function nestedEntry(domain: NestedDomain, features: EntryFeatures): bigint[] {
  const [first, second] = domain.entry;
  const config = getNumber([first], STE.Config);
  if (getNumber([first], STE.V) === 0 || config === SteConfig.ABORT) return abortEntry();
  const entry = stage2Entry(domain.parent, features);
  if (config === SteConfig.BYPASS) return entry;
  entry[0] = first;
  setField(entry, STE.Config, SteConfig.NESTED);
  // SHCFG stays, which means nothing under a stage 1: a word that need not change keeps the way to the stage 2 alone without a moment on neither.
  entry[1] |= second;
  // A guest that lets its device fault on and on shall not drown the event queue. No function here has ATS to be enabled.
  setField(entry, STE.MEV, 1);
  setField(entry, STE.EATS, 0);
  return entry;
}
