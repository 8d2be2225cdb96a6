/**
 * `belfry exec` on a real arm64 Linux: unmodified programs (busybox, and Node with belfry's own library for real Linux) on a simulated host, their system
 * calls trapped by this kernel. Prints one line a finding; ends with status 1 when one is not as expected. With `program` it is the program.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { LinuxKernel } from 'belfry/linux';
import { openDevice } from 'belfry/vfio';

const own = fileURLToPath(import.meta.url);
let wrong = 0;

if (process.argv[2] === 'program') await program();
else supervise();

function supervise() {
  const script = `ls /dev/vfio; cat /sys/bus/pci/devices/0000:01:00.0/vendor; readlink -f /sys/bus/pci/devices/0000:01:00.0/iommu_group
stat -c '%F' /dev/vfio/vfio; echo 0000:01:00.0 > /sys/bus/pci/devices/0000:01:00.0/driver/unbind; ls /dev/vfio
echo 0000:01:00.0 > /sys/bus/pci/drivers/vfio-pci/bind; exec "$0" "$1" program`;
  const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
  const argv = [main, 'exec', '--explain', '--', 'sh', '-c', script, process.execPath, own];
  const { status, stdout, stderr } = spawnSync(process.execPath, argv, { encoding: 'utf8' });
  const lines = stdout.trim().split('\n');
  expect('the simulated tree, and a driver unbound and bound', lines.slice(0, 7), [
    ...['1', 'devices', 'vfio', '0x1b36', '/sys/kernel/iommu_groups/1', 'character special file', 'vfio'],
  ]);
  for (const line of lines.slice(7)) console.log(line);
  expect('exit status', status, 0);
  expect('what belfry says', stderr.trim().split('\n').at(-1), /, 1 refused; 3 of 3 interrupts delivered$/);
  if (status !== 0) console.log(stderr);
  console.log(wrong === 0 ? 'exec: all as expected' : `exec: ${wrong} not as expected`);
  process.exitCode = wrong === 0 ? 0 : 1;
}

/** The driver of the simulated bell, through real Linux' system calls. Registers of a BAR are reached by pread and pwrite. */
async function program() {
  const kernel = await LinuxKernel.load();
  const device = openDevice(kernel, '0000:01:00.0');
  device.config.memoryEnabled = true;
  device.config.busMaster = true;
  const bar = device.bar(0);
  expect('bell identifies itself', bar.read32(0), 0x1be11);
  const { vectors } = device.msix.enable(2);
  for (let i = 1; i <= 3; i++) {
    const arrival = vectors[1].next();
    bar.write32(4, 1);
    expect(`interrupt ${i}: count`, await arrival, 1);
  }
  const buffer = device.space.mapDma({ length: 4096, iova: 0x10_0000 });
  buffer.bytes.set(Buffer.from('through the simulated SMMU'));
  const local = device.bar(4);
  local.write32(0, 0);
  for (const [register, value] of [
    [0x10, 0x10_0000],
    [0x14, 0],
    [0x18, 0],
    [0x1c, 26],
    [0x20, 1],
  ]) {
    bar.write32(register, value);
  }
  for (let tries = 0; tries < 1000 && (bar.read32(0x0c) & 6) === 0; tries++);
  expect('DMA: status, first word', [bar.read32(0x0c) & 6, local.read32(0)], [2, 0x6f72_6874]);
  let code = 'mapped';
  try {
    device.space.mapDma({ length: 4096, iova: 0x800_0000 });
  } catch (error) {
    code = error.code;
  }
  expect('MAP_DMA over the window', code, 'EINVAL');
  device.close();
  process.exitCode = wrong === 0 ? 0 : 1;
}

function expect(what, found, expected) {
  const same = expected instanceof RegExp ? expected.test(found) : JSON.stringify(found) === JSON.stringify(expected);
  if (!same) wrong += 1;
  const text = typeof found === 'string' ? found : JSON.stringify(found);
  console.log(same ? `ok    ${what}: ${text}` : `WRONG ${what}: ${text}, expected ${expected}`);
}
