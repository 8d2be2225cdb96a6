/** A machine as data: what `defineMachine` takes, what a JSON host file holds, and what the presets are. All addresses and sizes in bytes. */

export interface MachineSpec {
  readonly name: string;
  readonly architecture: 'arm64' | 'x86';
  /** The kernel's page size: 4096, 16384 or 65536 (x86: 4096). */
  readonly pageSize: number;
  readonly cpus: number;
  /** Ranges of RAM; base and size are multiples of 64 MiB, below 2^44. */
  readonly memory: readonly { readonly base: number; readonly size: number }[];
  readonly iommu: SmmuSpec | VtdSpec | null;
  readonly interrupts: GicSpec | X86InterruptSpec;
  readonly pci: PciSpec;
}

export interface SmmuSpec {
  readonly type: 'smmuv3';
  /** Host-physical base of its registers (two 64 KiB pages). */
  readonly base: number;
  readonly stage1: boolean;
  readonly stage2: boolean;
  /** Translation granules in bytes: of 4096, 16384, 65536. */
  readonly granules: readonly number[];
  /** Output address size in bits: 32, 36, 40, 42, 44, 48. */
  readonly oas: number;
  /** StreamID bits, 1 to 32. */
  readonly sidBits: number;
  /** Substream id bits, 0 to 20. */
  readonly ssidBits: number;
  readonly coherent: boolean;
  /** IDR3.FWB / the firmware's CANWBS bit: either lets user space nest. */
  readonly s2fwb: boolean;
  readonly canwbs: boolean;
  readonly stall: boolean;
  /**
   * What the SMMU updates in table descriptors by itself (IDR0.HTTU): nothing, the access flag, or the access flag and the dirty state, which the
   * kernel tracks DMA with. Default `none`.
   */
  readonly httu?: 'none' | 'access' | 'dirty';
  /**
   * The TLB keeps that a page is dirty, so that only an invalidation makes the SMMU look at its descriptor again; else each write to a page whose
   * dirty state is tracked looks at it. Hardware may do either. Default false.
   */
  readonly tlbKeepsDirty?: boolean;
  /** log2 of the event queue's records, 1 to 19. */
  readonly eventQueueLog2: number;
  /** Two-level stream table (IDR0.ST_LEVEL). */
  readonly twoLevelStreamTable: boolean;
  /** Reserved regions that firmware adds (RMR nodes, iommu-addresses). `end` inclusive. */
  readonly reserved: readonly {
    readonly start: number;
    readonly end: number;
    readonly type: 'direct' | 'direct-relaxable' | 'reserved';
  }[];
}

export interface VtdSpec {
  readonly type: 'intel-vtd';
  readonly base: number;
  /** Address width of the second level: 39, 48. */
  readonly addressWidth: number;
  readonly coherent: boolean;
  readonly reserved: readonly {
    readonly start: number;
    readonly end: number;
    readonly type: 'direct' | 'direct-relaxable' | 'reserved';
  }[];
}

export interface GicSpec {
  readonly type: 'gic';
  readonly version: 2 | 3;
  readonly distributor: number;
  /** GICv3: base of the redistributors, 128 KiB for each CPU. */
  readonly redistributors?: number;
  /** Shared peripheral interrupts, up to 988. */
  readonly spis: number;
  /** Bits of an LPI's interrupt id, 14 to 24 (GICD_TYPER.IDbits + 1). */
  readonly lpiBits?: number;
  /** `devices`: functions whose messages this ITS takes (`0000:02:00.0`); the first ITS takes all that no other names. */
  readonly its?: readonly {
    readonly base: number;
    readonly deviceBits: number;
    readonly eventBits: number;
    readonly devices: readonly string[];
  }[];
  readonly v2m?: readonly { readonly base: number; readonly spiBase: number; readonly spiCount: number }[];
}

export interface X86InterruptSpec {
  readonly type: 'x86';
  /** Interrupt remapping by the VT-d unit. */
  readonly remapping: boolean;
}

export interface PciSpec {
  readonly segment: number;
  readonly ecam: number;
  readonly mmio32: { readonly base: number; readonly size: number };
  readonly mmio64: { readonly base: number; readonly size: number };
  readonly io: { readonly base: number; readonly size: number };
  readonly slots: readonly SlotSpec[];
}

/** What sits at a device and function number of a bus. A bridge has a bus below it. */
export type SlotSpec =
  | {
      readonly at: string;
      readonly kind: 'root-port' | 'switch-upstream' | 'switch-downstream';
      readonly acs: boolean;
      readonly below: readonly SlotSpec[];
    }
  | { readonly at: string; readonly kind: 'pci-bridge'; readonly below: readonly SlotSpec[] }
  | {
      /** `03.0`: device (hexadecimal) and function. */
      readonly at: string;
      readonly kind: 'function';
      /** A model's name (`bell`, `edu`), or the path or name of a capture. */
      readonly device: string;
      /** Options of the model, e.g. `{ "msix": 2048 }`. */
      readonly options?: Readonly<Record<string, number | string | boolean>>;
      /** Driver bound at boot; default `vfio-pci`. */
      readonly driver?: string | null;
    };
