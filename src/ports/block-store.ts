/** Where a disk's bytes are: memory, or a file that whoever has a file system hands in. Offsets and lengths in bytes. */
export interface BlockStore {
  readonly size: number;
  /** Fills `into` from `offset`. False: the medium could not be read. */
  read(offset: number, into: Uint8Array): boolean;
  write(offset: number, from: Uint8Array): boolean;
  /** Makes a range read as zeroes, and gives back what it took where that is possible. */
  zero(offset: number, length: number): boolean;
  /** What was written before is kept whatever happens then. */
  flush(): boolean;
}
