/** Sinks for what happened, hop by hop: text for people, JSON lines for programs, Chrome trace JSON for a timeline. */
export { type ChromeSlice, ChromeTrace, type ChromeTraceOptions } from './chrome.ts';
export { type HopText, hopText, requesterName } from './hop-text.ts';
export { hopObject, JsonLinesTrace, type JsonLinesTraceOptions } from './jsonl.ts';
export { teeObservers } from './tee.ts';
export { TextTrace, type TextTraceOptions } from './text.ts';
