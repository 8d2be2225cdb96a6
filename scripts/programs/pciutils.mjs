/** pciutils of this machine, and what an administrator does by hand. */
import { existsSync } from 'node:fs';
import { run } from '../../lab/command.mjs';
import { runOnHost } from './belfry.mjs';
import { check, limit } from './checks.mjs';
import { debianTree } from './debian-program.mjs';
import { needed } from './edu.mjs';

const BDF = '0000:01:00.0';

export const programs = [
  {
    name: 'lspci',
    title: 'lspci and setpci',
    command: 'belfry exec --device nvme-drive -- lspci -vv',
    about: 'Tree, capabilities, extended configuration space, driver and IOMMU group; setpci writes to it.',
    run: pciutils,
  },
  {
    name: 'shell',
    title: 'A shell that binds by sysfs',
    command: `belfry exec --device edu -- busybox sh bind.sh ${BDF}`,
    about:
      'Static busybox: unbind, `driver_override`, `drivers_probe`, `new_id`, the group’s node that comes and goes, the reserved regions.',
    run: shell,
  },
  {
    name: 'driverctl',
    title: 'driverctl',
    command: `belfry exec --device edu -- driverctl --nosave set-override ${BDF} vfio-pci`,
    about: 'The script by which distributions keep driver overrides.',
    run: driverctl,
  },
];

async function pciutils() {
  const lspci = needed('lspci');
  const setpci = needed('setpci');
  const script = [
    `${lspci} -t`,
    `${lspci} -vv -s ${BDF}`,
    `${setpci} -s ${BDF} COMMAND=0006`,
    `${setpci} -s ${BDF} COMMAND CAP_EXP+8.w`,
    `${lspci} -xxxx -s ${BDF} | wc -l`,
  ].join('\n');
  const ran = await runOnHost({ host: 'arm-its', devices: ['nvme-drive'], argv: ['sh', '-c', script], input: '' });
  const text = ran.lines.join('\n');
  const checks = [
    check('-t shows the root port and what is behind it', /-01\.0-\[01\]----00\.0/.test(text)),
    check(
      '-vv decodes class and capabilities',
      /Non-Volatile memory controller/.test(text) &&
        /MSI-X: Enable-/.test(text) &&
        /Express \(v2\) Endpoint/.test(text),
    ),
    check(
      '-vv names the IOMMU group and vfio-pci',
      /IOMMU group: 1/.test(text) && /driver in use: vfio-pci/.test(text),
    ),
    check('-xxxx reads all 4096 bytes', ran.lines.at(-1)?.trim() === '258' || ran.lines.at(-1)?.trim() === '259'),
    check('setpci writes COMMAND and reads it back', ran.lines.at(-3) === '0006'),
  ];
  const shown = ran.lines.filter((line) => !/^\t\t\t/.test(line)).slice(0, 30);
  return { version: run(lspci, ['--version']).trim(), checks, evidence: [[...shown, ...ran.refused, ran.end]] };
}

async function shell() {
  const { tree, version } = await debianTree('busybox', ['busybox-static']);
  const busybox = ['usr/bin/busybox', 'bin/busybox'].map((path) => `${tree}/${path}`).find(existsSync);
  const device = `/sys/bus/pci/devices/${BDF}`;
  const script = `
say() { echo "$1: $(ls /dev/vfio | tr '\\n' ' ')$(basename "$(readlink ${device}/driver)")"; }
say at first
echo ${BDF} > ${device}/driver/unbind; say unbound
echo > ${device}/driver_override; echo ${BDF} > /sys/bus/pci/drivers_probe; say probed
echo vfio-pci > ${device}/driver_override; echo ${BDF} > /sys/bus/pci/drivers_probe; say overridden
echo "regions: $(tr '\\n' ';' < ${device}/iommu_group/reserved_regions)"
echo "type: $(cat ${device}/iommu_group/type)"
echo nonsense > /sys/bus/pci/drivers/vfio-pci/bind || echo refused
`;
  const argv = [busybox, 'sh', '-c', script];
  const ran = await runOnHost({ host: 'arm-its', devices: ['edu'], argv, input: '' });
  const is = (line) => ran.lines.includes(line);
  const checks = [
    check('unbinding takes the group’s node away', is('unbound: devices vfio ') || is('unbound: vfio ')),
    check('driver_override and drivers_probe bring it back', is('overridden: 1 devices vfio vfio-pci')),
    check('the reserved regions are those of Linux', is('regions: 0x0000000008000000 0x00000000080fffff msi;')),
    check(
      'a bind that cannot be is refused, and says why',
      is('refused') && ran.refused.some((line) => /nonsense/.test(line)),
    ),
  ];
  return { version, checks, evidence: [[...ran.lines, ...ran.errors, ...ran.refused, ran.end]] };
}

async function driverctl() {
  const { tree, version } = await debianTree('driverctl-script', ['driverctl']);
  const tool = `${needed('bash')} ${tree}/usr/sbin/driverctl`;
  const script = [
    `${tool} list-devices`,
    `${tool} --nosave unset-override ${BDF}; echo --`,
    `${tool} list-devices`,
    `${tool} --nosave set-override ${BDF} vfio-pci; echo --`,
    `${tool} list-devices`,
  ].join('\n');
  const ran = await runOnHost({ host: 'arm-its', devices: ['edu'], argv: ['bash', '-c', script], input: '' });
  const [before = '', unset = '', set = ''] = ran.lines.join('\n').split('--');
  const checks = [
    check('list-devices shows drivers and overrides', before.includes(`${BDF} vfio-pci [*]`)),
    check('unset-override takes the device from vfio-pci', unset.includes(`${BDF} (none)`)),
    // It calls /sbin/modprobe, whose modules are those of the real system.
    limit('set-override, which calls modprobe for the real system’s modules', set.includes(`${BDF} vfio-pci [*]`)),
  ];
  const said = ran.errors.map((line) => line.replace(/^.*driverctl: line/, 'driverctl: line'));
  return { version, checks, evidence: [[...ran.lines, ...said, ...ran.refused, ran.end]] };
}
