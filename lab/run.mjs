/** `npm run lab`: real Linux in QEMU, a script in it, its output and status. */
import { rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { qemuArguments, runGuest, shareTerminal } from './guest-run.mjs';
import { baseImage, runImage } from './image.mjs';
import { debianKernel } from './kernel-debian.mjs';
import { labKernel } from './kernel-lab.mjs';
import { firmware, nestingTable } from './nesting.mjs';
import { parseLabOptions, USAGE, UsageError } from './options.mjs';
import { findQemu } from './qemu.mjs';
import { SKIPPED, Skip } from './skip.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const say = (text) => process.stderr.write(`lab: ${text}\n`);

process.exitCode = await main();

async function main() {
  try {
    const options = parseLabOptions(process.argv.slice(2));
    if (options.help) {
      process.stdout.write(`${USAGE}\n`);
      return 0;
    }
    if (options.script !== null && !isFile(options.script)) throw new UsageError(`there is no file ${options.script}`);
    return await inGuest(options);
  } catch (error) {
    if (error instanceof UsageError) {
      say(`${error.message}\n\n${USAGE}`);
      return 2;
    }
    if (!(error instanceof Skip)) throw error;
    say(`skipped: ${error.message}`);
    return SKIPPED;
  }
}

function isFile(path) {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

async function inGuest(options) {
  const { platform, script, args, shell } = options;
  const qemu = await findQemu(platform.qemu);
  const kernel = await (options.kernel === 'lab'
    ? labKernel(platform.architecture)
    : debianKernel(platform.architecture));
  const base = await baseImage(root, platform);
  const { extra, tables } = await nestingParts({ options, qemu, kernel, base });
  const image = runImage({ root, base: base.path, modules: kernel.modules, script, args, shell, tables });
  say(`${options.name}: Linux ${kernel.version}, QEMU ${qemu.version.join('.')}, Node ${base.node}`);
  const command = qemuArguments({ qemu, platform, kernel, image, kind: options.kernel, extra, append: options.append });
  if (options.verbose) say([qemu.command, ...command].join(' '));
  try {
    if (shell) return await shareTerminal({ qemu, args: command });
    const lines = [];
    const noise = (line) => {
      lines.push(line);
      if (options.verbose) say(`| ${line}`);
    };
    const output = (line) => process.stdout.write(`${line}\n`);
    const result = await runGuest({ qemu, args: command, timeout: options.timeout, output, noise });
    return report(result, options.verbose ? [] : lines);
  } finally {
    rmSync(image, { force: true });
  }
}

/** Firmware and tables, where a platform needs others than QEMU's. */
async function nestingParts({ options, qemu, kernel, base }) {
  if (!options.platform.nesting) return { extra: [], tables: [] };
  const extra = await firmware();
  const { platform, timeout } = options;
  return { extra, tables: [await nestingTable({ root, qemu, platform, kernel, base, extra, timeout })] };
}

function report({ status, ready, seconds, problem }, lines) {
  if (ready !== null)
    say(
      `the guest (${ready.text.split(' ').slice(1).join(' ')}) was ready after ${ready.after.toFixed(1)} s, the end came after ${seconds.toFixed(1)} s`,
    );
  if (status !== null) return status;
  for (const line of lines.slice(-40)) say(`| ${line}`);
  say(problem);
  return 1;
}
