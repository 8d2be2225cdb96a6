/**
 * Registers of Intel's I/OAT DMA engine (QuickData), as Linux names them in drivers/dma/ioat/registers.h and hw.h. What they do is from
 * Intel's datasheets (Xeon 5000X chipset, section "DMA engine"; Xeon E5 v2, volume 2, "CB_BAR") and from the drivers that depend on it.
 */

/** Offsets in BAR 0 of what all channels share. Sizes in bits. */
export const IoatRegister = {
  /** 8, read only: number of channels. */
  CHANCNT: 0x00,
  /** 8, read only: the largest transfer is 2^XFERCAP bytes. */
  XFERCAP: 0x01,
  /** 8: bit 0, debug; kept and without effect. */
  GENCTRL: 0x02,
  /** 8: bits of {@link Intrctrl}. Reading it clears MASTER_INT_EN. */
  INTRCTRL: 0x03,
  /** 32, read only: a bit for each channel that asked for an interrupt. Reading it clears it. */
  ATTNSTATUS: 0x04,
  /** 8, read only: 0x32 is version 3.2. */
  CBVER: 0x08,
  /** 16: bits 13:0 a delay in microseconds; bit 15, coalescing supported, is 0: interrupts are not delayed. */
  INTRDELAY: 0x0c,
  /** 16, read only. */
  CS_STATUS: 0x0e,
  /** 32, read only: of the optional operations there is {@link FILL_BLOCK}. */
  DMACAPABILITY: 0x10,
} as const;

export const Intrctrl = { MASTER_INT_EN: 1, INT_STATUS: 2, INT: 4, MSIX_VECTOR_CONTROL: 8 } as const;

/** Channel `n` has its registers at (n + 1) × 0x80. */
export const CHANNEL_STRIDE = 0x80;
/** Offsets within a channel. */
export const ChannelRegister = {
  /** 16: bits of {@link Chanctrl}. */
  CHANCTRL: 0x00,
  /** 16, read only: compatible with version 2 of the registers. */
  DMA_COMP: 0x02,
  /** 8: bits of {@link Chancmd}. RESET reads one until the reset is done. */
  CHANCMD: 0x04,
  /** 16: descriptors handed over since the chain's address was written, modulo 2^16. A write starts the channel. */
  DMACOUNT: 0x06,
  /** 64, read only: the address of the descriptor completed last, and a state of {@link Chansts} in bits 2:0. */
  CHANSTS: 0x08,
  /** 64: address of the chain's first descriptor, a multiple of 64. */
  CHAINADDR: 0x10,
  /** 64: where CHANSTS is written in memory, a multiple of 8. */
  CHANCMP: 0x18,
  /** 64, read only: address of the descriptor that is or was processed last. */
  CDAR: 0x20,
  /** 32: bits of {@link Chanerr}; writing a one clears. */
  CHANERR: 0x28,
  /** 32: errors of which no interrupt is wanted. */
  CHANERRMSK: 0x2c,
  /** 32: kept and without effect (there is no cache that it could be about). */
  DCACTRL: 0x30,
} as const;

export const Chanctrl = {
  /** Set when an interrupt was sent: no other one follows until software writes a one here, which clears it. */
  INT_DISABLE: 0x0001,
  ERR_COMPLETION_EN: 0x0004,
  ANY_ERR_ABORT_EN: 0x0008,
  ERR_INT_EN: 0x0010,
  /** What software can set: also snoop control, in use, DCA and priority, which have no effect here. */
  WRITABLE: 0xf33c,
} as const;
export const Chancmd = { SUSPEND: 0x04, RESET: 0x20 } as const;
/** ARMED: a halted channel that has a chain again, and waits for DMACOUNT (DPDK drivers/dma/ioat waits for it). */
export const Chansts = { ACTIVE: 0, DONE: 1, SUSPENDED: 2, HALTED: 3, ARMED: 4 } as const;
export const Chanerr = {
  NEXT_ADDR: 0x0004,
  NEXT_DESC_ALIGN: 0x0008,
  CHAIN_ADDR_VALUE: 0x0010,
  READ_DATA: 0x0100,
  WRITE_DATA: 0x0200,
  CONTROL: 0x0400,
  LENGTH: 0x0800,
  COMPLETION_ADDR: 0x1000,
} as const;

/** Of DMACAPABILITY: block fill. */
export const FILL_BLOCK = 0x40;

/** A descriptor: size, control, source (of a fill: 8 bytes of pattern), destination, next; 64 bytes of which these use 40. */
export const IOAT_DESCRIPTOR_BYTES = 64;
/** Bits of a descriptor's control word; its operation is in bits 31:24. */
export const Control = { INT_EN: 0x01, COMPL_WRITE: 0x08, FENCE: 0x10, NULL: 0x20 } as const;
export const IOAT_OP_COPY = 0;
export const IOAT_OP_FILL = 1;
