/** Admin commands (section 5). */

import type { FunctionSpec } from '../../ports/pci.ts';
import type { QueueEngine } from './engine.ts';
import { type AsyncEvents, EventType, NoticeEvent, SmartEvent } from './events.ts';
import { Feature, type Features } from './features.ts';
import type { HostMemory } from './host-memory.ts';
import { identifyController, identifyNamespace, MDTS, namespaceDescriptors, namespaceList } from './identify.ts';
import { LogPage, type Logs } from './logs.ts';
import { NAMESPACE_ID, type Namespace } from './namespace.ts';
import { resolvePrps, scatter } from './prp.ts';
import { type Command, CompletionQueue, SubmissionQueue } from './queues.ts';
import { AdminOpcode, NvmeStatus } from './registers.ts';

const TOO_HOT_OR_COLD = 0x02;
const NAMESPACE_NOTICES = 0x100;
const ALL_NAMESPACES = 0xffff_ffff;
const UNSUPPORTED_FLAGS = 0xc3;
const MOST_BYTES = 4096 << MDTS;

export interface AdminContext {
  readonly spec: FunctionSpec;
  readonly serial: string;
  readonly engine: QueueEngine;
  readonly memory: HostMemory;
  readonly namespace: Namespace;
  readonly logs: Logs;
  readonly features: Features;
  readonly events: AsyncEvents;
  readonly pageBytes: number;
  /** CC.IOSQES and CC.IOCQES are those of the NVM command set. */
  readonly entrySizes: { readonly submission: boolean; readonly completion: boolean };
  readonly mostEntries: number;
  readonly vectors: number;
}

export class AdminCommands {
  private readonly context: AdminContext;

  constructor(context: AdminContext) {
    this.context = context;
  }

  execute(command: Command): void {
    if ((command.flags & UNSUPPORTED_FLAGS) !== 0) {
      this.answer(command, NvmeStatus.INVALID_FIELD);
      return;
    }
    switch (command.opcode) {
      case AdminOpcode.DELETE_IO_SQ:
        this.answer(command, this.deleteSubmission(command.word(10) & 0xffff));
        break;
      case AdminOpcode.CREATE_IO_SQ:
        this.answer(command, this.createSubmission(command));
        break;
      case AdminOpcode.DELETE_IO_CQ:
        this.answer(command, this.deleteCompletion(command.word(10) & 0xffff));
        break;
      case AdminOpcode.CREATE_IO_CQ:
        this.answer(command, this.createCompletion(command));
        break;
      case AdminOpcode.GET_LOG_PAGE:
        this.getLogPage(command);
        break;
      case AdminOpcode.IDENTIFY:
        this.identify(command);
        break;
      case AdminOpcode.ABORT:
        this.abort(command);
        break;
      case AdminOpcode.SET_FEATURES:
        this.setFeatures(command);
        break;
      case AdminOpcode.GET_FEATURES:
        this.getFeatures(command);
        break;
      case AdminOpcode.ASYNC_EVENT_REQUEST:
        this.context.events.request(command);
        break;
      default:
        this.answer(command, NvmeStatus.INVALID_OPCODE);
    }
  }

  /** The namespace has another size: a notice, for a host that wants them. */
  namespaceChanged(): void {
    const { events, features, logs } = this.context;
    logs.namespaceChanged(NAMESPACE_ID);
    if (!features.wants(NAMESPACE_NOTICES)) return;
    events.report(EventType.NOTICE, NoticeEvent.NAMESPACE_CHANGED, LogPage.CHANGED_NAMESPACES);
  }

  private answer(command: Command, status: number, result = 0): void {
    this.context.engine.answer(command, status, result);
  }

  private createCompletion(command: Command): number {
    const { engine, features, entrySizes, mostEntries, vectors } = this.context;
    const [id, entries] = [command.word(10) & 0xffff, (command.word(10) >>> 16) + 1];
    const vector = command.word(11) >>> 16;
    if (id === 0 || id > features.queues || engine.completions.has(id)) return NvmeStatus.INVALID_QUEUE_ID;
    if (entries < 2 || entries > mostEntries || !entrySizes.completion) return NvmeStatus.INVALID_QUEUE_SIZE;
    const refusal = this.refusePlace(command);
    if (refusal !== NvmeStatus.SUCCESS) return refusal;
    if (vector >= vectors) return NvmeStatus.INVALID_VECTOR;
    const interrupts = (command.word(11) & 2) !== 0;
    engine.completions.set(id, new CompletionQueue(id, command.prps[0], entries, vector, interrupts));
    return NvmeStatus.SUCCESS;
  }

  private createSubmission(command: Command): number {
    const { engine, features, entrySizes, mostEntries } = this.context;
    const [id, entries] = [command.word(10) & 0xffff, (command.word(10) >>> 16) + 1];
    const completionId = command.word(11) >>> 16;
    if (completionId === 0 || completionId > features.queues) return NvmeStatus.INVALID_QUEUE_ID;
    const completion = engine.completions.get(completionId);
    if (completion === undefined) return NvmeStatus.COMPLETION_QUEUE_INVALID;
    if (id === 0 || id > features.queues || engine.submissions.has(id)) return NvmeStatus.INVALID_QUEUE_ID;
    if (entries < 2 || entries > mostEntries || !entrySizes.submission) return NvmeStatus.INVALID_QUEUE_SIZE;
    const refusal = this.refusePlace(command);
    if (refusal !== NvmeStatus.SUCCESS) return refusal;
    engine.submissions.set(id, new SubmissionQueue(id, command.prps[0], entries, completion));
    return NvmeStatus.SUCCESS;
  }

  /** A queue lies in one piece (CAP.CQR) and begins at a page. */
  private refusePlace(command: Command): number {
    if ((command.word(11) & 1) === 0) return NvmeStatus.INVALID_FIELD;
    return command.prps[0] % this.context.pageBytes === 0 ? NvmeStatus.SUCCESS : NvmeStatus.INVALID_PRP_OFFSET;
  }

  private deleteSubmission(id: number): number {
    const { engine } = this.context;
    const queue = engine.submissions.get(id);
    if (id === 0 || queue === undefined) return NvmeStatus.INVALID_QUEUE_ID;
    engine.remove(queue);
    return NvmeStatus.SUCCESS;
  }

  private deleteCompletion(id: number): number {
    const { engine } = this.context;
    const queue = engine.completions.get(id);
    if (id === 0 || queue === undefined) return NvmeStatus.INVALID_QUEUE_ID;
    for (const { completion } of engine.submissions.values())
      if (completion === queue) return NvmeStatus.INVALID_QUEUE_DELETION;
    engine.completions.delete(id);
    return NvmeStatus.SUCCESS;
  }

  private identify(command: Command): void {
    const data = this.identifyData(command.word(10) & 0xff, command.namespace);
    if (typeof data === 'number') this.answer(command, data);
    else this.toHost(command, data);
  }

  private identifyData(structure: number, id: number): Uint8Array | number {
    const { spec, serial, namespace } = this.context;
    switch (structure) {
      case 0x00:
        // All of them have this in common, and there is no namespace management that would want to know more.
        return id === NAMESPACE_ID ? identifyNamespace(namespace) : NvmeStatus.INVALID_NAMESPACE;
      case 0x01:
        return identifyController(spec, serial);
      case 0x02:
        return id >= 0xffff_fffe ? NvmeStatus.INVALID_NAMESPACE : namespaceList(id);
      case 0x03:
        return id === NAMESPACE_ID ? namespaceDescriptors(serial) : NvmeStatus.INVALID_NAMESPACE;
      default:
        return NvmeStatus.INVALID_FIELD;
    }
  }

  private getLogPage(command: Command): void {
    const { logs, events, features } = this.context;
    const [id, length] = [command.word(10) & 0xff, logBytes(command)];
    const offset = command.word(13) * 2 ** 32 + command.word(12);
    const page = logs.page(id, features.isTooHotOrCold ? TOO_HOT_OR_COLD : 0);
    if (page === null) this.answer(command, NvmeStatus.INVALID_LOG_PAGE);
    else if (id === LogPage.SMART && command.namespace !== 0 && command.namespace !== ALL_NAMESPACES)
      // LPA says that there is none of a namespace's own.
      this.answer(command, NvmeStatus.INVALID_FIELD);
    else if (offset % 4 !== 0 || offset > page.length || length > MOST_BYTES)
      this.answer(command, NvmeStatus.INVALID_FIELD);
    else {
      const bytes = new Uint8Array(length);
      bytes.set(page.subarray(offset, offset + length));
      const retain = (command.word(10) & 0x8000) !== 0;
      this.toHost(command, bytes, () => {
        if (retain) return;
        if (id === LogPage.CHANGED_NAMESPACES) logs.forgetChanged();
        if (id === LogPage.ERROR) events.logRead(EventType.ERROR);
        if (id === LogPage.SMART) events.logRead(EventType.SMART);
        if (id === LogPage.CHANGED_NAMESPACES) events.logRead(EventType.NOTICE);
      });
    }
  }

  /** Aborts what was fetched and not answered; bit 0 of the result is set when there is no such command any more. */
  private abort(command: Command): void {
    const { engine } = this.context;
    const queue = engine.submissions.get(command.word(10) & 0xffff);
    const id = command.word(10) >>> 16;
    const target = [...(queue?.outstanding ?? [])].find((other) => other.id === id && other !== command);
    if (target !== undefined) engine.answer(target, NvmeStatus.ABORT_REQUESTED);
    this.answer(command, NvmeStatus.SUCCESS, target === undefined ? 1 : 0);
  }

  private setFeatures(command: Command): void {
    const { features, engine, events } = this.context;
    const id = command.word(10) & 0xff;
    if (command.word(10) >>> 31 !== 0) {
      this.answer(command, NvmeStatus.NOT_SAVEABLE);
      return;
    }
    const { status, result } = features.set(id, command.word(11), engine.hasIoQueues);
    this.answer(command, status, result);
    const watched = id === Feature.TEMPERATURE_THRESHOLD || id === Feature.ASYNC_EVENTS;
    if (watched && features.isTooHotOrCold && features.wants(TOO_HOT_OR_COLD))
      events.report(EventType.SMART, SmartEvent.TEMPERATURE, LogPage.SMART);
  }

  private getFeatures(command: Command): void {
    const { status, result } = this.context.features.get(command.word(10) & 0xff, command.word(11));
    this.answer(command, status, result);
  }

  private toHost(command: Command, bytes: Uint8Array, then?: () => void): void {
    const { memory, pageBytes } = this.context;
    resolvePrps(memory, pageBytes, command.prps, bytes.length, (status, segments) => {
      if (status !== NvmeStatus.SUCCESS) {
        this.answer(command, status);
        return;
      }
      scatter(memory, segments, bytes, (ok) => {
        this.answer(command, ok ? NvmeStatus.SUCCESS : NvmeStatus.DATA_TRANSFER_ERROR);
        if (ok) then?.();
      });
    });
  }
}

/** NUMDL and NUMDU, zero-based words. */
const logBytes = (command: Command): number =>
  ((command.word(11) & 0xffff) * 2 ** 16 + (command.word(10) >>> 16) + 1) * 4;
