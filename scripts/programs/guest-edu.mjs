/** The lab's guest with the simulated host's edu passed through: a program in the guest drives it by the guest's own VFIO. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { qemuArguments } from '../../lab/guest-run.mjs';
import { baseImage, runImage } from '../../lab/image.mjs';
import { labKernel } from '../../lab/kernel-lab.mjs';
import { PLATFORMS } from '../../lab/platforms.mjs';
import { findQemu } from '../../lab/qemu.mjs';
import { root, runOnHost } from './belfry.mjs';
import { check } from './checks.mjs';

/** What the device answers by its specification. */
const EXPECTED = [
  'edu 0x10000ed, liveness 0xedcba987',
  '10! = 3628800, interrupts 1, status 0x1',
  'DMA of 4096 bytes there and back: same',
];

export const programs = [
  {
    name: 'qemu-edu',
    title: 'QEMU, a VFIO program in an Arm guest',
    command:
      'belfry exec --host arm-its --device edu,dmaMask=0xffffffffffff -- qemu-system-aarch64 -M virt,gic-version=3,its=on … -device vfio-pci,host=0000:01:00.0',
    about:
      'VFIO on both floors: in the guest [a program](../scripts/programs/guest/edu.mjs) by Node and the guest’s VFIO, below it QEMU and the simulated host’s. The device’s DMA goes to the guest’s memory through the simulated SMMU.',
    run,
  },
];

async function run() {
  const platform = {
    ...PLATFORMS['arm64-its'],
    machine: ['-M', 'virt,gic-version=3,its=on'],
    devices: ['-device', 'vfio-pci,host=0000:01:00.0'],
  };
  const qemu = await findQemu(platform.qemu);
  const kernel = await labKernel(platform.architecture);
  const base = await baseImage(root, platform);
  const script = join(root, 'scripts/programs/guest/edu.mjs');
  const image = runImage({ root, base: base.path, modules: [], script, args: [], shell: false });
  const append = ['vfio.enable_unsafe_noiommu_mode=1'];
  const args = qemuArguments({ qemu, platform, kernel, image, kind: 'lab', append });
  try {
    const ran = await runOnHost({
      host: 'arm-its',
      devices: ['edu,dmaMask=0xffffffffffff'],
      argv: [qemu.command, ...args],
      environment: qemu.environment,
      input: '',
    });
    return { version: qemu.version.join('.'), ...judged(ran) };
  } finally {
    rmSync(image, { force: true });
  }
}

function judged(ran) {
  const begin = ran.lines.findIndex((line) => line.startsWith('@@LAB-BEGIN'));
  const end = ran.lines.findIndex((line) => line.startsWith('@@LAB-END'));
  const said = ran.lines.slice(begin + 1, end);
  const checks = EXPECTED.map((line) => check(`the guest: ${line}`, said.includes(line)));
  checks.push(
    check(
      'three interrupts in the guest’s ITS',
      said.some((line) => /^\d+: +3 +ITS-PCI-MSI-.*vfio-msi/.test(line)),
    ),
    check('each interrupt that was sent arrived', ran.sent === 3 && ran.delivered === 3),
  );
  const evidence = [...said, ...ran.refused, ran.end];
  if (begin < 0 || checks.some(({ ok }) => !ok)) evidence.push(...ran.errors.slice(-8), ...ran.lines.slice(-12));
  return { checks, evidence: [evidence] };
}
