/**
 * Accesses of edu's DMA engine, and what the kernel's log says of those that the IOMMU refuses: one JSON line each, as the probe's, so that
 * lab/compare.mjs can hold a simulated host's against Linux': `node lab/guest/faults.mjs arm-its|x86`, and in the guest without a word.
 * One group, type1.
 */
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { openDevice, VfioError } from 'belfry/vfio';
import { findDevice, isEdu, settled, simulatedHost } from '../../docs/examples/kernel.mjs';

const Register = { SOURCE: 0x80, DESTINATION: 0x88, COUNT: 0x90, COMMAND: 0x98 };
const START = 1;
const FROM_DEVICE = 2;
/** Where the engine sees its own buffer. */
const BUFFER = 0x4_0000;
const RW = 0x10_0000;
const READ_ONLY = 0x20_0000;
const NOTHING = 0x30_0000;
/** QEMU's device makes an access of each 4 bytes, and the log takes ten records in five seconds. */
const WORD = 4;

/**
 * @param host `kernel`, `advance()` for a simulated device's time, `log()` for the lines that came since the last call
 * @param write takes a line
 */
export async function faults({ kernel, advance, log }, write) {
  const note = (name, value) => write(JSON.stringify({ name: `faults: ${name}`, value }));
  const device = openDevice(kernel, findDevice(kernel, 'edu', isEdu), { via: 'container' });
  const { container } = device;
  const window = device.reservedRegions.find(({ type }) => type === 'msi').start;
  const memory = container.mapDma({ length: 4096, iova: RW });
  const fixed = container.mapDma({ length: 4096, iova: READ_ONLY, access: 'r' });
  device.config.memoryEnabled = true;
  device.config.busMaster = true;
  const registers = device.bar(0).map();
  const engine = new Engine({ kernel, advance, registers });
  log();
  const noted = async (name, access, seen = () => undefined) => {
    await access();
    note(name, { lines: await logged(kernel, log), ...seen() });
  };

  memory.bytes.set([...'round trip'].map((letter) => letter.charCodeAt(0)));
  await noted(
    'memory to device to memory',
    async () => {
      await engine.run(RW, BUFFER, 12, 0);
      await engine.run(BUFFER, RW + 0x800, 12, FROM_DEVICE);
    },
    () => ({ copied: Buffer.from(memory.bytes.subarray(0x800, 0x80a)).toString('latin1') }),
  );
  await noted('read of nothing', () => engine.run(NOTHING, BUFFER, WORD, 0));
  await noted('write to nothing', () => engine.run(BUFFER, NOTHING + 0x10, WORD, FROM_DEVICE));
  fixed.bytes.set([1, 2, 3, 4]);
  // In this order: what QEMU's VT-d remembers of a page it refuses writes by, without a record.
  await noted(
    'write to read-only memory',
    () => engine.run(BUFFER + 0x100, READ_ONLY, WORD, FROM_DEVICE),
    () => ({ still: [...fixed.bytes.subarray(0, 4)] }),
  );
  await noted(
    'read of read-only memory',
    async () => {
      await engine.run(READ_ONLY, BUFFER, WORD, 0);
      await engine.run(BUFFER, RW + 0x900, WORD, FROM_DEVICE);
    },
    () => ({ copied: [...memory.bytes.subarray(0x900, 0x904)] }),
  );
  // x86's window is the interrupt controller's, whatever is in it; Arm's is pages like others, and this one has no doorbell.
  if (window === 0x800_0000)
    await noted('write to the window, beside the doorbell', () =>
      engine.run(BUFFER, window + 0x8_0000, WORD, FROM_DEVICE),
    );
  note(
    'mapping over the window',
    refusal(() => container.mapDma({ length: 4096, iova: window })),
  );
  memory.close();
  await noted('read of what was unmapped', () => engine.run(RW, BUFFER, WORD, 0));
  device.close();
}

class Engine {
  constructor(parts) {
    Object.assign(this, parts);
  }

  async run(source, destination, count, direction) {
    const { kernel, registers, advance } = this;
    const write64 = (at, value) => {
      registers.write32(at, value % 2 ** 32);
      registers.write32(at + 4, Math.floor(value / 2 ** 32));
    };
    write64(Register.SOURCE, source);
    write64(Register.DESTINATION, destination);
    write64(Register.COUNT, count);
    registers.write32(Register.COMMAND, START | direction);
    advance();
    const done = await settled(kernel, () => (registers.read32(Register.COMMAND) & START) === 0, 20_000);
    if (!done) throw new Error('edu’s DMA does not end');
  }
}

/** Waits until the log is quiet. */
async function logged(kernel, log) {
  const lines = [];
  for (let quiet = 0; quiet < 4; quiet += 1) {
    const more = log();
    if (more.length > 0) quiet = 0;
    lines.push(...more);
    if (kernel.kind === 'sim') break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return lines.filter((line) => /arm-smmu-v3|DMAR|arm_smmu|dmar/.test(line));
}

function refusal(attempt) {
  try {
    attempt();
    return 'granted';
  } catch (error) {
    if (!(error instanceof VfioError)) throw error;
    return error.code;
  }
}

/** The records of /dev/kmsg since the last call (Documentation/ABI/testing/dev-kmsg): `6,339,5140900,-;text`, then details. */
function kernelLog() {
  const fd = openSync('/dev/kmsg', constants.O_RDONLY | constants.O_NONBLOCK);
  const bytes = Buffer.alloc(8192);
  process.on('exit', () => closeSync(fd));
  return () => {
    const lines = [];
    for (;;) {
      try {
        const length = readSync(fd, bytes);
        const [first] = bytes.toString('utf8', 0, length).split('\n');
        lines.push(
          first
            .slice(first.indexOf(';') + 1)
            .replace(/\\x([0-9a-f]{2})/g, (_, code) => String.fromCharCode(Number.parseInt(code, 16))),
        );
      } catch (error) {
        if (error.code === 'EAGAIN') return lines;
        // Older records were overwritten meanwhile: the next read is of those that are there.
        if (error.code !== 'EPIPE') throw error;
      }
    }
  };
}

/** A simulated host in the form that {@link faults} takes. */
export async function simulatedSubject(preset) {
  const host = await simulatedHost(preset);
  let seen = 0;
  return {
    kernel: host.process().kernel,
    advance: () => host.machine.clock.advance(200_000_000),
    log() {
      const lines = host.log.lines.slice(seen);
      seen = host.log.lines.length;
      return lines;
    },
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const preset = process.argv[2];
  const subject =
    preset === undefined
      ? { kernel: await (await import('belfry/linux')).LinuxKernel.load(), advance() {}, log: kernelLog() }
      : await simulatedSubject(preset);
  await faults(subject, (line) => console.log(line));
  process.exit(0);
}
