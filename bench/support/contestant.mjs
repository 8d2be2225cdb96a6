/** One side of a comparison: a process that runs a round when it is told to and answers nanoseconds per operation. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export class Contestant {
  #child;
  #lines;
  #failure = null;
  #name;

  /** @param {string} name for messages @param {string} program @param {string[]} args */
  constructor(name, program, args) {
    this.#name = name;
    this.#child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.on('error', (error) => {
      this.#failure = error;
    });
    this.#child.stdin.on('error', () => {});
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** A round of `operations` of a case. @returns nanoseconds per operation @throws Error when the process ended instead */
  async round(name, operations) {
    this.#child.stdin.write(`${name} ${operations}\n`);
    const { value, done } = await this.#lines.next();
    const result = Number(value);
    if (!done && Number.isFinite(result) && result > 0) return result;
    throw this.#failure ?? new Error(`${this.#name}: ${done ? `ended during ${name}` : `${name}: ${value}`}`);
  }

  close() {
    this.#child.stdin.end();
  }
}

/** A worker in bench/workers. */
export const javascript = (name, args) =>
  new Contestant(`${name} (JavaScript)`, process.execPath, [worker(name), ...args]);

const worker = (name) => fileURLToPath(new URL(`../workers/${name}.mjs`, import.meta.url));
