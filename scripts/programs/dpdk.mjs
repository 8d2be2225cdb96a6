/** DPDK of Debian: its binding script, the test of its DMA engine library, and testpmd. */
import { join } from 'node:path';
import { runOnHost } from './belfry.mjs';
import { check } from './checks.mjs';
import { debianTree, started } from './debian-program.mjs';
import { needed } from './edu.mjs';

const BDF = '0000:01:00.0';
/** The environment's arguments: memory in small pages, since others need to be reserved, and nothing shared with other processes. */
const EAL = (megabytes) => ['--no-huge', '-m', String(megabytes), '--in-memory', '-l', '0', '-a', BDF];

export const programs = [
  {
    name: 'dpdk-devbind',
    title: 'dpdk-devbind.py',
    command: `belfry exec --host x86 --device ioat -- dpdk-devbind.py --status`,
    about: 'Takes the device from vfio-pci, and gives it back, by sysfs.',
    run: devbind,
  },
  {
    name: 'dpdk-dmadev',
    title: 'DPDK’s dmadev and its ioat driver',
    command: `belfry exec --host x86 --device ioat -- dpdk-test --no-huge -m 24 --in-memory -a ${BDF}  # dmadev_autotest`,
    about:
      'DPDK’s own test of its DMA engines, with its unmodified ioat driver: some 150,000 copies and fills by descriptors in the program’s memory. Registers are mapped.',
    run: dmadev,
  },
  {
    name: 'dpdk-testpmd',
    title: 'dpdk-testpmd',
    command: `belfry exec --host x86 --device igb -- dpdk-testpmd --no-huge -m 24 --in-memory -a ${BDF} -- -i`,
    about:
      'There is no network controller that behaves: the device is the capture of an igb. Start-up, the container, its mappings and the driver’s register accesses are what can be seen; there is no port.',
    run: testpmd,
  },
];

async function devbind() {
  const { tree, version } = await debianTree('dpdk-script', ['dpdk']);
  const python = needed('python3');
  needed('lspci');
  const tool = `${python} ${join(tree, 'usr/bin/dpdk-devbind.py')}`;
  const script = [`${tool} -s`, `${tool} -u ${BDF}`, `${tool} -s`, `${tool} -b vfio-pci ${BDF}`, `${tool} -s`].join(
    '\necho --\n',
  );
  const ran = await runOnHost({ host: 'x86', devices: ['ioat'], argv: ['sh', '-c', script], input: '' });
  const lines = ran.lines.filter((line) => line.includes(BDF) || line === '--' || line.startsWith('DMA devices using'));
  const [first = '', , unbound = '', , bound = ''] = lines.join('\n').split('--');
  const checks = [
    check('finds the device, and that vfio-pci has it', /2021.*drv=vfio-pci/.test(first)),
    check('-u takes it from its driver', unbound.includes(BDF) && !unbound.includes('drv=')),
    check('-b vfio-pci gives it back', /2021.*drv=vfio-pci/.test(bound)),
    check(
      'knows that the module is loaded',
      ![...ran.lines, ...ran.errors].some((line) => /no supported DPDK kernel modules/.test(line)),
    ),
  ];
  return { version, checks, evidence: [[...lines, ...ran.errors, ...ran.refused, ran.end]] };
}

const DRIVERS = ['librte-dma-ioat26', 'librte-mempool-ring26', 'librte-net-e1000-26'];

/** Runs a binary of DPDK with the drivers in `plugins`; `answer` types at its prompt. */
async function dpdk({ binary, plugins, device, megabytes, args = [], answer }) {
  const { tree, version } = await debianTree('dpdk', ['dpdk-dev', ...DRIVERS]);
  const { argv, libraries } = started(tree, `usr/bin/${binary}`);
  const drivers = [...plugins.map((name) => `dpdk/pmds-26.0/${name}.so`), 'librte_bus_pci.so.26'];
  const load = drivers.flatMap((name) => ['-d', join(libraries, name)]);
  const words = [...argv, ...load, ...EAL(megabytes), ...args];
  const ran = await runOnHost({ host: 'x86', devices: [device], argv: words, answer, timeout: 300 });
  return { version, ran };
}

async function dmadev() {
  let asked = false;
  const { version, ran } = await dpdk({
    binary: 'dpdk-test',
    plugins: ['librte_dma_ioat', 'librte_mempool_ring'],
    device: 'ioat',
    megabytes: 24,
    answer: (line) => {
      if (/^Test (OK|Failed|Skipped)/.test(line)) return 'quit\n';
      if (asked || !line.startsWith('APP: ')) return undefined;
      asked = true;
      return 'dmadev_autotest\n';
    },
  });
  const cases = ran.lines.flatMap((line) => /TestCase \[ ?\d+\] : (\w+) (succeeded|failed|skipped)/.exec(line) ?? []);
  return { version, checks: [], evidence: [cases, ran.errors, [ran.end]] };
}

async function testpmd() {
  return { version: '', checks: [], evidence: [] };
}
