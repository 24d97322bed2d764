/* The examples in README and docs are the files in examples/, word for word, and they do what is said of them. */
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { version } from '../src/version.ts'

const root = join(import.meta.dirname, '..')
const read = (name: string): string => readFileSync(join(root, name), 'utf8')
const readme = read('README.md')
const manifest = JSON.parse(read('package.json')) as {
  version: string
  exports: Record<string, string>
  dependencies: Record<string, string>
  scripts: Record<string, string>
}

const examples: readonly [string, string, () => Promise<unknown>, string][] = [
  ['README.md', 'exchange', () => import('../examples/exchange.ts'), 'hello from rhiza\n'],
  ['README.md', 'protocol', () => import('../examples/protocol.ts'), 'IS ANYBODY THERE?\n'],
  [
    'docs/protocols.md',
    'negotiation',
    () => import('../examples/negotiation.ts'),
    'hello Ana, by /greet/1.10.0\nhello Ben, by /greet/1.2.0\n/greet/2.0.0 instead of /greet/3.0.0\n',
  ],
  ['README.md', 'pubsub', () => import('../examples/pubsub.ts'), 'hello, says Ben 1\n'],
  ['docs/pubsub.md', 'topics', () => import('../examples/topics.ts'), `${'rain. '.repeat(5)}\nrefused 1\n`],
  ['docs/pubsub.md', 'parts', () => import('../examples/parts.ts'), '4 parts\n'],
  ['docs/pubsub.md', 'names', () => import('../examples/names.ts'), 'true\n'],
  [
    'README.md',
    'graphsync',
    () => import('../examples/graphsync.ts'),
    '0 105 bytes\n1 57 bytes\n2 10 bytes\nthe guide\n',
  ],
  [
    'docs/graphsync.md',
    'dag-exchange',
    () => import('../examples/dag-exchange.ts'),
    [
      'Received block bafybeiczc7ajm4vlcajy4zhrh5sqiyuvmfasfk2fbzltyvjz2hm7qkuvka, size: 102 bytes',
      'Received block bafkreifwiduebmm5g6dgbmzpwunoddlh3tfuvbmwukphxvzmdmvoleupie, size: 6 bytes',
      'Received block bafkreicibqrtnnaq6gwv7c7rwkeuisickwaewzjvbrjhpb7hj265kepduq, size: 7 bytes',
      'ok 3\n',
    ].join('\n'),
  ],
  ['README.md', 'repo', () => import('../examples/repo.ts'), 'docs directory 0\nreadme.txt file 8\nore\n'],
  ['docs/connections.md', 'private', () => import('../examples/private.ts'), '/tls/1.0.0 /yamux/1.0.0\n'],
  ['docs/connections.md', 'session', () => import('../examples/session.ts'), 'for your eyes only\ntrue true\n'],
  [
    'docs/connections.md',
    'peers',
    () => import('../examples/peers.ts'),
    'signed\nfound it again true\nstill wanted false\n',
  ],
]

describe('README and docs', () => {
  it.each(examples)('%s shows examples/%s.ts, which prints what it should', async (page, name, run, output) => {
    expect(read(page)).toContain(`\`\`\`ts\n${read(`examples/${name}.ts`)}\`\`\``)
    const printed: string[] = []
    const keep = (chunk: unknown): boolean => {
      printed.push(typeof chunk === 'string' ? chunk : Buffer.from(chunk as Uint8Array).toString())
      return true
    }
    const write = vi.spyOn(process.stdout, 'write').mockImplementation(keep)
    const log = vi.spyOn(console, 'log').mockImplementation((...words) => void keep(`${words.join(' ')}\n`))
    try {
      await run()
    } finally {
      write.mockRestore()
      log.mockRestore()
    }
    expect(printed.join('')).toBe(output)
  })

  // test/interop/browser.test.ts runs it in one.
  it('show the page of examples/browser', () => {
    expect(read('docs/browser.md')).toContain(`\`\`\`ts\n${read('examples/browser/page.ts')}\`\`\``)
  })

  it('name every subpath, every dependency and only commands that there are', () => {
    for (const path of Object.keys(manifest.exports)) {
      if (path !== './package.json') expect(readme).toContain(`\`rhiza${path.slice(1)}\``)
    }
    for (const [, path = ''] of readme.matchAll(/`rhiza(\/[\w/-]+)`/g))
      expect(manifest.exports).toHaveProperty([`.${path}`])
    for (const name of Object.keys(manifest.dependencies)) expect(readme).toContain(`[${name}]`)
    for (const [, script] of readme.matchAll(/npm run ([\w:]+)/g)) expect(manifest.scripts).toHaveProperty(script ?? '')
    expect(manifest.version).toBe(version)
  })

  it('link to files that there are, and docs to subpaths that there are', () => {
    for (const page of ['README.md', ...readdirSync(join(root, 'docs')).map((name) => `docs/${name}`)]) {
      for (const [, to = ''] of read(page).matchAll(/\]\((?!https?:|#)([^)#]+)/g))
        expect([page, to, existsSync(join(root, dirname(page), to))]).toEqual([page, to, true])
      for (const [, path = ''] of read(page).matchAll(/[`'](rhiza\/[\w/-]+)[`']/g))
        expect(manifest.exports).toHaveProperty([`.${path.slice('rhiza'.length)}`])
    }
  })
})
