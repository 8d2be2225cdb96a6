/** How an ioctl number is made (asm-generic/ioctl.h): direction << 30 | size << 16 | type << 8 | number. */

export const _IOC_NONE = 0;
export const _IOC_WRITE = 1;
export const _IOC_READ = 2;

function encode(direction: number, type: number, nr: number, size: number): number {
  return ((direction << 30) | (size << 16) | (type << 8) | nr) >>> 0;
}

/** No size, no direction: what all of VFIO and iommufd use. */
export const _IO = (type: number, nr: number): number => encode(_IOC_NONE, type, nr, 0);
/** The kernel writes a struct of `size` bytes for user space to read. */
export const _IOR = (type: number, nr: number, size: number): number => encode(_IOC_READ, type, nr, size);
/** User space writes a struct of `size` bytes for the kernel to read. */
export const _IOW = (type: number, nr: number, size: number): number => encode(_IOC_WRITE, type, nr, size);
export const _IOWR = (type: number, nr: number, size: number): number => encode(_IOC_READ | _IOC_WRITE, type, nr, size);

/** The parts of an ioctl number. */
export function _IOC_DECODE(request: number): { direction: number; size: number; type: number; nr: number } {
  return {
    direction: request >>> 30,
    size: (request >>> 16) & 0x3fff,
    type: (request >>> 8) & 0xff,
    nr: request & 0xff,
  };
}
