import { defineConfig } from 'vitest/config'
import { readFileSync } from 'node:fs'
import { TallyReporter } from './test/tally.ts'

const { exports } = JSON.parse(readFileSync('package.json', 'utf8')) as { exports: Record<string, string> }

/** Examples import `rhiza/...` like a user; here that is the sources, not an older build. */
const alias = Object.entries(exports).flatMap(([path, file]) =>
  file.startsWith('./dist/')
    ? [
        {
          find: new RegExp(`^rhiza${path.slice(1)}$`),
          replacement: new URL(file.replace('./dist/', './src/').replace('.js', '.ts'), import.meta.url).pathname,
        },
      ]
    : [],
)

/** Where the results go as JSON: README's table of what works with whom is made of them. */
const report = process.env['RHIZA_REPORT']

/* Interop drives real peers one file at a time; unit files run side by side. vitest wants a default export here. */
// oxlint-disable-next-line import/no-default-export
export default defineConfig({
  resolve: { alias },
  test: {
    maxWorkers: 2,
    reporters: [
      'default',
      ...(report === undefined ? [] : [['json', { outputFile: report }] satisfies [string, object]]),
      new TallyReporter(),
    ],
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/interop/**', 'test/sim/**'],
          // For a machine that has other work, too: only a test that hangs needs it.
          testTimeout: 30_000,
          hookTimeout: 30_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: 'sim',
          include: ['test/sim/**/*.test.ts'],
          // Minutes of virtual time and hundreds of nodes: a machine with other work takes its time.
          testTimeout: 120_000,
          sequence: { groupOrder: 2 },
        },
      },
      {
        extends: true,
        test: {
          name: 'interop',
          include: ['test/interop/*.test.ts'],
          fileParallelism: false,
          testTimeout: 60_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
})
