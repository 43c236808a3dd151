import { join } from 'node:path';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    root: join(import.meta.dirname, '..'),
    include: ['e2e/**/*.test.ts'],
    // A hang is found by each case's own deadline; this one is for what nobody thought of.
    testTimeout: process.env.PANTALA_FULL === '1' ? 1_800_000 : 180_000,
    hookTimeout: 180_000,
    pool: 'forks',
    // Each case starts several programs; more at once would measure the machine.
    fileParallelism: false,
  },
});
