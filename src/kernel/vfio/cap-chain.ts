/** Chains of capabilities behind an info struct: vfio_info_cap_add and vfio_info_cap_shift. */
import { vfio_info_cap_header } from '../../uapi/vfio.ts';

export class CapChain {
  private readonly caps: Uint8Array[] = [];

  /** Adds a capability whose struct begins with a header; id and version go in here, `next` when the chain is placed. */
  add(id: number, version: number, bytes: Uint8Array): void {
    const padded = new Uint8Array(Math.ceil(bytes.length / 8) * 8);
    padded.set(bytes);
    vfio_info_cap_header.patch(padded, { id, version });
    this.caps.push(padded);
  }

  /** Bytes of the chain; each capability is padded to 8. */
  get size(): number {
    return this.caps.reduce((sum, cap) => sum + cap.length, 0);
  }

  /** The chain as it stands `base` bytes behind the start of the info struct. */
  bytes(base: number): Uint8Array {
    const all = new Uint8Array(this.size);
    let at = 0;
    this.caps.forEach((cap, i) => {
      all.set(cap, at);
      const next = at + cap.length;
      vfio_info_cap_header.patch(all, { next: i + 1 < this.caps.length ? base + next : 0 }, at);
      at = next;
    });
    return all;
  }
}
