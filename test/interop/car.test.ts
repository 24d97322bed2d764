/* CARs that go-car and Kubo read, and those that they write; and what Kubo shows of the blocks in them. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { concat, fromUtf8, toHex, toUtf8 } from '../../src/bytes.ts'
import { readCar, writeCar } from '../../src/ipld/car.ts'
import { cidOf, codec, parseCid, type CID } from '../../src/ipld/cid.ts'
import { codecs } from '../../src/ipld/codecs.ts'
import type { IpldNode } from '../../src/ipld/model.ts'
import { parseSelector } from '../../src/ipld/selector-parse.ts'
import { selectors as make } from '../../src/ipld/selectors.ts'
import { traverse } from '../../src/ipld/traverse.ts'
import type { BlockPair } from '../../src/store/blocks.ts'
import { profiles } from '../../src/unixfs/build.ts'
import { addFile } from '../../src/unixfs/import.ts'
import { dags } from '../ipld/arbitrary-dag.ts'
import { available, buildPeers, seededBytes, startKubo, startPeer, type Kubo, type Peer } from './peers.ts'

await buildPeers()
const have = available()

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rhiza-car-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

let files = 0
const path = (): string => join(folder, `${files++}.car`)

async function carOf(roots: readonly CID[], blocks: Iterable<BlockPair> | AsyncIterable<BlockPair>) {
  return concat(await Array.fromAsync(writeCar(roots, blocks)))
}

/** Roots, and CIDs with digests of the bytes, as text. */
async function shown(bytes: Uint8Array): Promise<{ version: number; roots: string[]; blocks: string[] }> {
  const { version, roots, blocks } = await readCar([bytes])
  const pairs = await Array.fromAsync(blocks)
  return {
    version,
    roots: roots.map(String),
    blocks: pairs.map(({ cid, bytes }) => `${cid} ${cidOf(codec.raw, bytes)}`),
  }
}

/** All blocks in the order in which they are met, each once. */
async function* everything(root: CID, blocks: ReadonlyMap<string, Uint8Array>): AsyncGenerator<BlockPair> {
  const steps = traverse(root, parseSelector(make.all()), { load: (cid) => blocks.get(String(cid)), visitOnce: true })
  for await (const step of steps) if (step.kind === 'block') yield step
}

async function fileOf(size: number): Promise<{ root: CID; blocks: Map<string, Uint8Array> }> {
  const blocks = new Map<string, Uint8Array>()
  const sink = {
    async putMany(pairs: Iterable<BlockPair> | AsyncIterable<BlockPair>) {
      for await (const { cid, bytes } of pairs) blocks.set(String(cid), bytes)
    },
  }
  const { cid } = await addFile(sink, [seededBytes(size, 9)], {
    profile: { ...profiles['unixfs-v0-2015'], chunkBytes: 4096, width: 10 },
  })
  return { root: cid, blocks }
}

function blockOf(code: number, node: IpldNode): BlockPair {
  const bytes = codecs.get(code)?.encode(node) ?? new Uint8Array(0)
  return { cid: cidOf(code, bytes), bytes }
}

/** Whether we, and go, read it. */
async function outcomes(go: Peer, bytes: Uint8Array): Promise<boolean[]> {
  const file = path()
  await writeFile(file, bytes)
  const attempts = [shown(bytes), go.call('carImport', { path: file })]
  return (await Promise.allSettled(attempts)).map(({ status }) => status === 'fulfilled')
}

describe.skipIf(!have.go)('go-car', () => {
  let go: Peer
  beforeAll(async () => {
    go = await startPeer('go')
  })
  afterAll(() => go?.stop())

  it('reads our CARs, and writes the same bytes as v1 and the same blocks as v2', async () => {
    await fc.assert(
      fc.asyncProperty(dags, async ({ dag, root }) => {
        const pairs = [...dag.blocks].map(([text, bytes]) => ({ cid: parseCid(text), bytes }))
        const roots = [root, ...pairs.slice(0, 2).map(({ cid }) => cid)]
        const ours = await carOf(roots, pairs)
        const file = path()
        await writeFile(file, ours)
        const cids = pairs.map(({ cid }) => cid.toString())
        const texts = roots.map(String)
        expect(await go.call('carImport', { path: file })).toMatchObject({ roots: texts, cids, version: 1 })
        await go.call('carExport', { path: file, version: 1, roots: texts, cids })
        expect(toHex(await readFile(file))).toBe(toHex(ours))
        const second = path()
        await go.call('carExport', { path: second, version: 2, roots: texts, cids })
        expect(await shown(await readFile(second))).toEqual({ ...(await shown(ours)), version: 2 })
      }),
      { numRuns: 100 },
    )
  })

  it.each([1, 2])('exports a file as we do, in v%i', async (version) => {
    const { root, blocks } = await fileOf(1_000_000)
    const ours = await carOf([root], everything(root, blocks))
    const file = path()
    await writeFile(file, ours)
    await go.call('carImport', { path: file })
    await go.call('carExport', { path: file, version, root: root.toString() })
    const theirs = await shown(await readFile(file))
    expect(theirs.version).toBe(version)
    const mine = await shown(ours)
    expect(theirs.roots).toEqual(mine.roots)
    expect(theirs.blocks.length).toBeGreaterThan(220)
    expect(theirs.blocks.length).toBe(mine.blocks.length)
    expect(theirs.blocks.every((one, i) => one === mine.blocks[i])).toBe(true)
  })

  it('refuses the CARs that we refuse', async () => {
    const pair = blockOf(codec.dagCbor, { a: 1 })
    const sound = await carOf([pair.cid], [pair])
    expect(await outcomes(go, sound)).toEqual([true, true])
    const readByGo: number[] = []
    for (let at = 0; at < sound.length; at++) {
      // Which root it is, and which codec the block has, nothing tells.
      if ((at >= 15 && at < 50) || at === 61) continue
      const bytes = sound.slice()
      bytes[at] = (bytes[at] ?? 0) ^ 1
      const [ours, theirs] = await outcomes(go, bytes)
      expect(ours, `byte ${at}`).toBe(false)
      if (theirs === true) readByGo.push(at)
    }
    // It takes another tag for the root.
    expect(readByGo).toEqual([10])
    expect(await outcomes(go, concat([sound, Uint8Array.of(0)]))).toEqual([false, false])
    expect(await outcomes(go, sound.subarray(0, -1))).toEqual([false, false])
  })
})

describe.skipIf(!have.kubo)('Kubo', () => {
  let kubo: Kubo
  beforeAll(async () => {
    kubo = await startKubo()
  })
  afterAll(() => kubo?.stop())

  it('imports our CAR, and exports the very bytes', async () => {
    const { root, blocks } = await fileOf(300_000)
    const leaf = blockOf(codec.raw, fromUtf8('leaf'))
    const inner = blockOf(codec.dagJson, { to: leaf.cid, again: leaf.cid, list: [1, 2.5, null] })
    const top = blockOf(codec.dagCbor, {
      file: root,
      z: [inner.cid, leaf.cid],
      'a key': 'ü',
      bytes: Uint8Array.of(1, 2),
    })
    for (const { cid, bytes } of [leaf, inner, top]) blocks.set(String(cid), bytes)
    const file = path()
    const ours = await carOf([top.cid], everything(top.cid, blocks))
    await writeFile(file, ours)
    expect(await kubo.run('dag', 'import', file)).toContain(top.cid.toString())
    expect(toHex(await kubo.bytes('dag', 'export', '--progress=false', top.cid.toString()))).toBe(toHex(ours))
    // What it shows of a block is what we show.
    for (const { cid, bytes } of [top, inner, leaf]) {
      const json = toUtf8(codecs.byName('dag-json')?.encode(codecs.decode(cid, bytes)) ?? new Uint8Array(0))
      expect((await kubo.run('dag', 'get', cid.toString())).trim()).toBe(json)
      const cbor = codecs.byName('dag-cbor')?.encode(codecs.decode(cid, bytes)) ?? new Uint8Array(0)
      expect(toHex(await kubo.bytes('dag', 'get', '--output-codec=dag-cbor', cid.toString()))).toBe(toHex(cbor))
    }
    const node = toUtf8(
      codecs.byName('dag-json')?.encode(codecs.decode(root, blocks.get(String(root)) ?? new Uint8Array(0))) ??
        new Uint8Array(0),
    )
    // Its dag-pb has Data before Links in JSON only where names sort so, as ours.
    expect((await kubo.run('dag', 'get', root.toString())).trim()).toBe(node)
  })
})
