/* `rhiza graph get` against go-graphsync as the server, and go-graphsync asking a running `rhiza serve`. */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { toUtf8 } from '../../src/bytes.ts'
import { readCar, writeCar } from '../../src/ipld/car.ts'
import { cidOf, codec, type CID } from '../../src/ipld/cid.ts'
import { codecs } from '../../src/ipld/codecs.ts'
import type { IpldNode } from '../../src/ipld/model.ts'
import { selectorFromText } from '../../src/ipld/selectors.ts'
import type { BlockPair } from '../../src/store/blocks.ts'
import { rhiza, rhizaJson, rhizaServe, rhizaStart, scratch, type Ran, type Scratch, type Served } from '../cli/rhiza.ts'
import { available, buildPeers, seededBytes, startPeer, type Answer, type Peer } from './peers.ts'

await buildPeers()
const have = available()

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')

function blockOf(code: number, node: IpldNode): BlockPair {
  const bytes = codecs.get(code)?.encode(node) ?? new Uint8Array(0)
  return { cid: cidOf(code, bytes), bytes }
}

/** As a value of the lab's lines, which are JSON. */
function json(value: IpldNode): unknown {
  const text = toUtf8(codecs.byName('dag-json')?.encode(value) ?? new Uint8Array(0))
  // 2^63-1, the end of what has none, is no number of JSON.parse.
  return JSON.parse(text.replaceAll('9223372036854775807', String(Number.MAX_SAFE_INTEGER)))
}

async function cidsOf(car: Uint8Array): Promise<string[]> {
  return Array.fromAsync((await readCar([car])).blocks, ({ cid }) => cid.toString())
}

function errorOf({ stderr }: Ran): { code: string; message: string } {
  return (JSON.parse(stderr.trim().split('\n').at(-1) ?? '') as { error: { code: string; message: string } }).error
}

describe.skipIf(!have.go)('rhiza graph and serve, with the go peer', () => {
  let s: Scratch
  let peer: Peer
  let served: Served
  /** UnixFS in both stores: the CLI adds, go is given the CAR of it. */
  let folder: string
  let graph: { root: BlockPair; blocks: BlockPair[] }
  const leaf = blockOf(codec.raw, seededBytes(5_000, 1))
  const lost = blockOf(codec.raw, seededBytes(5_000, 2))
  const inner = blockOf(codec.dagCbor, { leaf: leaf.cid, n: [1, 2, 3] })

  let number = 0
  const fresh = (): { repo: string } => ({ repo: s.at(`repo-${number++}`) })
  const get = (root: CID | string, ...more: string[]): string[] => [
    'graph',
    'get',
    String(root),
    '--peer',
    String(peer.addrs[0]),
    ...more,
  ]

  beforeAll(async () => {
    s = await scratch()
    peer = await startPeer('go', ['--graphsync'])
    const repo = s.at('served')
    const files = [
      ['few/large', seededBytes(2_500_000, 3)],
      ['few/small', seededBytes(100, 4)],
    ] as const
    await mkdir(s.at('in', 'few'), { recursive: true })
    for (const [name, bytes] of files) await writeFile(s.at('in', name), bytes)
    folder = String((await rhizaJson(['add', '-r', s.at('in')], { repo })).at(-1)?.['cid'])
    const root = blockOf(codec.dagCbor, { a: inner.cid, zz: leaf.cid, list: [inner.cid, 'x'] })
    graph = { root, blocks: [root, inner, leaf] }
    await writeFile(s.at('graph.car'), Buffer.concat(await Array.fromAsync(writeCar([root.cid], graph.blocks))))
    await rhizaJson(['dag', 'import', s.at('graph.car')], { repo })
    await rhizaJson(['dag', 'export', folder, '-o', s.at('folder.car')], { repo })
    for (const car of ['graph.car', 'folder.car']) await peer.call('carImport', { path: s.at(car) })
    served = await rhizaServe(repo, ['--dht', 'none'])
  })
  afterAll(async () => {
    await served.stop()
    await peer.stop()
    await s.remove()
  })

  const texts: [string, () => CID | string][] = [
    ['all', () => graph.root.cid],
    ['root', () => graph.root.cid],
    ['path:a/leaf', () => graph.root.cid],
    ['list/*', () => graph.root.cid],
    ['{"f":{"f>":{"zz":{".":{}},"a":{"a":{">":{".":{}}}}}}}', () => graph.root.cid],
    ['all', () => folder],
    ['levels:1', () => folder],
    ['unixfs:few/large', () => folder],
    ['unixfs:few/large[0:1000]', () => folder],
    ['unixfs:few/**', () => folder],
  ]

  /** The same CAR by a walk over the repo. It goes through fields as they are declared, GraphSync as DAG-CBOR sorts them. */
  async function exported(root: CID | string, text: string): Promise<Buffer> {
    const sorted = toUtf8(codecs.byName('dag-json')?.encode(selectorFromText(text)) ?? new Uint8Array(0))
    const args = ['dag', 'export', String(root), '--selector', text.startsWith('{') ? sorted : text]
    const { code, bytes } = await rhiza(args, { repo: s.at('served') })
    expect(code).toBe(0)
    return bytes
  }

  it.each(texts)('gets from go what is exported here, byte by byte, by %s', async (text, root) => {
    await peer.call('gsServe', {})
    const ran = await rhiza(get(root(), '--selector', text), fresh())
    expect([ran.code, ran.stderr]).toEqual([0, ''])
    const own = await exported(root(), text)
    expect(await cidsOf(ran.bytes)).toEqual(await cidsOf(own))
    expect(ran.bytes.equals(own)).toBe(true)
    // go-car's own export knows no views.
    if (text.startsWith('unixfs')) return
    const path = s.at(`go-${number}.car`)
    await peer.call('carExport', { path, version: 1, root: String(root()), selector: json(selectorFromText(text)) })
    expect(ran.bytes.equals(await readFile(path))).toBe(true)
  })

  it.each(texts)('is asked by go-graphsync by %s', async (text, root) => {
    const { request } = await peer.call('gsRequest', {
      addr: served.addr,
      root: String(root()),
      selector: json(selectorFromText(text)),
    })
    const of = (name: string): Answer[] => peer.events.filter((e) => e['event'] === name && e['request'] === request)
    const done = await peer.event('gsDone', (e) => e['request'] === request, 30_000)
    expect(done['errors']).toEqual([])
    const got = new Set(of('gsBlock').map((e) => String(e['cid'])))
    expect([...got]).toEqual(await cidsOf(await exported(root(), text)))
  })

  it('does not get from go what the repo has', async () => {
    await peer.call('gsServe', {})
    const where = fresh()
    await rhizaJson(get(graph.root.cid, '--selector', 'path:a', '-o', s.at('first.car')), where)
    const [told] = await rhizaJson(get(graph.root.cid, '-o', s.at('second.car')), where)
    expect(told).toMatchObject({ blocks: 3, received: 1 })
  })

  it('names what go lacks and ends with 2', async () => {
    await peer.call('gsServe', {})
    const top = blockOf(codec.dagCbor, { a: lost.cid, b: leaf.cid })
    await peer.call('put', { codec: 'dag-cbor', bytes: base64(top.bytes) })
    const ran = await rhiza(get(top.cid), fresh())
    expect(ran.code).toBe(2)
    expect(ran.stderr).toContain(`missing  ${lost.cid}  at /a\n`)
    expect(await cidsOf(ran.bytes)).toEqual([top, leaf].map(({ cid }) => cid.toString()))
  })

  it('tells why go refuses, and what to do', async () => {
    await peer.call('gsServe', { validate: 'depth' })
    const refused = await rhiza([...get(graph.root.cid), '--json'], fresh())
    expect([refused.code, errorOf(refused)]).toEqual([
      1,
      { code: 'refused', message: expect.stringMatching(/status 3\d.*--selector/) as string },
    ])
    // With a limit it is what go-graphsync gives to everybody.
    expect((await rhiza(get(graph.root.cid, '--selector', 'depth:3'), fresh())).code).toBe(0)
    await peer.call('gsServe', {})
    const absent = await rhiza([...get(lost.cid), '--json'], fresh())
    expect(errorOf(absent)).toMatchObject({ code: 'not-found', message: expect.stringContaining('34') as string })
  })

  it('cancels at go by Ctrl-C', async () => {
    const leaves = Array.from({ length: 50 }, (_, i) => blockOf(codec.raw, seededBytes(50_000, 100 + i)))
    const top = blockOf(
      codec.dagCbor,
      leaves.map(({ cid }) => cid),
    )
    for (const { cid, bytes } of [top, ...leaves])
      await peer.call('put', { codec: cid.code === codec.raw ? 'raw' : 'dag-cbor', bytes: base64(bytes) })
    await peer.call('gsServe', { pauseAfter: 10 })
    const running = rhizaStart(get(top.cid, '-o', s.at('never.car')), fresh())
    const { request } = await peer.event('gsPaused', undefined, 30_000)
    running.kill('SIGINT')
    expect((await running.ended).code).toBe(1)
    await peer.event('gsCancelled', (e) => e['request'] === request)
    await expect.poll(() => peer.call('gsStats')).toMatchObject({ serving: { active: 0, pending: 0 } })
    await expect(readFile(s.at('never.car'))).rejects.toThrow('ENOENT')
  })
})
