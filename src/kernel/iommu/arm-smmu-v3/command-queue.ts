/** The driver's side of the command queue: writes commands into memory, moves PROD, and looks after errors. */
import { hi32, lo32 } from '../../../arch/bits.ts';
import { COMMAND_SIZE, command, Op, opName, SYNC } from '../../../arch/smmuv3/commands.ts';
import { CMDQ_CONS_ERR_SHIFT, GERROR, Reg } from '../../../arch/smmuv3/registers.ts';
import { highHalf } from '../../../ports/address.ts';
import type { KernelContext } from '../../context.ts';

export class SmmuCommandQueue {
  readonly base: number;
  readonly log2: number;
  private readonly context: KernelContext;
  private readonly registers: number;
  private readonly indexMask: number;
  private readonly words: Int32Array;
  private readonly at: number;
  private prod = 0;
  /** Commands written since PROD was moved. */
  private pending = 0;

  /** `registers` is the SMMU's physical base. @throws RangeError when memory is exhausted. */
  constructor(context: KernelContext, registers: number, log2: number) {
    this.context = context;
    this.registers = registers;
    this.log2 = log2;
    this.indexMask = (1 << log2) - 1;
    const bytes = Math.max(4096, COMMAND_SIZE << log2);
    const base = context.memory.allocate(bytes, bytes);
    if (base === null) throw new RangeError('no memory for the command queue');
    this.base = base;
    context.memory.locate(highHalf(base), base | 0);
    this.words = context.memory.words;
    this.at = context.memory.at;
  }

  /** Writes one command as halves; it runs at the next `sync` at the latest. */
  push(w0lo: number, w0hi: number, w1lo: number, w1hi: number): void {
    // One slot stays for the SYNC.
    if (this.pending === this.indexMask) this.submit();
    const at = this.at + (this.prod & this.indexMask) * 4;
    const { words } = this;
    words[at] = w0lo;
    words[at + 1] = w0hi;
    words[at + 2] = w1lo;
    words[at + 3] = w1hi;
    this.prod = (this.prod + 1) & ((2 << this.log2) - 1);
    this.pending++;
  }

  pushWords(words: readonly bigint[]): void {
    this.push(lo32(words[0]), hi32(words[0]), lo32(words[1]), hi32(words[1]));
  }

  /** Waits until the SMMU has done all of it. */
  sync(): void {
    this.push(Op.SYNC, 0, 0, 0);
    this.submit();
  }

  private submit(): void {
    const { bus } = this.context;
    bus.write32(this.registers + Reg.CMDQ_PROD, this.prod);
    this.pending = 0;
    // The SMMU consumes as PROD moves; what it did not take is behind an error (arm_smmu_cmdq_skip_err).
    for (let cons = bus.read32(this.registers + Reg.CMDQ_CONS); this.isStuck(cons); ) {
      this.skipError(cons);
      cons = bus.read32(this.registers + Reg.CMDQ_CONS);
    }
  }

  private isStuck(cons: number): boolean {
    return ((cons ^ this.prod) & ((2 << this.log2) - 1)) !== 0 && cons >>> CMDQ_CONS_ERR_SHIFT !== 0;
  }

  private skipError(cons: number): void {
    const { bus, log } = this.context;
    const error = (cons >>> CMDQ_CONS_ERR_SHIFT) & 0x7f;
    const at = this.at + (cons & this.indexMask) * 4;
    log(
      `arm-smmu-v3: CMDQ error (cons 0x${(cons >>> 0).toString(16).padStart(8, '0')}): ${error} at ${opName(this.words[at] & 0xff)}`,
    );
    const sync = command(SYNC, { Opcode: Op.SYNC });
    this.words[at] = lo32(sync[0]);
    this.words[at + 1] = hi32(sync[0]);
    this.words[at + 2] = 0;
    this.words[at + 3] = 0;
    const gerror = bus.read32(this.registers + Reg.GERROR);
    const gerrorn = bus.read32(this.registers + Reg.GERRORN);
    bus.write32(this.registers + Reg.GERRORN, (gerrorn & ~GERROR.CMDQ_ERR) | (gerror & GERROR.CMDQ_ERR));
  }
}
