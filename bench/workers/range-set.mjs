import { RangeSet } from '../../dist/kernel/range-set.js';
import { randomSequence, serveRounds, shuffled } from '../support/rounds.mjs';

/** Every second page is taken. */
const startOf = (i) => i * 8192 + 0x1_0000_0000;

class Scene {
  constructor(count) {
    const random = randomSequence();
    this.set = new RangeSet();
    for (const i of shuffled(count, random)) this.set.insert(startOf(i), startOf(i) + 4096, i);
    this.order = shuffled(count, random);
    this.at = 0;
  }

  find(operations) {
    const { set, order } = this;
    let sum = 0;
    let { at } = this;
    for (let n = 0; n < operations; n++) {
      sum = (sum + set.find(startOf(order[at]) + 64)) | 0;
      if (++at === order.length) at = 0;
    }
    this.at = at;
    this.sum = sum;
  }

  replace(operations) {
    const { set, order } = this;
    let { at } = this;
    let inserted = 0;
    for (let n = 0; n < operations; n++) {
      const start = startOf(order[at]);
      const value = set.remove(start);
      if (set.insert(start, start + 4096, value)) inserted++;
      if (++at === order.length) at = 0;
    }
    this.at = at;
    if (inserted !== operations) throw new Error(`${operations - inserted} ranges were not inserted`);
  }
}

const small = new Scene(100_000);
const large = new Scene(1_000_000);
serveRounds({
  'find-100k': (n) => small.find(n),
  'replace-100k': (n) => small.replace(n),
  'find-1M': (n) => large.find(n),
  'replace-1M': (n) => large.replace(n),
});
