/**
 * The kernel that an example runs on: real Linux, or a simulated host with edu at 00:05.0 and an NVMe drive at 00:06.0. Nothing else
 * of an example knows which one it is.
 */

/** @param {'linux' | 'arm-its' | 'arm-v2m' | 'x86'} wanted */
export async function kernelFor(wanted) {
  if (wanted === 'linux') return (await import('belfry/linux')).LinuxKernel.load();
  return (await simulatedHost(wanted)).process().kernel;
}

/** A host whose SMMU may be nested on, as far as it has one; without belfry's own requests, as the Linux of the lab. */
export async function simulatedHost(preset) {
  const [{ bootLinux }, { createDevice }, machine] = await Promise.all([
    import('belfry/kernel'),
    import('belfry/devices'),
    import('belfry/machine'),
  ]);
  if (!machine.isPreset(preset))
    throw new Error(`no kernel is called ${preset}; there are linux, ${machine.presetNames.join(', ')}`);
  const input = machine.presetInput(preset);
  const slot = (at, device, options = {}) => ({ at, kind: 'function', device, options });
  const slots = [slot('05.0', 'edu', { dmaMask: 2 ** 48 - 1 }), slot('06.0', 'nvme-drive')];
  const spec = machine.defineMachine({ ...input, pci: { ...input.pci, slots } });
  const options = { abi: 'linux-7.2', allowUnsafeInterrupts: preset === 'arm-v2m' };
  return bootLinux(new machine.Machine(spec, createDevice), options);
}

/** The name of the first PCI device that `wants({ vendor, device, class })`, as sysfs tells them. @throws Error where there is none */
export function findDevice(kernel, what, wants) {
  const read = (name, file) => Number(kernel.readText(`/sys/bus/pci/devices/${name}/${file}`));
  const names = kernel.list('/sys/bus/pci/devices') ?? [];
  const found = names.find((name) =>
    wants({ vendor: read(name, 'vendor'), device: read(name, 'device'), class: read(name, 'class') }),
  );
  if (found === undefined) throw new Error(`this machine has no ${what}`);
  return found;
}

export const isEdu = ({ vendor, device }) => vendor === 0x1234 && device === 0x11e8;
export const isNvme = (ids) => ids.class === 0x01_08_02;

/** What `poll` answers as soon as that is not 0, or 0 after `patience` ms. A simulated host has done all there is to do when it has settled. */
export async function settled(kernel, poll, patience = 2000) {
  for (let waited = 0; ; waited += 5) {
    kernel.settle();
    const found = poll();
    if (found || waited >= patience || kernel.kind === 'sim') return found;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
