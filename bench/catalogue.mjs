/** What is measured: a part is a worker in workers/ with its C side in c/; `operations` make a round of some 50 ms. */

/**
 * @typedef {object} Case
 * @property {string} name
 * @property {string} title
 * @property {string} per what one operation is
 * @property {number} operations in a round
 * @property {number} [goal] the largest ratio to C that is accepted as fast enough
 */

/** @type {{ name: string, cases: Case[], args?: string[] }[]} `args` go to both sides */
export const comparisons = [
  {
    name: 'translate',
    cases: [
      { name: 'hit', title: 'SMMU translate, TLB hit', per: 'translation', operations: 16_000_000, goal: 1.5 },
      { name: 'walk-1G', title: '4-level walk, random in 1 GiB', per: 'walk', operations: 2_000_000, goal: 1.3 },
      { name: 'walk-4M', title: '4-level walk, random in 4 MiB', per: 'walk', operations: 4_000_000, goal: 1.3 },
      { name: 'miss', title: 'SMMU translate, mostly TLB misses', per: 'translation', operations: 1_500_000 },
    ],
  },
  {
    name: 'map',
    cases: [
      { name: 'run', title: 'map and unmap a run of 262,144 pages', per: 'page', operations: 64 * 262_144, goal: 2 },
      { name: 'single', title: 'map and unmap one page, tables stay', per: 'pair', operations: 1_500_000, goal: 1.8 },
    ],
  },
  {
    name: 'range-set',
    cases: [
      { name: 'find-100k', title: 'range set of 100,000: find', per: 'lookup', operations: 200_000, goal: 1.3 },
      {
        name: 'replace-100k',
        title: 'range set of 100,000: remove and insert',
        per: 'pair',
        operations: 100_000,
        goal: 1.3,
      },
      { name: 'find-1M', title: 'range set of 1,000,000: find', per: 'lookup', operations: 100_000, goal: 1.3 },
      {
        name: 'replace-1M',
        title: 'range set of 1,000,000: remove and insert',
        per: 'pair',
        operations: 50_000,
        goal: 1.3,
      },
    ],
  },
  {
    name: 'interrupt',
    cases: [
      { name: 'host-1', title: 'device to host handler, 1 vector', per: 'interrupt', operations: 3_000_000, goal: 3 },
      {
        name: 'host-2048',
        title: 'device to host handler, 2,048 vectors',
        per: 'interrupt',
        operations: 3_000_000,
        goal: 3,
      },
    ],
  },
  {
    name: 'linux',
    cases: [
      { name: 'request', title: 'Linux: an ioctl with a struct', per: 'request', operations: 100_000, goal: 1.7 },
      { name: 'signal', title: 'Linux: eventfd, signal and drain', per: 'pair', operations: 50_000, goal: 1.7 },
      {
        name: 'memory',
        title: 'Linux: DMA memory, a word read and written',
        per: 'word',
        operations: 20_000_000,
      },
      { name: 'array', title: 'the same in an array of its own', per: 'word', operations: 20_000_000 },
      { name: 'register-write', title: 'Linux: a mapped register written', per: 'write', operations: 10_000_000 },
      { name: 'register-read', title: 'Linux: a mapped register read', per: 'read', operations: 2_000_000 },
    ],
  },
  // A scene of guests fills a process.
  ...[
    { name: 'guest-1x1', title: 'device to guest, acknowledged: 1 device × 1 vector' },
    { name: 'guest-1x2048', title: 'device to guest, acknowledged: 1 × 2,048 vectors' },
    { name: 'guest-64x32', title: 'device to guest, acknowledged: 64 × 32 vectors' },
  ].map((scene) => ({
    name: 'guest',
    args: [scene.name],
    cases: [{ ...scene, per: 'interrupt', operations: 500_000 }],
  })),
];
