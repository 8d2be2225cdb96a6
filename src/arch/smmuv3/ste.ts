/** The stream table entry: 64 bytes that say what happens to one stream (IHI 0070 5.2). */
import { getNumber, type Layout, layout } from '../bits.ts';

export const STE_WORDS = 8;
export const STE_SIZE = 64;

/** Fields of the eight 64-bit words, by the architecture's names. */
export const STE = layout({
  V: [0, 0, 0],
  Config: [0, 3, 1],
  S1Fmt: [0, 5, 4],
  S1ContextPtr: [0, 51, 6],
  S1CDMax: [0, 63, 59],
  S1DSS: [1, 1, 0],
  S1CIR: [1, 3, 2],
  S1COR: [1, 5, 4],
  S1CSH: [1, 7, 6],
  DRE: [1, 12, 12],
  CONT: [1, 16, 13],
  DCP: [1, 17, 17],
  PPAR: [1, 18, 18],
  MEV: [1, 19, 19],
  S2FWB: [1, 25, 25],
  S1MPAM: [1, 26, 26],
  S1STALLD: [1, 27, 27],
  EATS: [1, 29, 28],
  STRW: [1, 31, 30],
  MemAttr: [1, 35, 32],
  MTCFG: [1, 36, 36],
  ALLOCCFG: [1, 40, 37],
  SHCFG: [1, 45, 44],
  NSCFG: [1, 47, 46],
  PRIVCFG: [1, 49, 48],
  INSTCFG: [1, 51, 50],
  S2VMID: [2, 15, 0],
  S2T0SZ: [2, 37, 32],
  S2SL0: [2, 39, 38],
  S2IR0: [2, 41, 40],
  S2OR0: [2, 43, 42],
  S2SH0: [2, 45, 44],
  S2TG: [2, 47, 46],
  S2PS: [2, 50, 48],
  S2AA64: [2, 51, 51],
  S2ENDI: [2, 52, 52],
  S2AFFD: [2, 53, 53],
  S2PTW: [2, 54, 54],
  S2HD: [2, 55, 55],
  S2HA: [2, 56, 56],
  S2S: [2, 57, 57],
  S2R: [2, 58, 58],
  S2TTB: [3, 51, 4],
  PARTID: [4, 31, 16],
  S_S2T0SZ: [4, 37, 32],
  VMSPtr: [5, 51, 12],
});
export type SteField = keyof typeof STE;

/** STE.Config. Bit 2 clear aborts; bit 0 is stage 1, bit 1 is stage 2. */
export const SteConfig = { ABORT: 0, BYPASS: 4, S1: 5, S2: 6, NESTED: 7 } as const;

/** STE.S1Fmt: how context descriptors are found. */
export const S1Fmt = { LINEAR: 0, TWO_LEVEL_4K: 1, TWO_LEVEL_64K: 2 } as const;

/** STE.S1DSS: what a transaction without a substream id does when substreams are on. */
export const S1Dss = { TERMINATE: 0, BYPASS: 1, SSID0: 2 } as const;

/** `S1` for 5; null for a Config that the architecture reserves (1 to 3 behave as abort). */
export function steConfigName(config: number): string {
  return Object.entries(SteConfig).find(([, value]) => value === config)?.[0] ?? 'ABORT';
}

const maskOf = (names: readonly SteField[]): bigint[] => {
  const masks = new Array<bigint>(STE_WORDS).fill(0n);
  for (const name of names) {
    const field = (STE as Layout)[name];
    masks[field.word] |= ((1n << BigInt(field.high - field.low + 1)) - 1n) << BigInt(field.low);
  }
  return masks;
};

const ALWAYS = maskOf(['V']);
const CONFIGURED = maskOf(['V', 'Config']);
const STAGE1 = maskOf([
  'S1Fmt',
  'S1ContextPtr',
  'S1CDMax',
  'S1DSS',
  'S1CIR',
  'S1COR',
  'S1CSH',
  'S1STALLD',
  'STRW',
  'EATS',
  'MEV',
  'S2VMID',
]);
const STAGE2 = maskOf([
  'S2FWB',
  'EATS',
  'MEV',
  'SHCFG',
  'S2VMID',
  'S2T0SZ',
  'S2SL0',
  'S2IR0',
  'S2OR0',
  'S2SH0',
  'S2TG',
  'S2PS',
  'S2AA64',
  'S2ENDI',
  'S2AFFD',
  'S2PTW',
  'S2S',
  'S2R',
  'S2TTB',
]);
const BYPASS = maskOf(['SHCFG', 'EATS', 'MTCFG', 'MemAttr', 'ALLOCCFG']);

/**
 * The bits of an entry that the SMMU looks at. Software may change all others while the entry is live: that is how an
 * update passes through no state but the old and the new one.
 */
export function steUsedBits(words: readonly bigint[]): bigint[] {
  if (getNumber(words, STE.V) === 0) return ALWAYS.slice();
  const config = getNumber(words, STE.Config);
  const used = CONFIGURED.slice();
  const add = (masks: readonly bigint[]) =>
    masks.forEach((mask, i) => {
      used[i] |= mask;
    });
  if (config === SteConfig.BYPASS) add(BYPASS);
  if (config >= 4 && (config & 1) !== 0) {
    add(STAGE1);
    if (getNumber(words, STE.S1DSS) === S1Dss.BYPASS) add(BYPASS);
  }
  if (config >= 4 && (config & 2) !== 0) add(STAGE2);
  return used;
}
