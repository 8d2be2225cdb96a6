/** Device models that a machine, exec and a vfio-user server can all carry. */
export * from './bell.ts';
export type { BarClaim, Capture } from './capture.ts';
export { CaptureError } from './capture-error.ts';
export { type CaptureFiles, captureNames, loadDevice, openCapture } from './capture-files.ts';
export { parseLspci, parseSysfs } from './capture-text.ts';
export * from './captured.ts';
export * from './edu.ts';
export * from './endpoint-test/endpoint-test.ts';
export * from './ioat/ioat.ts';
export { MemoryStore } from './memory-store.ts';
export * from './nvme/drive.ts';
export type { DeviceOptions } from './options.ts';
export * from './registry.ts';
