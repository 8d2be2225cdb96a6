/**
 * Rings edu by its MSI and an NVMe drive by its MSI-X, on a simulated host or on real Linux:
 *
 *     node docs/examples/interrupts.mjs [arm-its|arm-v2m|x86|linux]
 */
import { openDevice } from 'belfry/vfio';
import { findDevice, isEdu, isNvme, kernelFor } from './kernel.mjs';
import { NvmeAdmin } from './nvme-admin.mjs';

const kernel = await kernelFor(process.argv[2] ?? 'arm-its');
await ringEdu(findDevice(kernel, 'edu', isEdu));
await ringNvme(findDevice(kernel, 'NVMe drive', isNvme));

/** Register 0x60 raises the interrupt, 0x64 takes it back, 0x24 tells why it was raised. */
async function ringEdu(name) {
  const device = openDevice(kernel, name);
  device.config.memoryEnabled = true;
  device.config.busMaster = true; // an MSI is a write of the device's
  const registers = device.bar(0).map();
  const { vectors } = device.msi.enable(1);
  for (let i = 1; i <= 3; i++) {
    const arrival = vectors[0].next();
    registers.write32(0x60, i);
    kernel.settle();
    console.log(`edu ${name}: MSI, ${await arrival} interrupt, status ${registers.read32(0x24)}`);
    registers.write32(0x64, i);
  }
  device.close();
}

/** The drive has nothing to ring itself with, but it answers a command with an interrupt. */
async function ringNvme(name) {
  const device = openDevice(kernel, name);
  device.config.memoryEnabled = true;
  device.config.busMaster = true;
  const memory = device.space.mapDma({ length: NvmeAdmin.MEMORY });
  const drive = new NvmeAdmin(kernel, device.bar(0).map(), memory.bytes, memory.iova);
  const { vectors } = device.msix.enable(1);
  await drive.start();
  for (let i = 1; i <= 3; i++) {
    const arrival = vectors[0].next();
    drive.submitIdentify();
    kernel.settle();
    console.log(`nvme ${name}: MSI-X, ${await arrival} interrupt, Identify: ${drive.complete()}`);
  }
  device.close();
}
