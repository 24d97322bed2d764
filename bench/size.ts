/*
 * What it costs to have rhiza: packages and MB of an install, gzip kB of the browser bundles of the portable parts.
 * js bundles are made here from the lab's packages with the same settings; what the lab installs is not a fair install.
 */
import { readdirSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { builtPeers } from '../test/interop/peers.ts'
import { bench, install, interleave, progress, root, type Sample } from './lib.ts'

const rhizaBase = `export { createNode } from './src/node.ts'`
const rhizaRouted = `${rhizaBase}; export { createDht } from './src/dht/dht.ts'
export { createGossipsub } from './src/protocols/gossipsub/gossipsub.ts'`
const rhizaContent = `${rhizaBase}; export { createKit } from './src/kit/kit.ts'`
const jsBase = `
export { noise } from '@libp2p/noise'; export { yamux } from '@libp2p/yamux'; export { createLibp2p } from 'libp2p'
export { identify } from '@libp2p/identify'; export { ping } from '@libp2p/ping'; export { webSockets } from '@libp2p/websockets'`
const jsRouted = `${jsBase}
export { kadDHT } from '@libp2p/kad-dht'; export { gossipsub } from '@libp2p/gossipsub'`
const jsContent = `${jsBase}
export { withBitswap } from '@helia/bitswap'; export { withLibp2pLight } from '@helia/libp2p'
export { unixfs } from '@helia/unixfs'; export { createHeliaLight } from 'helia'`

const gzip = (files: readonly Uint8Array[]): number => gzipSync(Buffer.concat(files), { level: 9 }).length / 1000

interface Bundle {
  /** What is there before the first dynamic import: enough to dial, also by a name, and to talk. */
  initial: number
  /** With all that may be imported later. */
  total: number
}

/** Gzip kB of an ES module for browsers; what is imported dynamically is a file of its own. */
async function bundle(contents: string, resolveDir: string): Promise<Bundle> {
  const { outputFiles, metafile } = await build({
    stdin: { contents, resolveDir },
    bundle: true,
    splitting: true,
    outdir: resolveDir,
    metafile: true,
    minify: true,
    write: false,
    format: 'esm',
    platform: 'browser',
    target: 'es2023',
    logLevel: 'error',
  })
  const made = new Map(outputFiles.map((file) => [basename(file.path), file.contents]))
  const outputs = new Map(Object.entries(metafile.outputs).map(([path, output]) => [basename(path), output]))
  const loaded = new Set(['stdin.js'])
  for (const name of loaded) {
    for (const { path, kind } of outputs.get(name)?.imports ?? []) {
      if (kind === 'import-statement') loaded.add(basename(path))
    }
  }
  const initial = gzip([...loaded].flatMap((name) => made.get(name) ?? []))
  const later = [...made.keys()].filter((name) => !loaded.has(name))
  // Each is fetched by itself, when it is.
  const total = later.reduce((sum, name) => sum + gzip([made.get(name) ?? new Uint8Array(0)]), initial)
  return { initial, total }
}

function bytesIn(path: string): number {
  let sum = 0
  for (const entry of readdirSync(path, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) sum += statSync(join(entry.parentPath, entry.name)).size
  }
  return sum
}

const packagesIn = (path: string): number =>
  readdirSync(path, { recursive: true, withFileTypes: true }).filter(
    (entry) =>
      entry.isFile() && entry.name === 'package.json' && /node_modules\/(@[^/]+\/)?[^/]+$/.test(entry.parentPath),
  ).length

void bench('size', { rounds: 1, seconds: 300 }, async ({ kinds }) => {
  const installed = await install()
  const modules = join(installed.path, 'node_modules')
  const rhiza = { packages: packagesIn(modules), install: bytesIn(modules) / 1e6 }
  progress(`installed: ${rhiza.packages} packages, ${rhiza.install.toFixed(1)} MB`)
  const measure = async (kind: string): Promise<Sample> => {
    const at = kind === 'rhiza' ? root : (builtPeers().jsDir ?? '')
    const own = kind === 'rhiza'
    const ofBase = await bundle(own ? rhizaBase : jsBase, at)
    const ofRouted = await bundle(own ? rhizaRouted : jsRouted, at)
    const ofContent = await bundle(own ? rhizaContent : jsContent, at)
    return {
      'bundle: noise, yamux, identify, ping': ofBase.initial,
      'bundle: noise, yamux, identify, ping, all': ofBase.total,
      'bundle: and kad, gossipsub': ofRouted.initial,
      'bundle: and kad, gossipsub, all': ofRouted.total,
      'bundle: and bitswap, unixfs': ofContent.initial,
      'bundle: and bitswap, unixfs, all': ofContent.total,
      ...(own && rhiza),
    }
  }
  const less = { better: 'lower' } as const
  const works = {
    packages: { unit: 'packages', ...less },
    install: { unit: 'MB', ...less },
    'bundle: noise, yamux, identify, ping': { unit: 'kB gzip', ...less },
    'bundle: noise, yamux, identify, ping, all': { unit: 'kB gzip', ...less },
    'bundle: and kad, gossipsub': { unit: 'kB gzip', ...less },
    'bundle: and kad, gossipsub, all': { unit: 'kB gzip', ...less },
    'bundle: and bitswap, unixfs': { unit: 'kB gzip', ...less },
    'bundle: and bitswap, unixfs, all': { unit: 'kB gzip', ...less },
  }
  const compared = kinds.filter((kind) => kind !== 'go')
  return { rounds: 1, works: await interleave({ rounds: 1, kinds: compared }, works, measure) }
})
