import { defineConfig } from 'vitest/config'
import { TallyReporter } from './test/tally.ts'

/* Interop drives real peers one file at a time; unit files run side by side. vitest wants a default export here. */
// oxlint-disable-next-line import/no-default-export
export default defineConfig({
  test: {
    maxWorkers: 2,
    reporters: ['default', new TallyReporter()],
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/interop/**'],
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: 'interop',
          include: ['test/interop/*.test.ts'],
          fileParallelism: false,
          testTimeout: 60_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
})
