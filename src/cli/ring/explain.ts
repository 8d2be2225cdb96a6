/** `--explain`: which check of which call refused a set-up, and what would pass. */
import type { VfioError } from '../../vfio/index.ts';
import { type DoorbellOption, type RingOptions, representable } from './options.ts';
import { RingSession } from './session.ts';

export interface Explanation {
  /** `VFIO_SET_IOMMU`; `doorbell` for what the VMM checks before it asks the kernel. */
  readonly request: string;
  readonly code: string;
  /** Positive. */
  readonly errno: number;
  readonly field: string | null;
  /** The check, with the values that it compared. */
  readonly why: string;
  readonly hint: string | null;
  /** Changes of the command line with each of which the same set-up was made, and was not refused. */
  readonly passes: readonly string[];
}

type Change = readonly [text: string, changed: Partial<RingOptions>];

export function explain(error: VfioError, options: RingOptions): Explanation {
  const { request, code, errno, field = null, why, hint = null } = error;
  return { request, code, errno, field, why, hint, passes: passing(options) };
}

/** What can be changed without another machine, device or guest; two at once where neither alone will do. */
function passing(options: RingOptions): string[] {
  const unsafe: Change = ['--allow-unsafe-interrupts', { allowUnsafeInterrupts: true }];
  const auto: Change = ['--doorbell auto', { doorbell: { policy: 'auto' } }];
  const others = (['type1', 'iommufd'] as const).filter((iommu) => iommu !== options.iommu);
  const single: Change[] = others.map((iommu) => [`--iommu ${iommu}`, { iommu }]);
  if (options.doorbell.policy !== 'auto') single.unshift(auto);
  if (!options.allowUnsafeInterrupts) single.unshift(unsafe);
  const found = single.flatMap((change) => tried(options, change));
  if (found.length > 0 || !single.includes(unsafe) || !single.includes(auto)) return found;
  return tried(options, [`${unsafe[0]} ${auto[0]}`, { ...unsafe[1], ...auto[1] }]);
}

/** The change's text when the set-up passes with it. */
function tried(options: RingOptions, [text, changed]: Change): string[] {
  const doorbell: DoorbellOption = changed.doorbell ?? options.doorbell;
  if (doorbell.policy === 'address' && !representable(doorbell.iova)) return [];
  try {
    const session = new RingSession({ ...options, ...changed }, doorbell);
    const passed = session.granted > 0;
    session.close();
    return passed ? [text] : [];
  } catch (error) {
    if (error instanceof Error && PLAIN.has(error.name)) return [];
    throw error;
  }
}

/** Refusals of another kind: the change made way to the next obstacle. */
const PLAIN = new Set(['VfioError', 'GuestError', 'ProblemError', 'UsageError']);
