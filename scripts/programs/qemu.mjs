/** QEMU, unmodified, with the simulated host's drive as `-device vfio-pci`. */
import { run, which } from '../../lab/command.mjs';
import { findQemu } from '../../lab/qemu.mjs';
import { Skip } from '../../lab/skip.mjs';
import { ARM, bootGuest, hasLspci, X86 } from './guest.mjs';

const COMMAND = (host, qemu) =>
  `belfry exec --host ${host} --device nvme-drive,queues=2 -- ${qemu} … -device vfio-pci,host=0000:01:00.0`;

export const programs = [
  {
    name: 'qemu-aarch64',
    title: 'QEMU, Arm guest',
    command: COMMAND('arm-its', 'qemu-system-aarch64 -M virt,gic-version=3,its=on'),
    about:
      'The guest’s own kernel gets interrupts through its own ITS. Each is an MSI that the drive wrote at the host’s doorbell, 0x0800_0040, and that crossed the simulated SMMU and ITS of the host.',
    run: async () => booted(await findQemu('qemu-system-aarch64'), ARM, [{}, { iommu: 'iommufd' }, { msi: true }]),
  },
  {
    name: 'qemu-x86',
    title: 'QEMU, x86 guest',
    command: COMMAND('x86', 'qemu-system-x86_64 -M q35'),
    about: 'The simulated host has VT-d with interrupt remapping.',
    run: async () => booted(await findQemu('qemu-system-x86_64'), X86, [{}, { iommu: 'iommufd' }, { msi: true }]),
  },
  {
    name: 'qemu-x86-system',
    title: 'QEMU of this machine, x86 guest',
    command: COMMAND('x86', 'qemu-system-x86_64 -M q35'),
    about: 'The one in the PATH: 7.2 on Debian 12, which knows containers only.',
    run: () => booted(system('qemu-system-x86_64'), X86, [{}, { msi: true }]),
  },
];

async function booted(qemu, platform, runs) {
  const results = [];
  for (const each of runs) {
    // The run with MSI is there for the address, which lspci shows.
    if (each.msi !== true || hasLspci()) results.push(await bootGuest({ qemu, platform, ...each }));
  }
  return {
    version: qemu.version.join('.'),
    checks: results.flatMap(({ checks }) => checks),
    // The last one shows the most: MSI, whose address lspci knows.
    evidence: results.map(({ evidence }) => evidence),
  };
}

function system(name) {
  const command = which(name);
  if (command === null) throw new Skip(`${name} is not in the PATH`);
  const version = /version (\d+\.\d+\.\d+)/.exec(run(command, ['--version']))?.[1] ?? '0.0.0';
  return { command, args: [], environment: process.env, version: version.split('.').map(Number) };
}
