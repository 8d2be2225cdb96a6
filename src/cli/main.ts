#!/usr/bin/env node
/**
 * The command. Every part is loaded when it is needed, so that `belfry --help` costs little more than Node's own start.
 */
import { helpText, isCommand, usageLine } from './help.ts';
import { UsageError } from './usage.ts';

const [first, ...rest] = process.argv.slice(2);

process.exitCode = await main();

/** A reader that has seen enough (`| head`) is no error. Not for a program of exec: Node's streams make the pipes that it shares non-blocking. */
function guardStreams(): void {
  for (const stream of [process.stdout, process.stderr]) {
    if (stream.listenerCount('error') > 0) continue;
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit();
      if (stream === process.stdout) process.stderr.write(`belfry: standard output: ${error.message}\n`);
      process.exit(1);
    });
  }
}

async function main(): Promise<number> {
  try {
    if (first !== 'exec') guardStreams();
    return await dispatch();
  } catch (error) {
    guardStreams();
    if (error instanceof UsageError) {
      process.stderr.write(`belfry: ${error.message}\n${usageLine(error.command)}\n`);
      return 2;
    }
    if (isPlainProblem(error)) {
      process.stderr.write(`belfry: ${error.message}\n`);
      return 1;
    }
    throw error;
  }
}

async function dispatch(): Promise<number> {
  if (first === '--help' || first === '-h' || first === 'help') {
    const topic = first === 'help' ? rest[0] : undefined;
    if (topic !== undefined && !isCommand(topic)) throw new UsageError(`no command is called ${JSON.stringify(topic)}`);
    process.stdout.write(helpText(topic));
    return 0;
  }
  if (first === '--version' || first === '-V') {
    const { version } = await import('./version.ts');
    process.stdout.write(`belfry ${version()}\n`);
    return 0;
  }
  const named = first !== undefined && !first.startsWith('-');
  const command = named ? first : 'ring';
  if (!isCommand(command)) throw new UsageError(`no command is called ${JSON.stringify(command)}`);
  const args = named ? rest : process.argv.slice(2);
  // What follows -- belongs to the program that exec runs.
  const own = args.includes('--') ? args.slice(0, args.indexOf('--')) : args;
  if (own.includes('--help') || own.includes('-h')) {
    guardStreams();
    process.stdout.write(helpText(command));
    return 0;
  }
  if (command === 'exec') {
    const { exec } = await import('./exec/command.ts');
    return exec(args);
  }
  const { wantsLinux } = await import('./ring/linux-options.ts');
  if (wantsLinux(args)) {
    const { ringLinux } = await import('./ring/linux-command.ts');
    return ringLinux(args);
  }
  const { ring } = await import('./ring/command.ts');
  return ring(args);
}

/** What a user did wrong in a file or a set-up: told in a sentence, without a stack trace. */
function isPlainProblem(error: unknown): error is Error {
  const names = new Set([
    'MachineError',
    'CaptureError',
    'VfioError',
    'GuestMapError',
    'GuestError',
    'ProblemError',
    'LinuxUnavailable',
    'LibcUnavailable',
  ]);
  return error instanceof Error && names.has(error.name);
}
