/** A Linux guest in an unmodified QEMU, with the simulated host's NVMe drive passed through. */
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDirectory } from '../../lab/cache.mjs';
import { which } from '../../lab/command.mjs';
import { CpioWriter } from '../../lab/cpio.mjs';
import { Debian } from '../../lab/debian.mjs';
import { labKernel } from '../../lab/kernel-lab.mjs';
import { root, runOnHost } from './belfry.mjs';
import { check } from './checks.mjs';

const DRIVE = 'nvme-drive,queues=2';
/** The device on each interface of the kernel. */
const ATTACH = {
  type1: ['-device', 'vfio-pci,host=0000:01:00.0'],
  iommufd: ['-object', 'iommufd,id=i0', '-device', 'vfio-pci,host=0000:01:00.0,iommufd=i0'],
};

export const ARM = {
  architecture: 'arm64',
  host: 'arm-its',
  machine: ['-M', 'virt,gic-version=3,its=on', '-cpu', 'neoverse-n1'],
  console: 'ttyAMA0',
  /** How the guest's kernel names the interrupts of its own controller. */
  chip: /ITS-PCI-MSI/,
};
export const X86 = {
  architecture: 'amd64',
  host: 'x86',
  machine: ['-M', 'q35', '-cpu', 'qemu64,+rdrand'],
  console: 'ttyS0',
  chip: /PCI-MSI/,
};

/**
 * Boots the guest once. `iommu` is type1 or iommufd; `msi`: one MSI instead of MSI-X, whose address `lspci` then shows on the host.
 * @returns checks and evidence
 */
export async function bootGuest({ qemu, platform, iommu = 'type1', msi = false }) {
  const kernel = await labKernel(platform.architecture);
  const image = await firstFileSystem(platform.architecture);
  const argv = [
    ...[join(root, 'scripts/programs/beside-guest.sh'), qemu.command, ...qemu.args],
    ...platform.machine,
    ...['-smp', '1', '-m', '256', '-accel', 'tcg', '-nographic', '-nodefaults', '-no-reboot', '-serial', 'stdio'],
    ...['-net', 'none', '-kernel', kernel.image, '-initrd', image],
    ...['-append', `console=${platform.console} panic=-1 quiet`, ...ATTACH[iommu]],
  ];
  const devices = [`${DRIVE}${msi ? ',msix=false' : ''}`];
  try {
    const run = await runOnHost({ host: platform.host, devices, argv, environment: qemu.environment });
    return judged({ run, platform, label: `${iommu}, ${msi ? 'MSI' : 'MSI-X'}`, msi });
  } finally {
    rmSync(image, { force: true });
  }
}

function judged({ run, platform, label, msi }) {
  const said = run.lines
    .flatMap((line) => /(?:guest|host): .*\S/.exec(line)?.[0] ?? [])
    .filter((line) => line !== 'host: --');
  const text = said.join('\n');
  const [, written, read] = /written (\w+), read (\w+)/.exec(text) ?? [];
  const counted = [...text.matchAll(/^guest: \d+: +(\d+) +(\S+) .*nvme0q/gm)];
  const taken = counted.reduce((sum, [, count]) => sum + Number(count), 0);
  const checks = [
    check(`${label}: the guest's nvme driver takes the drive`, /driver nvme\n.*nvme0n1, 131072 sectors/.test(text)),
    check(`${label}: 2 MiB written and read back are the same`, written !== undefined && written === read),
    check(
      `${label}: interrupts reach the guest's CPU through its own controller (${counted[0]?.[2] ?? 'none'})`,
      counted.length > 0 && counted.every(([, count, chip]) => Number(count) > 0 && platform.chip.test(chip)),
    ),
    check(
      `${label}: every interrupt that was sent arrived`,
      run.sent >= taken && run.sent > 0 && run.sent === run.delivered,
    ),
  ];
  if (msi) checks.push(address(platform, label, text));
  const evidence = [...said.filter((line) => line !== 'guest: ready'), run.end];
  if (checks.some(({ ok }) => !ok)) evidence.push(...run.errors.slice(-8), ...run.refused, ...run.lines.slice(-12));
  return { checks, evidence, seconds: run.seconds };
}

/** Where the device's message goes on the host: the window on Arm, the APIC's region on x86. */
function address(platform, label, text) {
  const found = /Address: ([0-9a-f]+)/.exec(text)?.[1] ?? '';
  const at = Number.parseInt(found, 16);
  const [first, last] = platform === ARM ? [0x800_0000, 0x80f_ffff] : [0xfee0_0000, 0xfeef_ffff];
  return check(
    `${label}: lspci on the host shows the message's address, ${found || 'none'}`,
    at >= first && at <= last,
  );
}

/** Busybox and our first process. */
async function firstFileSystem(architecture) {
  const debian = Debian.open();
  debian.update();
  const { path: tree } = await debian.unpack(`busybox-${architecture}`, [`busybox-static:${architecture}`]);
  const path = join(cacheDirectory('run'), `${process.pid}-${architecture}.cpio`);
  const cpio = new CpioWriter(path);
  for (const directory of ['proc', 'sys', 'dev', 'tmp', 'bin']) cpio.directory(directory);
  cpio.device('dev/console', 5, 1);
  cpio.device('dev/null', 1, 3, 0o666);
  cpio.copy('bin/busybox', ['usr/bin/busybox', 'bin/busybox'].map((name) => join(tree, name)).find(existsSync));
  cpio.copy('init', join(root, 'scripts/programs/guest-init.sh'));
  cpio.end();
  return path;
}

export const hasLspci = () => which('lspci') !== null;
