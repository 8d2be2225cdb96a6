/** DPDK of Debian: its binding script, the test of its DMA engine library, and testpmd. */
import { join } from 'node:path';
import { runOnHost } from './belfry.mjs';
import { check, limit } from './checks.mjs';
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
  // lspci looks for the kernel's modules, and Python asks whether a file is a terminal.
  const errors = ran.errors.filter((line) => !line.includes('libkmod'));
  const refused = ran.refused.filter((line) => !line.includes('ioctl 0x5401'));
  return { version, checks, evidence: [[...lines, ...errors, ...refused, ran.end]] };
}

const DRIVERS = ['librte-dma-ioat26', 'librte-mempool-ring26', 'librte-net-e1000-26'];

/** Runs a binary of DPDK with the drivers in `plugins`; `input` is typed at its prompt. */
async function dpdk({ binary, plugins, device, megabytes, args = [], input }) {
  const { tree, version } = await debianTree('dpdk', ['dpdk-dev', ...DRIVERS]);
  const { argv, libraries } = started(tree, `usr/bin/${binary}`);
  const drivers = [...plugins.map((name) => `dpdk/pmds-26.0/${name}.so`), 'librte_bus_pci.so.26'];
  const load = drivers.flatMap((name) => ['-d', join(libraries, name)]);
  const words = [...argv, ...load, ...EAL(megabytes), ...args];
  const ran = await runOnHost({ host: 'x86', devices: [device], argv: words, input, timeout: 300 });
  return { version, ran };
}

async function dmadev() {
  const { version, ran } = await dpdk({
    binary: 'dpdk-test',
    plugins: ['librte_dma_ioat', 'librte_mempool_ring'],
    device: 'ioat',
    megabytes: 24,
    input: 'dmadev_autotest\nquit\n',
  });
  const cases = ran.lines.flatMap((line) => {
    const found = /TestCase \[ ?\d+\] : (\w+) (succeeded|failed|skipped)/.exec(line);
    return found === null ? [] : [{ name: found[1], state: found[2] }];
  });
  const named = (state) => cases.filter((each) => each.state === state).map(({ name }) => name);
  const [passed, skipped, failed] = [named('succeeded'), named('skipped'), named('failed')];
  const done = [...ran.lines, ...ran.errors].join('\n').matchAll(/Ops completed: (\d+)\s+Errors: (\d+)/g);
  const operations = totals([...done].map(([, count, errors]) => ({ count: Number(count), errors: Number(errors) })));
  const checks = [
    check(`dmadev_autotest: ${passed.length} cases succeed`, ran.lines.includes('Test OK') && passed.length > 0),
    check(`dmadev_autotest: ${failed.length} cases fail`, failed.length === 0),
    check(`${operations} copies and fills, all without an error`, operations > 0),
  ];
  const evidence = [
    `succeeded: ${passed.join(' ')}`,
    `skipped by the test itself: ${skipped.join(' ')}`,
    ...ran.lines.filter((line) => line === 'Test OK'),
    ...ran.refused,
    ran.end,
  ];
  if (failed.length > 0 || passed.length === 0) evidence.push(...ran.errors.slice(-20), ...ran.lines.slice(-20));
  return { version, checks, evidence: [evidence] };
}

/** Each test counts from zero: the last one of each rise is what it did. Zero when one had an error. */
function totals(counts) {
  if (counts.some(({ errors }) => errors > 0)) return 0;
  return counts.reduce((sum, { count }, i) => sum + ((counts[i + 1]?.count ?? 0) > count ? 0 : count), 0);
}

async function testpmd() {
  const { version, ran } = await dpdk({
    binary: 'dpdk-testpmd',
    plugins: ['librte_net_e1000', 'librte_mempool_ring'],
    device: 'igb',
    megabytes: 24,
    args: ['--log-level=pmd.net.e1000*:debug', '--', '-i', '--total-num-mbufs=2048'],
    input: 'quit\n',
  });
  const said = [...ran.lines, ...ran.errors];
  const has = (pattern) => said.some((line) => pattern.test(line));
  const checks = [
    check(
      'EAL starts, with VFIO and IOVAs that are virtual addresses',
      has(/VFIO support initialized/) && has(/IOVA mode 'VA'/),
    ),
    check(
      'the container is set up as type 1 and takes its memory',
      has(/Using IOMMU type 1/) && ran.refused.length === 0,
    ),
    check('its igb driver maps the registers and asks the PHY', has(/read_phy_reg/)),
    limit(
      'a port: the capture has no behaviour, and the driver gives up at its PHY',
      !has(/No probed ethernet devices/),
    ),
  ];
  const telling = /VFIO support|IOVA mode|IOMMU type|PHY Init|No probed|Bye/;
  return { version, checks, evidence: [[...said.filter((line) => telling.test(line)), ...ran.refused, ran.end]] };
}
