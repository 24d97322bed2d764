/* Reads the import lines of src and keeps the house in order: who may import whom, and what pure files may not hold. */
import { readFileSync, readdirSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, it } from 'vitest'

const root = new URL('../src/', import.meta.url).pathname
const { dependencies } = JSON.parse(readFileSync(join(root, '../package.json'), 'utf8')) as {
  dependencies: Record<string, string>
}

/** Wire codecs and machines: no promise, no platform, no clock of their own. */
const pure =
  /\/(wire|frame|decoder|flow|keepalive|symmetric|handshake|payload|observed|wantlist|ledger|session|session-peer|negotiate|semver)\.ts$|^mux\/yamux\/(?!yamux\.ts)|^security\/noise\/records\.ts$|^dht\/(key|wire|table|lookup)\.ts$|^dial\/(rank|backoff|dns-message)\.ts$|^dns\.ts$|^ipld\/(model|view|unixfs-view|walk|selectors?|selector-(parse|condition))\.ts$|^unixfs\/(data|murmur3|shard)\.ts$|^protocols\/graphsync\/(scan|request|response)\.ts$|^protocols\/gossipsub\/(score(-\w+)?|router|state|mesh|flow|heartbeat|queue|peers|chance|params|message-cache|seen|backoff|promises|partial-groups|share)\.ts$/
const impure =
  /\b(async|await|Promise|setTimeout|setInterval|setImmediate|queueMicrotask)\b|\bDate\.now|\bMath\.random|\bperformance\./

/** The only files that may import node: modules. Portable files reach them through package.json `imports` alone. */
const nodeOnly =
  /^(cli\/|crypto\/native\.ts|transport\/(tcp|system|default-node|websocket\/node-.*)\.ts|store\/(disk-blocks|sqlite-records|durable|keystore|lanes|repo)\.ts|peer\/identity\.ts|unixfs\/export-disk\.ts|stream-node\.ts|discovery\/mdns\/mdns\.ts|dial\/(system-dns|default-node)\.ts|socket-wire\.ts|security\/(default-node|tls\/(alerts|credentials|duplex|tls))\.ts)/

/** Ground floor, then parts and machines, then adapters, then what wires them together. */
function layer(file: string): 0 | 1 | 2 | 3 {
  if (
    /^(connection\/.*|dial\/.*|node|index|kit\/.*|cli\/.*|ui\/.*|(transport|security)\/default-(node|browser))(\.ts)?$/.test(
      file,
    )
  )
    return 3
  if (/^(crypto\/.*|[a-z0-9-]+\.ts)$/.test(file) && !/^(multiaddr|host|addresses)\.ts$/.test(file)) return 0
  if (pure.test(file) || /^(peer|ipld|store|multiaddr)\/|^(multiaddr|host|addresses)\.ts$/.test(file)) return 1
  if (/^(transport\/(transport|system)|security\/security)\.ts$/.test(file)) return 1
  return 2
}

/** An adapter's own folder: `protocols/bitswap`, `mux/yamux`; files right in transport/ or protocols/ stand alone. */
const home = (file: string): string => (file.startsWith('unixfs/') ? 'unixfs' : dirname(file))
const alone = new Set(['transport', 'protocols', 'security', 'mux'])
const allowedPairs = [
  /^transport\/(quic|webtransport|webrtc)\/.* -> security\//,
  /^transport\/relay.* -> protocols\/relay/,
]

const importLine =
  /^\s*(?:import|export)\s+(type\s+)?(?:[^'";]*?\sfrom\s+)?'([^']+)'|\bimport\('([^']+)'\)|^\s*import '([^']+)'/gm

function violations(files: Map<string, string>): string[] {
  const out: string[] = []
  for (const [file, source] of files) {
    const code = source.replaceAll(/\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/.*$/gm, '')
    const say = (what: string): void => void out.push(`${file}: ${what}`)
    if (pure.test(file)) {
      const found = impure.exec(code)
      if (found) say(`a machine holds ${found[0]}`)
    }
    if (/^(?!.*\basync\b)\S.*\bawait\b/m.test(code)) say('top-level await')
    if (/\bconsole\./.test(code)) say('console')
    for (const [, type, ...specifiers] of code.matchAll(importLine)) {
      const target = specifiers.find((s) => s !== undefined) ?? ''
      if (target.startsWith('node:')) {
        if (!nodeOnly.test(file)) say(`imports ${target}`)
      } else if (target.startsWith('.')) {
        const to = normalize(join(dirname(file), target))
        if (!target.endsWith('.ts')) say(`${target} does not end in .ts`)
        // Types vanish: interfaces may be named across floors.
        if (type !== undefined || !target.endsWith('.ts')) continue
        if (layer(to) > layer(file)) say(`imports ${to} from a floor above`)
        if (nodeOnly.test(to) && !nodeOnly.test(file)) say(`imports ${to}, which is for Node only`)
        const foreign = layer(file) === 2 && layer(to) === 2 && (home(to) !== home(file) || alone.has(home(to)))
        if (foreign && !allowedPairs.some((p) => p.test(`${file} -> ${to}`))) say(`adapter imports adapter ${to}`)
      } else if (!target.startsWith('#')) {
        const name = target.split('/', target.startsWith('@') ? 2 : 1).join('/')
        if (dependencies[name] === undefined) say(`imports ${target}, which is no dependency`)
      }
    }
  }
  return out
}

describe('architecture', () => {
  it('of src holds', () => {
    const names = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'))
    expect(names.length).toBeGreaterThan(20)
    expect(violations(new Map(names.map((name) => [name, readFileSync(join(root, name), 'utf8')])))).toEqual([])
  })

  it.each([
    ['bytes.ts', "import { x } from './peer/id.ts'", 'from a floor above'],
    ['peer/id.ts', "import {\n  x,\n} from '../transport/memory.ts'", 'from a floor above'],
    ['protocols/ping.ts', "export { x } from '../node.ts'", 'from a floor above'],
    ['protocols/ping.ts', "import { x } from './bitswap/bitswap.ts'", 'adapter imports adapter'],
    ['transport/relay/relay.ts', "import { x } from '../memory.ts'", 'adapter imports adapter'],
    ['multiaddr.ts', "import { x } from './bytes.js'", 'does not end in .ts'],
    ['stream.ts', "import fs from 'node:fs'", 'imports node:fs'],
    ['connection/connection.ts', "const x = () => import('node:net')", 'imports node:net'],
    ['node.ts', "import { tcp } from './transport/tcp.ts'", 'for Node only'],
    ['kit/kit.ts', "import 'left-pad'", 'no dependency'],
    ['mux/yamux/frame.ts', 'const x = async () => {}', 'holds async'],
    ['mux/yamux/session.ts', 'const x = Date.now()', 'holds Date.now'],
    ['protocols/bitswap/wire.ts', 'let x: Promise<void>', 'holds Promise'],
    ['protocols/bitswap/session.ts', 'setTimeout(x, 1)', 'holds setTimeout'],
    ['bytes.ts', 'export const x = await y', 'top-level await'],
    ['bytes.ts', 'for await (const x of y) z()', 'top-level await'],
    ['bytes.ts', "function x() {\n  console.log('x')\n}", 'console'],
  ])('a broken %s is seen: %s', (file, source, message) => {
    const found = violations(new Map([[file, source]]))
    expect(found).toHaveLength(1)
    expect(found[0]).toContain(message)
  })

  it.each([
    ['transport/relay/relay.ts', "import { x } from '../../protocols/relay/wire.ts'"],
    ['transport/quic/quic.ts', "import { x } from '../../security/tls/certificate.ts'"],
    ['host.ts', "import type { x } from './node.ts'"],
    ['mux/yamux/frame.ts', "// no async here\nimport { x } from '../../bytes.ts'\n/* Promise */"],
    ['transport/tcp.ts', "import net from 'node:net'"],
  ])('a sound %s is let be: %s', (file, source) => {
    expect(violations(new Map([[file, source]]))).toEqual([])
  })
})
