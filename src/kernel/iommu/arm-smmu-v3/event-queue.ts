/** The driver's side of the event queue, and what the kernel's log says of a record (arm_smmu_evtq_thread). */
import { word64 } from '../../../arch/bits.ts';
import { decodeEvent, EVENT_SIZE, EVENT_WORDS, Event, EventClass, eventName } from '../../../arch/smmuv3/events.ts';
import { QUEUE_OVERFLOW, Reg } from '../../../arch/smmuv3/registers.ts';
import { pciName } from '../../../ports/pci.ts';
import type { KernelContext } from '../../context.ts';

export class SmmuEventQueue {
  readonly base: number;
  readonly log2: number;
  private readonly context: KernelContext;
  private readonly registers: number;

  /** @throws RangeError when memory is exhausted. */
  constructor(context: KernelContext, registers: number, log2: number) {
    this.context = context;
    this.registers = registers;
    this.log2 = log2;
    const bytes = Math.max(4096, EVENT_SIZE << log2);
    const base = context.memory.allocate(bytes, bytes);
    if (base === null) throw new RangeError('no memory for the event queue');
    this.base = base;
  }

  /** Takes what waits, oldest first, and acknowledges an overflow. */
  drain(each: (record: readonly bigint[]) => void): number {
    const { bus, memory, log } = this.context;
    const mask = (2 << this.log2) - 1;
    const prod = bus.read32(this.registers + Reg.EVTQ_PROD);
    let cons = bus.read32(this.registers + Reg.EVTQ_CONS);
    const overflowed = ((prod ^ cons) & QUEUE_OVERFLOW) !== 0;
    let count = 0;
    for (let index = cons & mask; index !== (prod & mask); index = (index + 1) & mask) {
      const at = this.base + (index & (mask >> 1)) * EVENT_SIZE;
      each(
        Array.from({ length: EVENT_WORDS }, (_, i) => word64(memory.read32(at + i * 8), memory.read32(at + i * 8 + 4))),
      );
      count++;
    }
    if (overflowed) log('arm-smmu-v3: EVTQ overflow detected -- events lost');
    cons = (prod & mask) | (prod & QUEUE_OVERFLOW);
    if (count > 0 || overflowed) bus.write32(this.registers + Reg.EVTQ_CONS, cons);
    return count;
  }
}

const CLASS_NAMES: Readonly<Record<number, string>> = {
  [EventClass.CD]: 'CD fetch',
  [EventClass.TTD]: 'Stage 1 translation table fetch',
  [EventClass.IN]: 'Input address caused fault',
};

const clientName = (sid: number): string =>
  pciName({ segment: sid >>> 16, bus: (sid >>> 8) & 0xff, device: (sid >>> 3) & 31, function: sid & 7 });

/** The lines that Linux logs for a record: the words, then what they say (arm_smmu_dump_event). */
export function describeEvent(name: string, record: readonly bigint[]): string[] {
  const event = decodeEvent(record);
  const prefix = `arm-smmu-v3 ${name}:`;
  const hex = (value: bigint | number): string => `0x${value.toString(16)}`;
  const lines = [`${prefix} event 0x${event.id.toString(16).padStart(2, '0')} received:`];
  for (const word of record) lines.push(`${prefix} \t0x${word.toString(16).padStart(16, '0')}`);
  const stream = `client: ${clientName(event.streamId)} sid: ${hex(event.streamId)} ssid: ${hex(Math.max(event.substreamId, 0))}`;
  if (event.id < Event.F_TRANSLATION || event.id > Event.F_PERMISSION) {
    return [...lines, `${prefix} event: ${eventName(event.id)} ${stream}`];
  }
  lines.push(`${prefix} event: ${eventName(event.id)} ${stream} iova: ${hex(event.input)} ipa: ${hex(event.ipa)}`);
  const who = event.privileged ? 'priv' : 'unpriv';
  const what = event.instruction ? 'inst' : 'data';
  const way = event.read ? 'read' : 'write';
  const stall = event.stall ? ' stall' : '';
  lines.push(
    `${prefix} ${who} ${what} ${way} s${event.stage2 ? 2 : 1} "${CLASS_NAMES[event.class]}"${stall} stag: ${hex(event.tag)}`,
  );
  return lines;
}
