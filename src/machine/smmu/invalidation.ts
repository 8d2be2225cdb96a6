/** Which cached state each command takes away (IHI 0070 4.3, 4.4). */
import { bits32 } from '../../arch/bits.ts';
import { granuleShiftOfTlbiTg, Op } from '../../arch/smmuv3/commands.ts';
import { Regime, type Tlb, tlbId } from '../tlb.ts';
import type { ConfigurationCache } from './configuration.ts';
import { NO_CONTEXT, type StreamContext } from './context.ts';
import type { Features } from './features.ts';

const STAGE1 = (1 << Regime.S1) | (1 << Regime.NESTED);
const STAGE2 = 1 << Regime.S2;
const ALL = STAGE1 | STAGE2;

export class Invalidation {
  private readonly features: Features;
  private readonly tlb: Tlb;
  private readonly configuration: ConfigurationCache;
  private readonly contexts: StreamContext[];

  constructor(features: Features, tlb: Tlb, configuration: ConfigurationCache, contexts: StreamContext[]) {
    this.features = features;
    this.tlb = tlb;
    this.configuration = configuration;
    this.contexts = contexts;
  }

  /** Carries out a CFGI or TLBI command given as four halves. False: the opcode is illegal on this SMMU. */
  run(op: number, w0lo: number, w0hi: number, w1lo: number, w1hi: number): boolean {
    switch (op) {
      case Op.CFGI_STE:
        this.streams((sid) => sid === w0hi >>> 0);
        return true;
      case Op.CFGI_STE_RANGE:
        this.streamRange(w0hi, bits32(w1lo, 4, 0));
        return true;
      case Op.CFGI_CD:
        this.contextDescriptor(w0hi >>> 0, bits32(w0lo, 31, 12));
        return true;
      case Op.CFGI_CD_ALL:
        this.configuration.cds.delete(w0hi >>> 0);
        this.dropContexts((context) => context.sid === w0hi >>> 0);
        return true;
      default:
        return this.translations(op, w0lo, w0hi, w1lo, w1hi);
    }
  }

  private translations(op: number, w0lo: number, w0hi: number, w1lo: number, w1hi: number): boolean {
    const { stage1, stage2 } = this.features;
    const vmid = stage2 ? bits32(w0hi, 15, 0) : 0;
    const asid = bits32(w0hi, 31, 16);
    switch (op) {
      case Op.TLBI_NSNH_ALL:
        this.tlb.invalidateAll();
        return true;
      case Op.TLBI_NH_ALL:
        if (stage1) this.tlb.invalidateVmid(vmid, STAGE1);
        return stage1;
      case Op.TLBI_NH_ASID:
        if (stage1) this.tlb.invalidateAsid(tlbId(vmid, asid), STAGE1);
        return stage1;
      case Op.TLBI_NH_VA:
        return stage1 && this.range(vmid, asid, w0lo, w1lo, w1hi, STAGE1);
      case Op.TLBI_NH_VAA:
        return stage1 && this.range(vmid, -1, w0lo, w1lo, w1hi, STAGE1);
      case Op.TLBI_S12_VMALL:
        if (stage2) this.tlb.invalidateVmid(vmid, ALL);
        return stage2;
      case Op.TLBI_S2_IPA:
        // Entries that combine both stages are not found by IPA: software follows with TLBI_NH_ALL (IHI 0070 4.4.3).
        return stage2 && this.range(vmid, 0, w0lo, w1lo, w1hi, STAGE2);
      default:
        return false;
    }
  }

  private range(vmid: number, asid: number, w0lo: number, w1lo: number, w1hi: number, regimes: number): boolean {
    const tg = bits32(w1lo, 11, 10);
    // Without a granule it is one address, and the smallest leaf is 4 KiB.
    const pages =
      tg === 0 ? 1 : (bits32(w0lo, 16, 12) + 1) * 2 ** (bits32(w0lo, 24, 20) + granuleShiftOfTlbiTg(tg) - 12);
    this.tlb.invalidateRange(vmid, asid, w1hi, w1lo & -4096, pages, regimes);
    return true;
  }

  /** A stream's entry goes with every context descriptor that was found through it. */
  private streams(match: (sid: number) => boolean): void {
    for (const sid of this.configuration.stes.keys()) if (match(sid)) this.configuration.stes.delete(sid);
    for (const sid of this.configuration.cds.keys()) if (match(sid)) this.configuration.cds.delete(sid);
    this.dropContexts((context) => match(context.sid));
  }

  private streamRange(sid: number, range: number): void {
    const size = 2 ** (range + 1);
    const first = Math.floor((sid >>> 0) / size);
    this.streams((other) => Math.floor(other / size) === first);
  }

  private contextDescriptor(sid: number, ssid: number): void {
    this.configuration.cds.get(sid)?.delete(ssid);
    // A transaction without a substream id uses descriptor 0.
    this.dropContexts((context) => context.sid === sid && Math.max(context.ssid, 0) === ssid);
  }

  private dropContexts(match: (context: StreamContext) => boolean): void {
    const { contexts } = this;
    for (let i = 0; i < contexts.length; i++)
      if (contexts[i] !== NO_CONTEXT && match(contexts[i])) contexts[i] = NO_CONTEXT;
  }
}
