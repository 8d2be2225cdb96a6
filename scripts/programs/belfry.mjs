/** `belfry exec` as the programs are run by it: what it and the program print, and its end line. */
import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const main = join(root, 'dist', 'cli', 'main.js');

/**
 * Runs `argv` on the simulated host. `devices` are those of `--device`. `answer(line)` may give text for the program's standard input after a
 * line of its output; `input` is given at once, and the input is closed behind it.
 * @returns {Promise<{ status: number | null, lines: string[], errors: string[], end: string, sent: number, delivered: number,
 *   refused: string[], seconds: number }>}
 */
export async function runOnHost({ host, devices = [], options = [], argv, input, answer, environment, timeout = 240 }) {
  const args = [main, 'exec', '--explain', '--host', host, ...devices.flatMap((each) => ['--device', each])];
  const started = Date.now();
  const child = spawn(process.execPath, [...args, ...options, '--', ...argv], {
    cwd: root,
    env: environment ?? process.env,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const stuck = setTimeout(() => child.kill('SIGKILL'), timeout * 1000);
  child.stdin.on('error', () => {});
  if (input !== undefined) child.stdin.end(input);
  const reply = (line) => {
    const text = answer?.(line);
    if (text !== undefined) child.stdin.write(text);
  };
  const [lines, errors] = [linesOf(child.stdout, reply), linesOf(child.stderr, () => {})];
  const [code, signal] = await new Promise((resolve) => {
    child.on('error', (error) => resolve([error.message, null]));
    child.on('close', (...end) => resolve(end));
  });
  clearTimeout(stuck);
  return { status: signal ?? code, lines, ...told(errors), seconds: (Date.now() - started) / 1000 };
}

/** Gathers a stream's lines, without the carriage returns of a serial console. */
function linesOf(stream, each) {
  const lines = [];
  let rest = '';
  stream.setEncoding('utf8').on('data', (text) => {
    const parts = `${rest}${text.replaceAll('\r', '')}`.split('\n');
    rest = parts.pop();
    for (const line of parts) {
      lines.push(line);
      each(line);
    }
  });
  stream.on('end', () => rest !== '' && lines.push(rest));
  return lines;
}

/** What belfry said among the lines on standard error. */
function told(all) {
  const own = all.filter((line) => line.startsWith('belfry: '));
  const end = own.findLast((line) => / interrupts delivered/.test(line)) ?? '';
  const [, delivered = 0, sent = 0] = /(\d+) of (\d+) interrupts delivered/.exec(end) ?? [];
  return {
    errors: all.filter((line) => !line.startsWith('belfry: ')),
    end,
    sent: Number(sent),
    delivered: Number(delivered),
    refused: own.filter((line) => line !== end),
  };
}
