/** iommufd (`/dev/iommu`): address spaces, page tables and bound devices, each with an id of this file. */
import type { Kernel } from '../ports/kernel.ts';
import { IOMMU_DESTROY, iommu_destroy } from '../uapi/iommufd.ts';
import type { Fields, Struct, StructInit, StructValue } from '../uapi/struct.ts';
import { encoded, refuseArgument } from './argument.ts';
import type { CdevDevice } from './cdev-device.ts';
import { check, type Explain, refused, VfioError } from './error.ts';
import { explainOpenIommu } from './explain-iommufd.ts';
import { Resource } from './resource.ts';

const PATH = '/dev/iommu';

/**
 * @example
 * using iommufd = Iommufd.open(kernel);
 * using ioas = Ioas.create(iommufd);
 * using device = CdevDevice.open(kernel, '0000:01:00.0');
 * device.bind(iommufd);
 * device.attach(ioas);
 * using buffer = ioas.mapDma({ length: 4096 });
 */
export class Iommufd extends Resource {
  readonly label = 'iommufd';
  readonly kernel: Kernel;
  readonly fd: number;
  readonly #devices = new Set<CdevDevice>();
  #released = false;

  private constructor(kernel: Kernel, fd: number) {
    super();
    this.kernel = kernel;
    this.fd = fd;
  }

  /** @throws VfioError: ENOENT on a kernel without iommufd (Linux before 6.2) */
  static open(kernel: Kernel): Iommufd {
    return new Iommufd(kernel, check(kernel, kernel.open(PATH), `open(${PATH})`, explainOpenIommu));
  }

  /** The devices that are bound, in the order of their binding. */
  get devices(): readonly CdevDevice[] {
    return [...this.#devices];
  }

  /** One request with its `size` filled in. @returns the struct as it came back @throws VfioError */
  request<F extends Fields>(
    name: string,
    request: number,
    struct: Struct<F>,
    fields: StructInit<F>,
    explain?: Explain,
  ): StructValue<F> {
    const { result, answer } = this.tryRequest(name, request, struct, fields);
    if (result < 0) throw refused(this.kernel, result, name, explain);
    return answer;
  }

  /** As {@link request}, for answers that come with an error (EMSGSIZE). `result` is 0 or -errno. */
  tryRequest<F extends Fields>(
    name: string,
    request: number,
    struct: Struct<F>,
    fields: StructInit<F>,
  ): { readonly result: number; readonly answer: StructValue<F> } {
    this.assertOpen(name);
    const bytes = encoded(struct, fields, name);
    new DataView(bytes.buffer).setUint32(0, struct.size, true);
    const result = this.kernel.ioctl(this.fd, request, bytes);
    return { result, answer: struct.read(bytes) };
  }

  /** Ends an object. False when the kernel keeps it, as what is in use (EBUSY); it then goes with the file. */
  destroy(id: number): boolean {
    if (this.#released) return true;
    const bytes = iommu_destroy.bytes({ size: iommu_destroy.size, id });
    return this.kernel.ioctl(this.fd, IOMMU_DESTROY, bytes) >= 0;
  }

  /** An id means something else in another file. @throws VfioError ENOENT for a device that is bound to another iommufd, or to none */
  assertBound(device: CdevDevice, request: string): void {
    if (device?.iommufd === this) return;
    if (device?.iommufd === undefined) refuseArgument(request, 'dev_id', 'a CdevDevice', device);
    const why = `${device.label} is bound to ${device.iommufd === null ? 'no iommufd' : 'another iommufd'}`;
    throw new VfioError({ code: 'ENOENT', request, why, field: 'dev_id', hint: 'device.bind(iommufd)' });
  }

  /** Makes `child`, an object of this file, close with it. */
  own<T extends Resource>(child: T): T {
    return this.adopt(child);
  }

  /** Called by {@link CdevDevice.bind}. */
  deviceBound(device: CdevDevice): void {
    this.#devices.add(this.adopt(device));
  }

  /** Called when a bound device was closed. */
  deviceClosed(device: CdevDevice): void {
    this.#devices.delete(device);
  }

  /** Devices first, so that none of them does DMA into what is unmapped next. */
  protected override closeChildren(): void {
    for (const device of [...this.#devices].reverse()) device.close();
    super.closeChildren();
  }

  protected override release(): void {
    this.#released = true;
    this.kernel.close(this.fd);
  }
}
