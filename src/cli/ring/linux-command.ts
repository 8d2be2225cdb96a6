/** `belfry ring --kernel linux`: the same on this machine's own kernel and devices. */
import { LinuxKernel } from '../../linux/index.ts';
import type { Kernel } from '../../ports/kernel.ts';
import { ProblemError } from '../usage.ts';
import { version } from '../version.ts';
import { type LinuxOptions, parseLinuxOptions } from './linux-options.ts';
import { LinuxJson, type LinuxReport, LinuxText } from './linux-report.ts';
import { LinuxSession } from './linux-session.ts';
import { Progress } from './progress.ts';

/** The exit status: 0 when everything sent was delivered, 1 when something was not. @throws LinuxUnavailable, VfioError, UsageError, ProblemError */
export async function ringLinux(args: readonly string[]): Promise<number> {
  const options = parseLinuxOptions(args);
  return ringOn(await LinuxKernel.load(), options, (text) => void process.stdout.write(text));
}

/** On any kernel: what tells this apart from `ring` is that nothing can be seen but what a kernel shows its users. */
export async function ringOn(kernel: Kernel, options: LinuxOptions, write: (text: string) => void): Promise<number> {
  const report: LinuxReport = options.json ? new LinuxJson(write) : new LinuxText(write, version());
  const session = new LinuxSession(kernel, options.device ?? firstDevice(kernel), options);
  try {
    report.setUp(session);
    if (session.granted === 0) throw new ProblemError(`the kernel has no vector for ${session.device.name}`);
    await session.start();
    const count = options.count ?? session.rung;
    const progress = options.json ? null : Progress.on(process.stderr, count);
    const totals = await session.send(count, (sent) => progress?.show(sent));
    progress?.clear();
    report.totals(session, totals);
    return totals.delivered === totals.sent && totals.unexpected === 0 ? 0 : 1;
  } finally {
    session.close();
  }
}

/** The first device that vfio-pci has. @throws ProblemError where it has none */
function firstDevice(kernel: Kernel): string {
  const names = kernel.list('/sys/bus/pci/devices') ?? [];
  const driver = (name: string): string | undefined =>
    kernel.readLink(`/sys/bus/pci/devices/${name}/driver`)?.split('/').at(-1);
  const found = names.find((name) => driver(name) === 'vfio-pci');
  if (found !== undefined) return found;
  const groups = kernel.list('/sys/kernel/iommu_groups') ?? [];
  const why =
    groups.length === 0
      ? 'the kernel has no IOMMU groups: enable the IOMMU in the firmware (VT-d, AMD-Vi, SMMU), on Intel also with intel_iommu=on on the kernel command line'
      : 'modprobe vfio-pci; echo vfio-pci > /sys/bus/pci/devices/NAME/driver_override; unbind its driver; echo NAME > /sys/bus/pci/drivers_probe';
  throw new ProblemError(`no PCI device of this machine is bound to vfio-pci; ${why}`);
}
