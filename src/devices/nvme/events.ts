/** Asynchronous events (5.2): requests wait for events, events for requests; a type that was told of is silent until its log page was read. */
import type { Command } from './queues.ts';
import { NvmeStatus } from './registers.ts';

export const EventType = { ERROR: 0, SMART: 1, NOTICE: 2 } as const;
export const ErrorEvent = { INVALID_DOORBELL: 0x00, INVALID_DOORBELL_VALUE: 0x01 } as const;
export const SmartEvent = { TEMPERATURE: 0x01 } as const;
export const NoticeEvent = { NAMESPACE_CHANGED: 0x00 } as const;
/** AERL, zero-based: so many requests may wait. */
export const ASYNC_LIMIT = 3;

interface Event {
  readonly type: number;
  readonly info: number;
  readonly log: number;
}

export class AsyncEvents {
  private requests: Command[] = [];
  private events: Event[] = [];
  private readonly silent = new Set<number>();
  private readonly answer: (command: Command, status: number, result: number) => void;

  constructor(answer: (command: Command, status: number, result: number) => void) {
    this.answer = answer;
  }

  /** A command that waits for an event. */
  request(command: Command): void {
    this.requests = this.requests.filter(({ done }) => !done);
    if (this.requests.length > ASYNC_LIMIT) {
      this.answer(command, NvmeStatus.ASYNC_LIMIT_EXCEEDED, 0);
      return;
    }
    this.requests.push(command);
    this.match();
  }

  /** Something happened; `log` is the page that tells more. The same event waits once. */
  report(type: number, info: number, log: number): void {
    if (!this.events.some((event) => event.type === type && event.info === info)) this.events.push({ type, info, log });
    this.match();
  }

  /** The host read the page, and may be told again. */
  logRead(type: number): void {
    this.silent.delete(type);
    this.match();
  }

  reset(): void {
    this.requests = [];
    this.events = [];
    this.silent.clear();
  }

  private match(): void {
    this.requests = this.requests.filter(({ done }) => !done);
    while (this.requests.length > 0) {
      const at = this.events.findIndex(({ type }) => !this.silent.has(type));
      if (at < 0) return;
      const [event] = this.events.splice(at, 1);
      this.silent.add(event!.type);
      this.answer(this.requests.shift()!, NvmeStatus.SUCCESS, event!.type | (event!.info << 8) | (event!.log << 16));
    }
  }
}
