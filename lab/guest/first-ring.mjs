/**
 * The first ring on real Linux: edu by container and group, its MSI raised by a register, the interrupt arriving on an eventfd;
 * nvme's MSI-X entry read through the mapped table; where the doorbell is, and that nothing may be mapped over it.
 * On a host whose MSIs are not isolated: the refusal. Prints one line a finding; ends with status 1 when one is not as expected.
 */
import { LinuxKernel } from 'belfry/linux';
import { groupOf, openDevice, reservedRegions, VfioError } from 'belfry/vfio';

const EDU = { vendor: 0x1234, device: 0x11e8, raise: 0x60, status: 0x24, acknowledge: 0x64 };
const NVME = { vendor: 0x1b36, device: 0x0010, table: 0x2000 };
const hex = (value) => `0x${value.toString(16)}`;
let wrong = 0;

const kernel = await LinuxKernel.load();
const x86 = process.arch === 'x64';
// Whoever starts this says what the host is: `not-isolated`, which VFIO refuses; `v2m`, a GICv2m frame that VFIO was told to accept.
const host = process.argv[2] ?? 'its';
const isolated = host !== 'not-isolated';
// An ITS counts each device's events from 0; the frame's data are its SPIs, which begin at 80 on QEMU's virt machine.
const firstData = host === 'v2m' ? 80 : 0;
const window = x86 ? { start: 0xfee0_0000, end: 0xfeef_ffff } : { start: 0x0800_0000, end: 0x080f_ffff };

if (isolated) {
  await ringEdu(find(EDU));
  readNvme(find(NVME));
} else {
  expect(
    'VFIO_SET_IOMMU is refused',
    refusal(() => openDevice(kernel, find(EDU))),
    'EPERM',
  );
}
console.log(wrong === 0 ? 'first ring: all as expected' : `first ring: ${wrong} not as expected`);
process.exit(wrong === 0 ? 0 : 1);

async function ringEdu(name) {
  const [region] = reservedRegions(kernel, groupOf(kernel, name));
  expect(
    'reserved region',
    `${hex(region.start)}-${hex(region.end)} ${region.type}`,
    `${hex(window.start)}-${hex(window.end)} msi`,
  );
  using edu = openDevice(kernel, name);
  const { container } = edu;
  expect(
    'MAP_DMA over the window',
    refusal(() => container.mapDma({ length: 4096, iova: window.start })),
    'EINVAL',
  );
  edu.config.memoryEnabled = true;
  edu.config.busMaster = true;
  const registers = edu.bar(0).map();
  expect('edu identifies itself', hex(registers.read32(0)), '0x10000ed');
  const { granted, vectors } = edu.msi.enable(1);
  expect('MSI vectors granted', granted, 1);
  const physical = messageInHardware(name);
  expect('MSI address', x86 ? hex(physical >>> 20) : hex(physical), x86 ? '0xfee' : '0x8000040');
  const [vector] = vectors;
  for (let i = 1; i <= 3; i++) {
    const arrival = vector.next();
    registers.write32(EDU.raise, i);
    expect(`interrupt ${i}: count`, await arrival, 1);
    expect(`interrupt ${i}: status register`, registers.read32(EDU.status), i);
    registers.write32(EDU.acknowledge, i);
  }
  using buffer = container.mapDma({ length: 8192, iova: 0x10_0000 });
  expect('DMA buffer', hex(buffer.iova), '0x100000');
}

function readNvme(name) {
  using nvme = openDevice(kernel, name);
  nvme.config.memoryEnabled = true;
  const { granted } = nvme.msix.enable(2);
  expect('MSI-X vectors granted', granted, 2);
  const table = nvme.bar(0).map(0, 0x4000);
  const entry = (vector) => [0, 4, 8, 12].map((word) => table.read32(NVME.table + vector * 16 + word));
  const [first, second] = [entry(0), entry(1)];
  if (x86) {
    expect('MSI-X address', hex(first[0] >>> 20), '0xfee');
    expect('one address for each vector', first[0] !== second[0], true);
  } else {
    expect('MSI-X address', hex(first[0]), '0x8000040');
    expect('MSI-X data of vectors 0 and 1', `${first[2]} ${second[2]}`, `${firstData} ${firstData + 1}`);
    expect('one address for all vectors', first[0] === second[0], true);
  }
}

/** The MSI address in the device itself, by sysfs: the device's file of VFIO shows the owner's own copy. */
function messageInHardware(name) {
  const bytes = new Uint8Array(64);
  const fd = kernel.open(`/sys/bus/pci/devices/${name}/config`, 'r');
  const read = kernel.pread(fd, bytes, 0x40);
  kernel.close(fd);
  if (read < 8) throw new Error(`config space of ${name}: ${read}`);
  return new DataView(bytes.buffer).getUint32(4, true);
}

function find({ vendor, device }) {
  const id = (name, file) => Number(kernel.readText(`/sys/bus/pci/devices/${name}/${file}`));
  const names = kernel.list('/sys/bus/pci/devices') ?? [];
  const found = names.find((name) => id(name, 'vendor') === vendor && id(name, 'device') === device);
  if (found === undefined) throw new Error(`no device ${hex(vendor)}:${hex(device)}`);
  return found;
}

function refusal(attempt) {
  try {
    attempt();
    return 'granted';
  } catch (error) {
    if (!(error instanceof VfioError)) throw error;
    console.log(`  ${error.message}`);
    return error.code;
  }
}

function expect(what, found, wanted) {
  if (found !== wanted) wrong += 1;
  console.log(
    `${found === wanted ? 'ok   ' : 'WRONG'} ${what}: ${found}${found === wanted ? '' : `, expected ${wanted}`}`,
  );
}
