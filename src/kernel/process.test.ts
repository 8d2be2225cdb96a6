import { describe, expect, it } from 'vitest';
import { SimKernelClient } from './client.ts';
import type { File } from './files.ts';
import { fileCount } from './files.ts';
import { SimKernel } from './kernel.ts';
import { testContext } from './test-context.ts';

function fileOf(name: string, released: string[]): File {
  return { name, release: () => released.push(name) };
}

describe('descriptors', () => {
  it('takes the lowest free one', () => {
    const process = new SimKernel(testContext()).createProcess();
    const released: string[] = [];
    expect(['a', 'b', 'c'].map((name) => process.install(fileOf(name, released)))).toEqual([0, 1, 2]);
    process.close(1);
    expect(process.install(fileOf('d', released))).toBe(1);
    expect(process.install(fileOf('e', released), 10)).toBe(10);
    expect(process.descriptors).toEqual([0, 1, 2, 10]);
    expect(released).toEqual(['b']);
  });

  it('counts open files apart from descriptors: dup, fork and passing keep them open', () => {
    const kernel = new SimKernel(testContext());
    const parent = kernel.createProcess();
    const released: string[] = [];
    const file = fileOf('x', released);
    const fd = parent.install(file);
    const copy = parent.dup(fd);
    const child = kernel.fork(parent)!;
    const other = kernel.createProcess();
    expect(parent.send(fd, other)).toBe(0);
    expect(fileCount(file)).toBe(5);
    parent.close(fd);
    parent.close(copy);
    kernel.exit(child);
    expect(released).toEqual([]);
    kernel.exit(other);
    expect(released).toEqual(['x']);
  });

  it('closes in the order of the descriptors when the process ends, memory first', () => {
    const context = testContext();
    const kernel = new SimKernel(context);
    const process = kernel.createProcess();
    const order: string[] = [];
    process.memory.allocate(4096);
    process.install({ name: 'a', release: () => order.push(`a ${context.memory.allocated}`) });
    process.install(fileOf('b', order));
    process.install(fileOf('c', order));
    process.close(0);
    process.install({ name: 'd', release: () => order.push(`d ${context.memory.allocated}`) });
    order.length = 0;
    kernel.exit(process);
    expect(order).toEqual(['d 0', 'b', 'c']);
    expect(kernel.processes.size).toBe(0);
  });

  it('dup2 closes the target first', () => {
    const process = new SimKernel(testContext()).createProcess();
    const released: string[] = [];
    const [a, b] = [process.install(fileOf('a', released)), process.install(fileOf('b', released))];
    expect(process.dup2(a, b)).toBe(b);
    expect(released).toEqual(['b']);
    expect(process.file(b)?.name).toBe('a');
    expect(process.dup2(7, a)).toBe(-9);
  });

  it('EMFILE: the limit; a file that nobody holds is released', () => {
    const process = new SimKernel(testContext()).createProcess({ limits: { nofile: 1 } });
    const released: string[] = [];
    process.install(fileOf('a', released));
    expect(process.install(fileOf('b', released))).toBe(-24);
    expect(released).toEqual(['b']);
  });

  it('EBADF: a descriptor that is not open, for every call', () => {
    const client = new SimKernelClient(new SimKernel(testContext()));
    expect(client.close(3)).toBe(-9);
    expect(client.ioctl(3, 0x3b64)).toBe(-9);
    expect(client.pread(3, new Uint8Array(4), 0)).toBe(-9);
    expect(client.pwrite(3, new Uint8Array(4), 0)).toBe(-9);
    expect(client.mmap(3, 0, 4096)).toBe(-9);
    expect(client.refusal()).toMatchObject({ errno: 9, code: 'EBADF', request: 'mmap', field: 'fd' });
  });
});
