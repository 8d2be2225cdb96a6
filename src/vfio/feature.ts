/** VFIO_DEVICE_FEATURE: what a device can do beyond regions and interrupts. */
import type { Kernel } from '../ports/kernel.ts';
import {
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MASK,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
} from '../uapi/vfio-feature.ts';
import { whole } from './argument.ts';
import { check, type Explain } from './error.ts';

/** One feature of one device. */
export class Feature {
  readonly id: number;
  readonly #kernel: Kernel;
  readonly #fd: number;
  readonly #assertOpen: (request: string) => void;

  /** Made by {@link Device.feature}. */
  constructor(kernel: Kernel, fd: number, id: number, assertOpen: (request: string) => void) {
    this.#kernel = kernel;
    this.#fd = fd;
    this.id = whole(id, 'VFIO_DEVICE_FEATURE', 'flags', VFIO_DEVICE_FEATURE_MASK);
    this.#assertOpen = assertOpen;
  }

  /** Can it be got, set, or both? @throws VfioError EBADF after close */
  supports(what: 'get' | 'set' | 'both' = 'both'): boolean {
    const get = what === 'set' ? 0 : VFIO_DEVICE_FEATURE_GET;
    const set = what === 'get' ? 0 : VFIO_DEVICE_FEATURE_SET;
    return this.#call(VFIO_DEVICE_FEATURE_PROBE | get | set, new Uint8Array(0)).result >= 0;
  }

  /** @param payload the payload as it goes in. @returns it as it comes back, of the same length @throws VfioError */
  get(payload: Uint8Array, explain?: Explain): Uint8Array {
    return this.#checked(VFIO_DEVICE_FEATURE_GET, payload, explain).payload;
  }

  /** @returns what the kernel answers, 0 for most features @throws VfioError */
  set(payload: Uint8Array = new Uint8Array(0), explain?: Explain): number {
    return this.#checked(VFIO_DEVICE_FEATURE_SET, payload, explain).result;
  }

  /**
   * A get whose answer is a new file.
   * @param payload what goes in; lists may lie behind the struct
   * @returns its descriptor @throws VfioError
   */
  open(payload: Uint8Array, explain?: Explain): number {
    return this.#checked(VFIO_DEVICE_FEATURE_GET, payload, explain).result;
  }

  #checked(flags: number, payload: Uint8Array, explain?: Explain): { result: number; payload: Uint8Array } {
    const answer = this.#call(flags, payload);
    check(this.#kernel, answer.result, 'VFIO_DEVICE_FEATURE', explain);
    return answer;
  }

  #call(flags: number, payload: Uint8Array): { result: number; payload: Uint8Array } {
    this.#assertOpen('VFIO_DEVICE_FEATURE');
    const argsz = vfio_device_feature.size + payload.length;
    const bytes = new Uint8Array(argsz);
    vfio_device_feature.patch(bytes, { argsz, flags: this.id | flags });
    bytes.set(payload, vfio_device_feature.size);
    const result = this.#kernel.ioctl(this.#fd, VFIO_DEVICE_FEATURE, bytes);
    return { result, payload: bytes.slice(vfio_device_feature.size) };
  }
}
