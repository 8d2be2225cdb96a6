/** Event records: 32 bytes, four 64-bit words (IHI 0070 7.3). */
import { getField, getInPlace, getNumber, layout, pack } from '../bits.ts';

export const EVENT_SIZE = 32;
export const EVENT_WORDS = 4;

/** Event numbers, bits 7:0 of word 0. */
export const Event = {
  F_UUT: 0x01,
  C_BAD_STREAMID: 0x02,
  F_STE_FETCH: 0x03,
  C_BAD_STE: 0x04,
  F_BAD_ATS_TREQ: 0x05,
  F_STREAM_DISABLED: 0x06,
  F_TRANSL_FORBIDDEN: 0x07,
  C_BAD_SUBSTREAMID: 0x08,
  F_CD_FETCH: 0x09,
  C_BAD_CD: 0x0a,
  F_WALK_EABT: 0x0b,
  F_TRANSLATION: 0x10,
  F_ADDR_SIZE: 0x11,
  F_ACCESS: 0x12,
  F_PERMISSION: 0x13,
  F_TLB_CONFLICT: 0x20,
  F_CFG_CONFLICT: 0x21,
  E_PAGE_REQUEST: 0x24,
  F_VMS_FETCH: 0x25,
} as const;

/** `F_TRANSLATION` for 0x10. */
export function eventName(id: number): string {
  return Object.entries(Event).find(([, value]) => value === id)?.[0] ?? `EVENT_0x${id.toString(16)}`;
}

/** Which fetch a translation event belongs to. */
export const EventClass = { CD: 0, TTD: 1, IN: 2 } as const;

export const EVENT = layout({
  ID: [0, 7, 0],
  SSV: [0, 11, 11],
  SSID: [0, 31, 12],
  StreamID: [0, 63, 32],
  STAG: [1, 15, 0],
  STALL: [1, 31, 31],
  PnU: [1, 33, 33],
  InD: [1, 34, 34],
  RnW: [1, 35, 35],
  S2: [1, 39, 39],
  CLASS: [1, 41, 40],
  TT_READ: [1, 44, 44],
  InputAddr: [2, 63, 0],
  IPA: [3, 51, 12],
  FetchAddr: [3, 51, 3],
});

/** What an event record says. Addresses are exact 64-bit values. */
export interface EventRecord {
  readonly id: number;
  readonly streamId: number;
  /** -1: the transaction had no substream id. */
  readonly substreamId: number;
  /** Translation events (0x0b, 0x10 to 0x13) alone have the fields below. */
  readonly input: bigint;
  readonly read: boolean;
  readonly privileged: boolean;
  readonly instruction: boolean;
  readonly stage2: boolean;
  readonly class: number;
  /** With a stage 2 fault: the IPA that was refused, in place. */
  readonly ipa: bigint;
  /** Of 0x03, 0x09, 0x0b, 0x25: the address that could not be fetched. */
  readonly fetch: bigint;
  readonly stall: boolean;
  readonly tag: number;
}

const isTranslation = (id: number): boolean => id === Event.F_WALK_EABT || (id >= 0x10 && id <= 0x13);
const isFetch = (id: number): boolean =>
  id === Event.F_STE_FETCH || id === Event.F_CD_FETCH || id === Event.F_WALK_EABT || id === Event.F_VMS_FETCH;

/** The record's four words. Fields that the event does not have are zero, whatever `event` holds. */
export function encodeEvent(event: EventRecord): bigint[] {
  const withSsid = event.substreamId >= 0;
  const words = pack(EVENT, EVENT_WORDS, {
    ID: event.id,
    SSV: withSsid ? 1 : 0,
    SSID: withSsid ? event.substreamId : 0,
    StreamID: event.streamId >>> 0,
  });
  if (isTranslation(event.id)) {
    words[1] = pack(EVENT, EVENT_WORDS, {
      STAG: event.stall ? event.tag : 0,
      STALL: event.stall ? 1 : 0,
      PnU: event.privileged ? 1 : 0,
      InD: event.instruction ? 1 : 0,
      RnW: event.read ? 1 : 0,
      S2: event.stage2 ? 1 : 0,
      CLASS: event.class,
    })[1];
    words[2] = event.input;
    if (event.stage2 && !isFetch(event.id)) words[3] = event.ipa & 0xf_ffff_ffff_f000n;
  }
  if (isFetch(event.id)) words[3] = event.fetch & 0xf_ffff_ffff_fff8n;
  return words;
}

export function decodeEvent(words: readonly bigint[]): EventRecord {
  const id = getNumber(words, EVENT.ID);
  const flag = (field: (typeof EVENT)[keyof typeof EVENT]): boolean => getField(words, field) === 1n;
  return {
    id,
    streamId: getNumber(words, EVENT.StreamID),
    substreamId: flag(EVENT.SSV) ? getNumber(words, EVENT.SSID) : -1,
    input: words[2],
    read: flag(EVENT.RnW),
    privileged: flag(EVENT.PnU),
    instruction: flag(EVENT.InD),
    stage2: flag(EVENT.S2),
    class: getNumber(words, EVENT.CLASS),
    ipa: isFetch(id) ? 0n : getInPlace(words, EVENT.IPA),
    fetch: isFetch(id) ? getInPlace(words, EVENT.FetchAddr) : 0n,
    stall: flag(EVENT.STALL),
    tag: getNumber(words, EVENT.STAG),
  };
}
