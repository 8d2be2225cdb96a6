/** A stage 1 that a test writes into memory of its process: tables, a context descriptor, and the words of the entry that leads to them. */
import { pack } from '../../src/arch/bits.ts';
import { CD, CD_WORDS, MAIR_LINUX, S1Dss, S1Fmt, STE, SteConfig, TG0 } from '../../src/arch/smmuv3/index.ts';
import type { Ioas } from '../../src/vfio/index.ts';
import { Stage1Tables } from '../../src/vfio/stage1-tables.ts';

const PAGE = 4096;
const PAGES = 32;
const INPUT_BITS = 48;
/** 44 bits, what the presets' SMMU has. */
const IPS = 4;

export type EntryWords = readonly [bigint, bigint];

/** Bypass: the stage 2 stands alone, as far as the device can tell. */
export const BYPASS_ENTRY: EntryWords = [(BigInt(SteConfig.BYPASS) << 1n) | 1n, 0n];

/**
 * `asLinux`: the second word says of walks and stalls what the kernel says of its own stage 1, so that an entry of the one becomes one of
 * the other by a single word (IHI 0070 3.21.3). Without it two words differ, and the entry is invalid for a moment in between.
 */
export function writeStage1(ioas: Ioas, asid: number, asLinux = true): { tables: Stage1Tables; entry: EntryWords } {
  const { bytes, iova } = ioas.mapDma({ length: PAGES * PAGE });
  let next = 0;
  const page = () => {
    const at = next;
    next += PAGE;
    if (next > bytes.length) throw new RangeError(`more than ${PAGES} pages of tables`);
    return { bytes: bytes.subarray(at, at + PAGE), ipa: iova + at };
  };
  const tables = new Stage1Tables(Math.log2(PAGE), INPUT_BITS, page);
  const descriptor = page();
  const view = new DataView(descriptor.bytes.buffer, descriptor.bytes.byteOffset);
  const walks = { IR0: 1, OR0: 1, SH0: 3 };
  const words = pack(CD, CD_WORDS, {
    V: 1,
    AA64: 1,
    T0SZ: 64 - INPUT_BITS,
    TG0: TG0[PAGE] ?? 0,
    EPD1: 1,
    IPS,
    R: 1,
    A: 1,
    ASET: 1,
    ASID: asid,
    MAIR: MAIR_LINUX,
    TTB0: BigInt(tables.root) >> BigInt(CD.TTB0.low),
    ...walks,
  });
  words.forEach((word, i) => {
    view.setBigUint64(i * 8, word, true);
  });
  const [first = 0n, second = 0n] = pack(STE, 2, {
    V: 1,
    Config: SteConfig.S1,
    S1Fmt: S1Fmt.LINEAR,
    S1ContextPtr: BigInt(descriptor.ipa) >> BigInt(STE.S1ContextPtr.low),
    S1CIR: 1,
    S1COR: 1,
    S1CSH: 3,
    ...(asLinux ? { S1DSS: S1Dss.SSID0, S1STALLD: 1 } : {}),
  });
  return { tables, entry: [first, second] };
}
