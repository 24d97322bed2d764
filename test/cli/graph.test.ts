/* rhiza graph get and serve, each in a process of its own on loopback, with kits in this one that answer as they are told. */
import { readFile, readdir, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { concat, fromUtf8 } from '../../src/bytes.ts'
import { readCar, writeCar } from '../../src/ipld/car.ts'
import { cidOf, codec, type CID } from '../../src/ipld/cid.ts'
import { codecs } from '../../src/ipld/codecs.ts'
import type { IpldNode } from '../../src/ipld/model.ts'
import { createKit, type Kit } from '../../src/kit/kit.ts'
import { extension, type GraphsyncHooks, type IncomingRequest } from '../../src/protocols/graphsync/graphsync.ts'
import type { BlockPair } from '../../src/store/blocks.ts'
import { rhiza, rhizaJson, rhizaServe, rhizaStart, scratch, type Ran, type Scratch, type Served } from './rhiza.ts'

// Every run is a process of its own: on a busy machine each takes its time.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

let s: Scratch
let served: Served

function blockOf(code: number, node: IpldNode): BlockPair {
  const bytes = codecs.get(code)?.encode(node) ?? new Uint8Array(0)
  return { cid: cidOf(code, bytes), bytes }
}

// Two ways lead to one leaf.
const leaf = blockOf(codec.raw, fromUtf8('leaf'))
const other = blockOf(codec.raw, fromUtf8('other'))
const named = blockOf(codec.dagJson, { deep: [1, { to: leaf.cid }] })
const root = blockOf(codec.dagCbor, { a: named.cid, b: [other.cid, leaf.cid], n: 1.5 })
/** Depth first, each once. */
const inOrder = [root, named, leaf, other]
const size = (blocks: BlockPair[]): number => blocks.reduce((sum, { bytes }) => sum + bytes.length, 0)
const cids = (blocks: BlockPair[]): string[] => blocks.map(({ cid }) => cid.toString())

async function cidsOf(car: Uint8Array): Promise<string[]> {
  const { roots, blocks } = await readCar([car])
  expect(roots.map(String)).toEqual([root.cid.toString()])
  return Array.fromAsync(blocks, ({ cid }) => cid.toString())
}

function errorOf({ stderr }: Pick<Ran, 'stderr'>): { code: string; message: string } {
  const line = stderr.trim().split('\n').at(-1) ?? ''
  return (JSON.parse(line) as { error: { code: string; message: string } }).error
}

let number = 0
/** A repo that nobody has used yet. */
const fresh = (): { repo: string } => ({ repo: s.at(`repo-${number++}`) })

/** A peer that has these blocks. */
async function peer(blocks: BlockPair[], hooks: GraphsyncHooks = {}): Promise<{ kit: Kit; addr: string }> {
  const kit = await createKit({ listen: ['/ip4/127.0.0.1/tcp/0'], graphsync: { hooks } })
  onTestFinished(() => kit.stop())
  await kit.start()
  for (const { cid, bytes } of blocks) await kit.blocks.put(cid, bytes)
  return { kit, addr: String(kit.node.addrs()[0]) }
}

const get = (addr: string, ...more: string[]): string[] => [
  'graph',
  'get',
  root.cid.toString(),
  '--peer',
  addr,
  ...more,
]

beforeAll(async () => {
  s = await scratch()
  const repo = s.at('served')
  await writeFile(s.at('in.car'), concat(await Array.fromAsync(writeCar([root.cid], inOrder))))
  await rhizaJson(['dag', 'import', s.at('in.car')], { repo })
  served = await rhizaServe(repo, ['--dht', 'none'])
})
afterAll(async () => {
  await served.stop()
  await s.remove()
})

describe('rhiza graph get', () => {
  it('writes what a running rhiza serve has as a CAR, in the order of the walk', async () => {
    const { code, bytes, stderr } = await rhiza(get(served.addr), fresh())
    expect([code, stderr]).toEqual([0, ''])
    expect(await cidsOf(bytes)).toEqual(cids(inOrder))
  })

  it.each([
    ['root', [root]],
    ['path:a/deep/1/to', [root, named, leaf]],
    ['b/*', [root, other, leaf]],
    ['depth:1', [root, named]],
    // DAG-JSON in an order that is not that of DAG-CBOR.
    ['{"f":{"f>":{"b":{"i":{"i":0,">":{".":{}}}},"a":{".":{}}}}}', [root, named, other]],
  ])('fetches by %s and no more', async (selector, want) => {
    const where = fresh()
    const out = s.at(`${number}.car`)
    const [told] = await rhizaJson(get(served.addr, '--selector', selector, '-o', out), where)
    expect(told).toMatchObject({
      path: out,
      cid: root.cid.toString(),
      blocks: want.length,
      received: want.length,
      bytes: size(want),
      missing: [],
    })
    expect(told?.['matches']).toBeGreaterThan(0)
    expect(await cidsOf(await readFile(out))).toEqual(cids(want))
    const { stdout } = await rhiza(['dag', 'export', root.cid.toString(), '--selector', 'root'], where)
    expect(stdout).not.toBe('')
  })

  it('keeps what it fetched, and asks for nothing twice', async () => {
    const where = fresh()
    const asked: IncomingRequest[] = []
    const sent: string[] = []
    const { addr } = await peer(inOrder, {
      request: (request) => asked.push(request) > 0,
      outgoingBlock: (_, { cid, onWire }) => void (onWire && sent.push(cid.toString())),
    })
    await rhizaJson(get(addr, '--selector', 'a/deep/1/to', '-o', s.at('some.car')), where)
    expect(sent.splice(0)).toEqual(cids([root, named, leaf]))
    const told = await rhiza(get(addr, '-o', s.at('all.car')), where)
    expect(told.stdout).toBe(`${s.at('all.car')}  4 blocks, ${size(inOrder)} B, 3 of them were in the repo\n`)
    expect(asked.at(-1)?.extensions).toEqual({ [extension.doNotSendFirstBlocks]: 3 })
    expect(sent).toEqual(cids([other]))
    expect(await cidsOf(await readFile(s.at('all.car')))).toEqual(cids(inOrder))
  })

  it('names what the peer lacks, writes the rest, and ends with 2', async () => {
    const where = fresh()
    const { addr } = await peer([root, leaf, other])
    const out = s.at('partial.car')
    const ran = await rhiza(get(addr, '-o', out), where)
    expect(ran.code).toBe(2)
    expect(ran.stdout).toBe(`${out}  3 blocks, ${size([root, leaf, other])} B\n`)
    expect(ran.stderr).toContain(`missing  ${named.cid}  at /a\n`)
    expect(ran.stderr).toMatch(/has not got 1 block of what was asked for.*--peer/)
    expect(await cidsOf(await readFile(out))).toEqual(cids([root, other, leaf]))
    const json = await rhiza(get(addr, '-o', out, '--json'), where)
    expect([json.code, errorOf(json).code]).toEqual([2, 'partial'])
    expect(JSON.parse(json.stdout)).toMatchObject({ missing: [{ cid: named.cid.toString(), path: 'a' }] })
    // What the repo has is not missing: another peer fills the gap.
    const rest = await rhiza(get((await peer([root, named])).addr), where)
    expect(rest.code).toBe(0)
    expect(await cidsOf(rest.bytes)).toEqual(cids(inOrder))
  })

  it('says so where the selector matches nothing', async () => {
    const ran = await rhiza(get(served.addr, '--selector', 'path:no/such/field'), fresh())
    expect(ran.code).toBe(0)
    expect(ran.stderr).toContain('the selector matches nothing there')
    expect(await cidsOf(ran.bytes)).toEqual(cids([root]))
  })

  it.each<[string, string, RegExp, () => Promise<{ addr: string }>]>([
    ['has not got it', 'not-found', /status 34.*; ask another peer/, () => peer([])],
    ['rejects it', 'refused', /status 30.*depth:2.*--peer/, () => peer(inOrder, { request: () => false })],
    [
      'is too busy',
      'refused',
      /status 31.*; try again later/,
      () => peer(inOrder, { request: () => ({ accept: false, status: 31 }) }),
    ],
    [
      'gives less at once',
      'refused',
      /status 32.*; .*ask for less with --selector/,
      () => peer(inOrder, { request: () => ({ accept: true, budget: { blocks: 2 } }) }),
    ],
    [
      'says nothing for too long',
      'timeout',
      /longer than 1000 ms.*--timeout/,
      () => peer(inOrder, { request: () => ({ accept: true, pause: true }) }),
    ],
    [
      'does not speak GraphSync',
      'no-protocol',
      /does not speak GraphSync \(\/ipfs\/graphsync\/2\.0\.0\).*--peer.*dag export --selector/,
      async () => {
        const quiet = await rhizaServe(fresh().repo, ['--dht', 'none', '--no-graphsync'])
        onTestFinished(() => void quiet.stop())
        return quiet
      },
    ],
    [
      'is not there',
      'unreachable',
      /127\.0\.0\.1/,
      async () => {
        const gone = await peer([])
        await gone.kit.stop()
        return gone
      },
    ],
  ])('tells cause and next step where the peer %s, and leaves no file', async (_, code, message, there) => {
    const { addr } = await there()
    const out = s.at(`${code}.car`)
    const ran = await rhiza(get(addr, '-o', out, '--timeout', '1s', '--json'), fresh())
    expect([ran.code, ran.stdout]).toEqual([1, ''])
    expect(errorOf(ran)).toMatchObject({ code, message: expect.stringMatching(message) as string })
    const names = await readdir(s.dir)
    expect(names.filter((name) => name === `${code}.car` || name.endsWith('.tmp'))).toEqual([])
  })

  it.each(['SIGINT', 'SIGTERM'] as const)('cancels at the peer by %s, and leaves no file', async (signal) => {
    const blocks = Array.from({ length: 200 }, (_, i) => blockOf(codec.raw, new Uint8Array(100_000).fill(i)))
    const top = blockOf(codec.dagCbor, { links: blocks.map(({ cid }) => cid) })
    let sent = 0
    /** Connections that there were when a request ended. */
    const ended: number[] = []
    const { kit, addr } = await peer([top, ...blocks], {
      outgoingBlock: (request) => {
        if (++sent === 20) request.pause()
      },
      ended: () => void ended.push(kit.node.connections().length),
    })
    const graphsync = kit.graphsync as NonNullable<Kit['graphsync']>
    const out = s.at('cancelled.car')
    const where = fresh()
    const args = ['graph', 'get', top.cid.toString(), '--peer', addr, '-o', out, '--json']
    const running = rhizaStart(args, where)
    await expect.poll(() => sent, { timeout: 20_000 }).toBe(20)
    expect(graphsync.stats().answering).toBe(1)
    running.kill(signal)
    const ran = await running.ended
    expect([ran.code, errorOf(ran).code]).toEqual([1, 'interrupted'])
    // By the message, not for want of a connection.
    expect(ended).toEqual([1])
    expect(sent).toBe(20)
    expect((await readdir(s.dir)).filter((name) => /cancelled|\.tmp$/.test(name))).toEqual([])
  })

  it('tells how far it is', async () => {
    const blocks = Array.from({ length: 4 }, (_, i) => blockOf(codec.raw, new Uint8Array(1000).fill(i)))
    const top = blockOf(
      codec.dagCbor,
      blocks.map(({ cid }) => cid),
    )
    // A line comes every 5 s where there is no terminal.
    const { addr } = await peer([top, ...blocks], {
      outgoingBlock: (request, { index }) => {
        if (index !== 3 || !request.pause()) return
        setTimeout(() => void request.unpause(), 5_500)
      },
    })
    const { code, stderr } = await rhiza(['graph', 'get', top.cid.toString(), '--peer', addr], fresh())
    expect(code).toBe(0)
    expect(stderr).toMatch(/^the peer has paused the request\nfetching {2}\d blocks {2}\d.\d KiB {2}\d+ B\/s$/m)
  })

  it.each([
    [['graph'], /what of graph\? want get/],
    [['graph', 'get'], /usage: rhiza graph get/],
    [['graph', 'get', 'nonsense', '--peer', '/memory/1'], /is not a CID/],
    [['graph', 'get', root.cid.toString()], /ask whom\?.*--peer ADDR/],
    [get('/memory/1', '--peer', '/memory/2'), /want one --peer/],
    [get('/memory/1', '--selector', 'what'), /--selector "what": .*want all, root.*rhiza graph get --help/],
    [get('/memory/1', '--selector', '{"x":{}}'), /--selector "\{\\"x\\":\{\}\}": .*rhiza graph get --help/],
    [get('/memory/1', '--selector', '{"a":'), /--selector .*rhiza graph get --help/],
    [get('/memory/1', '--selector', '{"R":{"l":{"none":{}}}}'), /--selector .*rhiza graph get --help/],
  ])('answers %j with one line and exit code 1', async (args, message) => {
    const { code, stdout, stderr } = await rhiza([...args, '--json'], fresh())
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr.trim().split('\n')).toHaveLength(1)
    expect(errorOf({ stderr })).toMatchObject({ code: 'usage', message: expect.stringMatching(message) as string })
  })

  it('explains itself', async () => {
    const { code, stdout } = await rhiza(['graph', 'get', '--help'])
    expect(code).toBe(0)
    for (const text of ['--selector TEXT', '--peer', 'unixfs:dir/file', 'Exit code', '--output FILE', 'Ctrl-C'])
      expect(stdout).toContain(text)
    expect(stdout.split('\n').filter((line) => line.length > 130)).toEqual([])
    expect((await rhiza(['serve', '--help'])).stdout).toContain('--no-graphsync')
  })
})

describe('rhiza graph get, among UnixFS', () => {
  it('fetches a range of a file by its name, with the blocks of the range alone', async () => {
    const { kit, addr } = await peer([])
    const content = Uint8Array.from({ length: 3_000_000 }, (_, i) => i % 251)
    const { cid } = await kit.addDirectory([{ path: 'file', type: 'file', content: [content] }])
    const one = async (text: string): Promise<Record<string, unknown> | undefined> =>
      (
        await rhizaJson(
          ['graph', 'get', String(cid satisfies CID), '--peer', addr, '--selector', text, '-o', s.at('range.car')],
          fresh(),
        )
      )[0]
    // Directory, file, and leaves of 1 MiB.
    expect(await one('unixfs:file')).toMatchObject({ blocks: 5 })
    expect(await one('unixfs:file[0:1000]')).toMatchObject({ blocks: 3 })
    expect(await one('unixfs:file[-1000:]')).toMatchObject({ blocks: 3 })
  })
})
