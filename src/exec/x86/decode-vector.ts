/** SSE moves between memory and a vector register (Intel SDM volume 2, appendix A, table A-3: by the mandatory prefix and the opcode behind 0f). */
import type { Head } from './decode.ts';
import type { Instruction, MemoryOperand, Width } from './instruction.ts';

interface Row {
  readonly width: Width | 'word';
  readonly way: 'load' | 'store';
  readonly part?: 'low' | 'high';
  readonly aligned?: boolean;
}

const load = (width: Row['width'], more: Partial<Row> = {}): Row => ({ width, way: 'load', ...more });
const store = (width: Row['width'], more: Partial<Row> = {}): Row => ({ width, way: 'store', ...more });
const aligned = { aligned: true };

/** Keys: the prefix (0, 66, f2, f3) << 8 | the opcode. `word`: 8 bytes with REX.W, else 4. */
const ROWS: Readonly<Record<number, Row>> = {
  16: load(16),
  17: store(16),
  26128: load(16),
  26129: store(16),
  62224: load(4),
  62225: store(4),
  61968: load(8),
  61969: store(8),
  18: load(8, { part: 'low' }),
  19: store(8),
  26130: load(8, { part: 'low' }),
  26131: store(8),
  22: load(8, { part: 'high' }),
  23: store(8, { part: 'high' }),
  26134: load(8, { part: 'high' }),
  26135: store(8, { part: 'high' }),
  40: load(16, aligned),
  41: store(16, aligned),
  26152: load(16, aligned),
  26153: store(16, aligned),
  43: store(16, aligned),
  26155: store(16, aligned),
  26222: load('word'),
  26238: store('word'),
  62334: load(8),
  26326: store(8),
  26223: load(16, aligned),
  26239: store(16, aligned),
  62319: load(16),
  62335: store(16),
  26343: store(16, aligned),
  62192: load(16),
};

export function vectorAction(
  head: Head,
  opcode: number,
  register: number,
  memory: MemoryOperand,
): Omit<Instruction, 'length'> | null {
  const prefix = head.repeat !== 0 ? head.repeat : head.operand16 ? 0x66 : 0;
  const row = ROWS[(prefix << 8) | opcode];
  if (row === undefined) return null;
  const width = row.width === 'word' ? (head.w ? 8 : 4) : row.width;
  const shared = { width, memory, aligned: row.aligned ?? false };
  if (row.way === 'load')
    return { ...shared, action: { kind: 'vector-load', into: register, part: row.part ?? 'all' } };
  return { ...shared, action: { kind: 'vector-store', from: register, part: row.part ?? 'low' } };
}
