/**
 * Which IOVA a device's MSIs shall be written to: the rule of the RFC of 2015. The guest was given an MSI address, so no guest
 * memory can be there: the doorbell's IOVA is the page of that address, wherever it is free for DMA.
 */
import { hex } from '../ports/address.ts';

/** `end` is inclusive. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

export interface ReservedSpan extends Span {
  /** As sysfs names it: `msi`, `direct`, `direct-relaxable`, `reserved`. */
  readonly type: string;
}

/** `auto`: the rule. `window`: what the kernel fixes. `none`: nothing is mapped. A number: that address. */
export type DoorbellPolicy = 'auto' | 'window' | 'none' | number;

export interface DoorbellQuestion {
  readonly policy: DoorbellPolicy;
  /** The MSI address that the guest was given; null when it has none. */
  readonly guestAddress: number | null;
  /** Bytes: the larger of the kernel's page and the domain's smallest. */
  readonly granule: number;
  /** The device's messages hold 64-bit addresses. */
  readonly address64: boolean;
  /** The kernel lets user space choose. */
  readonly canChoose: boolean;
  /** The platform takes MSIs before translation (x86). */
  readonly bypass: boolean;
  /** IOVAs that are, or will be, mapped: guest RAM. */
  readonly mapped: readonly Span[];
  /** What the group reserves. `msi` is the kernel's own window, which a choice may lie in, unless `bypass`. */
  readonly reserved: readonly ReservedSpan[];
  /** The IOVAs that the domain can translate. */
  readonly aperture: Span;
}

export interface DoorbellChoice {
  readonly rule: 'guest' | 'user' | 'window' | 'none' | 'bypass';
  /** First byte of the doorbell's page; null where there is none to choose or to know. */
  readonly iova: number | null;
  readonly why: string;
  /** An address that the user asked for cannot be: why. Nothing was chosen instead. */
  readonly refused: string | null;
  /** With `refused`: what the kernel would answer. */
  readonly code?: DoorbellRefusal;
}

/** As the kernel's request has them: outside of the aperture, beyond a 32-bit message, in use. */
export type DoorbellRefusal = 'EINVAL' | 'ERANGE' | 'EADDRINUSE';

const BELOW_4G = 2 ** 32;

/** Pure: the same question has the same answer. */
export function chooseDoorbell(question: DoorbellQuestion): DoorbellChoice {
  const { policy, guestAddress, canChoose } = question;
  if (question.bypass)
    return chosen('bypass', null, 'the platform takes MSIs before translation: there is nothing to map');
  if (policy === 'none')
    return chosen('none', null, 'asked for: the message carries the physical address and nothing is mapped');
  if (policy === 'window') return windowOf(question, 'asked for');
  if (typeof policy === 'number') return userChoice(question, policy);
  if (guestAddress === null) return windowOf(question, 'the guest has no MSI address');
  const page = floor(guestAddress, question.granule);
  if (!canChoose) return windowOf(question, `the kernel does not let user space choose ${hex(page)}`);
  const obstacle = obstacleAt(question, page);
  if (obstacle === null)
    return chosen('guest', page, `the page of the guest's MSI address ${hex(guestAddress)}, which is free`);
  return nextChoice(question, `the guest's page ${hex(page)} cannot be used: ${obstacle}`);
}

/** Why [page, page + granule) cannot be the doorbell, or null. The checks are those of the kernel's request. */
export const obstacleAt = (question: DoorbellQuestion, page: number): string | null =>
  refusalAt(question, page)?.why ?? null;

function refusalAt(question: DoorbellQuestion, page: number): { code: DoorbellRefusal; why: string } | null {
  const { granule, aperture } = question;
  const refuse = (code: DoorbellRefusal, why: string) => ({ code, why });
  const end = page + granule - 1;
  if (page % granule !== 0) return refuse('EINVAL', `${hex(page)} is not a multiple of ${hex(granule, 1)}`);
  if (page < aperture.start || end > aperture.end) {
    const why = `it lies outside of what the IOMMU translates, ${hex(aperture.start)} to ${hex(aperture.end)}`;
    return refuse('EINVAL', why);
  }
  if (!question.address64 && end >= BELOW_4G)
    return refuse('ERANGE', 'the device has 32-bit MSI addresses, and it lies above 4 GiB');
  const memory = question.mapped.find((span) => overlaps(span, page, end));
  if (memory !== undefined)
    return refuse('EADDRINUSE', `guest memory at ${hex(memory.start)} to ${hex(memory.end)} is mapped there`);
  const reserved = question.reserved.find((span) => overlaps(span, page, end) && !usable(span));
  if (reserved !== undefined)
    return refuse('EADDRINUSE', `the host reserves ${hex(reserved.start)} to ${hex(reserved.end)} (${reserved.type})`);
  return null;
}

const usable = ({ type }: ReservedSpan): boolean => type === 'msi' || type === 'sw-msi' || type === 'direct-relaxable';

function userChoice(question: DoorbellQuestion, address: number): DoorbellChoice {
  const page = floor(address, question.granule);
  const refuse = (why: string, code?: DoorbellRefusal): DoorbellChoice => ({
    rule: 'user',
    iova: page,
    why,
    refused: why,
    ...(code === undefined ? {} : { code }),
  });
  if (!question.canChoose) return refuse('this kernel does not let user space choose the doorbell');
  const obstacle = refusalAt(question, page);
  return obstacle === null
    ? chosen('user', page, `asked for ${hex(address)}`)
    : refuse(`${hex(page)} cannot be used: ${obstacle.why}`, obstacle.code);
}

/** Behind the guest's own page: the kernel's window while no guest memory is in it, then the lowest free page of the lower 4 GiB. */
function nextChoice(question: DoorbellQuestion, because: string): DoorbellChoice {
  const window = swWindow(question);
  const covered = window !== null && question.mapped.some((span) => overlaps(span, window.start, window.end));
  if (window !== null && !covered) return chosen('window', window.start, `${because}; the kernel's window is free`);
  const page = lowestFree(question);
  if (page !== null) return chosen('user', page, `${because}; the lowest free page`);
  return windowOf(question, `${because}; and no page is free`);
}

function windowOf(question: DoorbellQuestion, why: string): DoorbellChoice {
  const window = swWindow(question);
  if (window === null) return chosen('window', null, `${why}; the group shows no window`);
  return chosen('window', window.start, `${why}; the kernel's window is ${hex(window.start)} to ${hex(window.end)}`);
}

const swWindow = (question: DoorbellQuestion): ReservedSpan | null =>
  question.reserved.find(({ type }) => type === 'msi' || type === 'sw-msi') ?? null;

/** Candidates are the ends of what is in the way: the lowest free page starts at one of them. */
function lowestFree(question: DoorbellQuestion): number | null {
  const { granule, aperture } = question;
  // Page 0 is left out: a message to address 0 is what an unprogrammed vector sends.
  const starts = [
    Math.max(aperture.start, granule),
    ...[...question.mapped, ...question.reserved].map(({ end }) => end + 1),
  ];
  const pages = starts.map((start) => Math.ceil(start / granule) * granule).sort((a, b) => a - b);
  return pages.find((page) => page + granule <= BELOW_4G && obstacleAt(question, page) === null) ?? null;
}

const chosen = (rule: DoorbellChoice['rule'], iova: number | null, why: string): DoorbellChoice => ({
  rule,
  iova,
  why,
  refused: null,
});
const floor = (address: number, granule: number): number => Math.floor(address / granule) * granule;
const overlaps = (span: Span, start: number, end: number): boolean => span.start <= end && start <= span.end;
