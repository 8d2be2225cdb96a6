import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    pool: 'threads',
    isolate: false,
    maxWorkers: 2,
    // Random programs take a minute where other work has the processors; what hangs is ended all the same.
    testTimeout: 300_000,
    hookTimeout: 60_000,
    setupFiles: ['./test/support/seed.ts'],
    reporters: ['default', './scripts/vitest-count.mjs'],
  },
});
