import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['packages/*/test/unit/**/*.test.ts'],
    // The machine may be small and busy; a test that hangs is still found.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: 'forks',
  },
});
