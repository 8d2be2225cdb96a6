/** Which guest memory can be mapped 1:1 for DMA: all of it but what the host reserves and what the doorbell takes. */
import type { Span } from './doorbell-rule.ts';
import type { GuestRange } from './guest-map.ts';

/** `ranges` without the pages that any of `holes` touches. `page` in bytes; `end` of a hole is inclusive. */
export function withoutHoles(ranges: readonly GuestRange[], holes: readonly Span[], page: number): GuestRange[] {
  let left: GuestRange[] = [...ranges];
  for (const { start, end } of holes) {
    const from = Math.floor(start / page) * page;
    const to = Math.ceil((end + 1) / page) * page;
    left = left.flatMap(({ base, size }) => {
      const parts = [
        { base, size: Math.min(from, base + size) - base },
        { base: Math.max(to, base), size: base + size - Math.max(to, base) },
      ];
      return parts.filter((part) => part.size > 0);
    });
  }
  return left;
}
