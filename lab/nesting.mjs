/**
 * What lets user space own a stage 1 (vIOMMU) on QEMU's Arm machine: firmware that says CANWBS. QEMU's IORT does not, so Linux is
 * given a table with the bit set, by its own means of replacing tables (CONFIG_ACPI_TABLE_UPGRADE). The table is QEMU's: a
 * first boot reads it, once for each version of QEMU.
 */
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDirectory } from './cache.mjs';
import { Debian } from './debian.mjs';
import { qemuArguments, runGuest } from './guest-run.mjs';
import { runImage } from './image.mjs';

/** IORT (DEN 0049): header, then nodes. */
const NODES = 36;
const OEM_REVISION = 24;
const CHECKSUM = 9;
const ROOT_COMPLEX = 2;
/** In a root complex node: the flags of its memory access properties, and "coherent attribute of normal memory, write-back, shareable". */
const MEMORY_FLAGS = 16 + 7;
const CANWBS = 4;

/** What is added to QEMU's command line: UEFI, since only it brings ACPI; random numbers, which it takes away. */
export async function firmware() {
  const debian = Debian.open();
  debian.update();
  const { path } = await debian.unpack('efi', ['qemu-efi-aarch64']);
  return ['-bios', join(path, 'usr/share/qemu-efi-aarch64/QEMU_EFI.fd'), '-device', 'virtio-rng-pci,bus=pcie.0,addr=8'];
}

/** The table's path in the cache. */
export async function nestingTable({ root, qemu, platform, kernel, base, extra, timeout }) {
  const path = join(cacheDirectory('acpi'), `iort-canwbs-qemu-${qemu.version.join('.')}.aml`);
  if (existsSync(path)) return path;
  const script = join(root, 'lab/guest/print-iort.mjs');
  const image = runImage({ root, base: base.path, modules: kernel.modules, script, args: [], shell: false });
  const lines = [];
  const noise = (line) => lines.push(line);
  try {
    const args = qemuArguments({ qemu, platform, kernel, image, kind: 'lab', extra });
    let printed = '';
    const output = (line) => {
      printed += line;
    };
    const { status, problem } = await runGuest({ qemu, args, timeout, output, noise });
    if (status !== 0)
      throw new Error(
        `the guest’s IORT was not read: ${problem ?? `status ${status}`}\n${lines.slice(-20).join('\n')}`,
      );
    writeFileSync(path, withCanwbs(Buffer.from(printed, 'base64')));
  } finally {
    rmSync(image, { force: true });
  }
  return path;
}

/** Linux takes a table in place of another when its OEM revision is higher. */
export function withCanwbs(table) {
  const patched = Buffer.from(table);
  const count = patched.readUInt32LE(NODES);
  let offset = patched.readUInt32LE(NODES + 4);
  let found = 0;
  for (let i = 0; i < count; i++) {
    if (patched[offset] === ROOT_COMPLEX) {
      patched[offset + MEMORY_FLAGS] |= CANWBS;
      found += 1;
    }
    offset += patched.readUInt16LE(offset + 1);
  }
  if (found === 0) throw new Error(`the IORT has ${count} nodes, and no root complex among them`);
  patched.writeUInt32LE(patched.readUInt32LE(OEM_REVISION) + 1, OEM_REVISION);
  patched[CHECKSUM] = 0;
  patched[CHECKSUM] = -patched.reduce((sum, byte) => sum + byte, 0) & 0xff;
  return patched;
}
