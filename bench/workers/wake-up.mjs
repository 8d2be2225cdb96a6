/**
 * How soon a listener of an eventfd is called: `wake-up.mjs PROGRAM ROUNDS COUNT`. A client in C signals one eventfd and waits for another, which is
 * signalled by a listener here, or by a poll loop in C; rounds take turns. Then what a listener costs while nothing comes. Prints JSON.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { LinuxKernel } from '../../dist/linux/index.js';

const IDLE_MICROSECONDS = 2000;
const QUIET = 2000;

const [program, rounds, count] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const kernel = await LinuxKernel.load();
const [to, from] = [kernel.eventfd(), kernel.eventfd()];

const start = (words, output) => spawn(program, words, { stdio: ['ignore', output, 'inherit', to.fd, from.fd] });

async function client(times, idle) {
  const child = start(['client', String(times), String(idle)], 'pipe');
  let text = '';
  child.stdout.on('data', (part) => {
    text += part;
  });
  await once(child, 'close');
  const [p50, p99] = text.split(' ').map(Number);
  return { p50, p99 };
}

async function here(times, idle) {
  const stop = to.watch(() => {
    if (to.drain() > 0) from.signal();
  });
  const result = await client(times, idle);
  stop();
  return result;
}

async function there(times, idle) {
  const server = start(['server', String(times)], 'ignore');
  const ended = once(server, 'close');
  await sleep(50);
  const result = await client(times, idle);
  await ended;
  return result;
}

async function quiet() {
  const stop = to.watch(() => {});
  await sleep(200);
  const before = process.cpuUsage();
  await sleep(QUIET);
  const { user, system } = process.cpuUsage(before);
  stop();
  return (user + system) / QUIET / 1000;
}

await here(2000, 0);
const results = { busy: { js: [], c: [] }, idle: { js: [], c: [] } };
for (let round = 0; round < rounds; round++) {
  results.busy.js.push(await here(count, 0));
  results.busy.c.push(await there(count, 0));
  results.idle.js.push(await here(Math.ceil(count / 20), IDLE_MICROSECONDS));
  results.idle.c.push(await there(Math.ceil(count / 20), IDLE_MICROSECONDS));
}
process.stdout.write(`${JSON.stringify({ ...results, idleCpu: await quiet() })}\n`);
process.exit(0);
