/** Aligned text for people. */
import { availableParallelism, totalmem } from 'node:os';

export const machineText = () =>
  `${process.platform} ${process.arch}, ${availableParallelism()} CPUs, ${Math.round(totalmem() / 2 ** 30)} GiB`;

const ns = (value) => (value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0));
const cell = (spread) => (spread === null ? '-' : `${ns(spread.median)} (${ns(spread.min)})`);

let headed = false;

export function printComparison(results) {
  if (!headed) {
    console.log(
      '\nNanoseconds of CPU time per operation: median (min) of the rounds; ratio and goal are of the medians.\n',
    );
    console.log(row('', 'TypeScript', 'C', 'ratio', 'goal', 'per second'));
    headed = true;
  }
  for (const { title, js, c, ratio, goal, why } of results) {
    const verdict = ratio === null ? (why ?? '-') : ratio.toFixed(2);
    const against = goal === undefined ? '' : `${goal}${ratio !== null && ratio > goal ? ' missed' : ''}`;
    console.log(row(title, cell(js), cell(c), verdict, against, `${(1000 / js.median).toFixed(1)} M`));
  }
}

const row = (title, js, c, ratio, goal, rate) =>
  `${title.padEnd(52)} ${js.padStart(15)} ${c.padStart(15)} ${ratio.padStart(7)}  ${goal.padEnd(11)} ${rate.padStart(10)}`;

export function printCheck({ title, holds, text }) {
  const verdict = holds === null ? '' : holds ? 'holds: ' : 'FAILED: ';
  console.log(`\n${title}\n  ${verdict}${text}`);
}
