/** Starts QEMU, reads the guest's console, and gives back the script's output and status. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** Megabytes. Node alone takes 112 of them twice while it is unpacked; with 320 it is cut short without a word. */
const MEMORY = 1024;

/** The whole command line. One vCPU: with as many as the machine has cores TCG is slower, not faster. */
export function qemuArguments({ qemu, platform, kernel, image, kind, extra = [], append = [] }) {
  const words = [`console=${platform.console}`, 'panic=-1', 'quiet', ...platform.append, ...append];
  return [
    ...qemu.args,
    ...platform.machine,
    ...['-accel', 'tcg,thread=multi', '-cpu', platform.cpu[kind], '-smp', '1', '-m', String(MEMORY)],
    ...['-nographic', '-nodefaults', '-no-reboot', '-serial', 'stdio', '-net', 'none'],
    ...['-kernel', kernel.image, '-initrd', image],
    ...platform.devices,
    ...extra,
    ...['-append', words.join(' ')],
  ];
}

/**
 * `{ status, ready, seconds, problem }`: the script's exit status, or null with the problem when it did not end.
 * `output` is called with each line that the script prints, `noise` with every other line of the console.
 */
export async function runGuest({ qemu, args, timeout, output, noise }) {
  const started = Date.now();
  const child = spawn(qemu.command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: qemu.environment });
  const found = { status: null, ready: null, seconds: 0, problem: null };
  const timer = setTimeout(() => {
    found.problem = `no end after ${timeout} seconds`;
    child.kill('SIGKILL');
  }, timeout * 1000);
  let inside = false;
  createInterface({ input: child.stderr }).on('line', (line) => noise(`qemu: ${line}`));
  const console = createInterface({ input: child.stdout });
  console.on('line', (raw) => {
    const line = raw.replaceAll('\r', '');
    const mark = /^(.*?)@@LAB-(READY|BEGIN|SHELL|END) ?(.*)$/.exec(line);
    if (mark === null) return inside ? output(line) : noise(line);
    // A script's last line may lack its end.
    if (inside && mark[1] !== '') output(mark[1]);
    const [, , what, text] = mark;
    if (what === 'READY') found.ready = { after: (Date.now() - started) / 1000, text };
    if (what === 'END') found.status = Number(text);
    inside = what === 'BEGIN';
    return undefined;
  });
  const [code, signal] = await new Promise((resolve) => {
    child.on('error', (error) => resolve([error.message, null]));
    child.on('close', (...end) => resolve(end));
  });
  clearTimeout(timer);
  found.seconds = (Date.now() - started) / 1000;
  if (found.status === null) found.problem ??= `the guest ended before the script did (QEMU: ${code ?? signal})`;
  return found;
}

/** The guest's console on this terminal. */
export async function shareTerminal({ qemu, args }) {
  const child = spawn(qemu.command, args, { stdio: 'inherit', env: qemu.environment });
  return new Promise((resolve) => child.on('close', (code) => resolve(code ?? 1)));
}
