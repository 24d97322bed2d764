import { readFile, readdir, writeFile } from 'node:fs/promises'
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { concat, fromUtf8, toHex } from '../../src/bytes.ts'
import { readCar, writeCar } from '../../src/ipld/car.ts'
import { cidOf, codec, parseCid, type CID } from '../../src/ipld/cid.ts'
import { codecs } from '../../src/ipld/codecs.ts'
import type { IpldNode } from '../../src/ipld/model.ts'
import type { BlockPair } from '../../src/store/blocks.ts'
import { rhiza, rhizaJson, rhizaServe, scratch, type Ran, type Scratch, type Served } from './rhiza.ts'

// Every run is a process of its own: on a busy machine each takes its time.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

let s: Scratch
let repo: string

function blockOf(code: number, node: IpldNode): BlockPair {
  const bytes = codecs.get(code)?.encode(node) ?? new Uint8Array(0)
  return { cid: cidOf(code, bytes), bytes }
}

async function car(roots: readonly CID[], blocks: readonly BlockPair[]): Promise<Uint8Array> {
  return concat(await Array.fromAsync(writeCar(roots, blocks)))
}

async function cidsOf(bytes: Uint8Array): Promise<string[]> {
  const { blocks } = await readCar([bytes])
  return Array.fromAsync(blocks, ({ cid }) => cid.toString())
}

function errorOf(stderr: string): { code: string; message: string } {
  const line = stderr.trim().split('\n').at(-1) ?? ''
  return (JSON.parse(line) as { error: { code: string; message: string } }).error
}

// A small tree of three formats in which two ways lead to one leaf.
const leaf = blockOf(codec.raw, fromUtf8('leaf'))
const named = blockOf(codec.dagJson, { deep: [1, { to: leaf.cid }], big: 2n ** 63n })
const pb = blockOf(codec.dagPb, { Links: [{ Hash: leaf.cid, Name: 'leaf', Tsize: 4 }] })
const root = blockOf(codec.dagCbor, { a: named.cid, b: [pb.cid, leaf.cid], n: 1.5, bytes: Uint8Array.of(1, 2, 3) })
/** Depth first, each once. */
const inOrder = [root, named, leaf, pb]

beforeAll(async () => {
  s = await scratch()
  repo = s.at('repo')
  await writeFile(s.at('tree.car'), await car([root.cid], inOrder))
  await rhizaJson(['dag', 'import', s.at('tree.car')], { repo })
})
afterAll(() => s.remove())

describe('rhiza dag import', () => {
  it('puts the blocks of a CAR into the repo and tells its roots', async () => {
    const [told] = await rhizaJson(['dag', 'import', s.at('tree.car')], { repo: s.at('fresh') })
    const bytes = inOrder.reduce((sum, one) => sum + one.bytes.length, 0)
    expect(told).toEqual({ roots: [root.cid.toString()], version: 1, blocks: 4, bytes })
    const { code, stdout } = await rhiza(['dag', 'import', s.at('tree.car')], { repo })
    expect(code).toBe(0)
    expect(stdout).toBe(`${root.cid}\n4 blocks, ${bytes} B\n`)
  })

  it('reads standard input, and says when a root is nowhere', async () => {
    const input = await car([leaf.cid, pb.cid], [leaf])
    const { code, stdout, stderr } = await rhiza(['dag', 'import', '-'], { repo: s.at('stdin'), input })
    expect(code).toBe(0)
    expect(stdout).toBe(`${leaf.cid}\n${pb.cid}\n1 block, 4 B\n`)
    expect(stderr).toContain(`root ${pb.cid} is neither in the CAR nor in the repo`)
  })

  it('names the corrupt section, and keeps what came before', async () => {
    const bytes = await car([root.cid], inOrder)
    bytes[bytes.length - 1] = 0
    await writeFile(s.at('corrupt.car'), bytes)
    const fresh = s.at('corrupt-repo')
    const { code, stdout, stderr } = await rhiza(['dag', 'import', s.at('corrupt.car'), '--json'], { repo: fresh })
    expect([code, stdout]).toEqual([1, ''])
    expect(errorOf(stderr).code).toBe('bad-block')
    expect(errorOf(stderr).message).toMatch(/^CAR: section 4 at byte \d+: block of \d+ bytes does not hash to /)
    const cut = await rhiza(['dag', 'import', '-', '--json'], { repo: fresh, input: bytes.subarray(0, -20) })
    expect(errorOf(cut.stderr).code).toBe('truncated')
    const none = await rhiza(['dag', 'import', '-', '--json'], { repo: fresh, input: fromUtf8('{"no": "car"}') })
    expect(errorOf(none.stderr).code).toBe('truncated')
    const absent = await rhiza(['dag', 'import', s.at('absent.car'), '--json'], { repo: fresh })
    expect(errorOf(absent.stderr).code).toBe('not-found')
  })
})

const get = (path: string, ...more: string[]): Promise<Ran> => rhiza(['dag', 'get', path, ...more], { repo })

describe('rhiza dag get', () => {
  it.each([
    [
      '',
      `{"a":{"/":"${named.cid}"},"b":[{"/":"${pb.cid}"},{"/":"${leaf.cid}"}],"bytes":{"/":{"bytes":"AQID"}},"n":1.5}`,
    ],
    ['/n', '1.5'],
    ['/a', `{"big":9223372036854775808,"deep":[1,{"to":{"/":"${leaf.cid}"}}]}`],
    ['/a/deep/0', '1'],
    ['/a/deep/1/to', '{"/":{"bytes":"bGVhZg"}}'],
    ['/b/0/Links/0/Name', '"leaf"'],
    ['/b/0/Links/0/Hash', '{"/":{"bytes":"bGVhZg"}}'],
    ['/bytes', '{"/":{"bytes":"AQID"}}'],
  ])('resolves ROOT%s', async (path, want) => {
    const { code, stdout } = await get(`${root.cid}${path}`)
    expect(code).toBe(0)
    expect(stdout).toBe(want)
  })

  it('writes other formats, and the very bytes of a block as raw', async () => {
    expect((await get(root.cid.toString(), '--output-codec', 'raw')).bytes).toEqual(Buffer.from(root.bytes))
    expect((await get(named.cid.toString(), '--output-codec', 'raw')).bytes).toEqual(Buffer.from(named.bytes))
    const { bytes } = await get(named.cid.toString(), '--output-codec', 'dag-cbor')
    const want = codecs.byName('dag-cbor')?.encode(codecs.decode(named.cid, named.bytes)) ?? new Uint8Array(0)
    expect(bytes.toString('hex')).toBe(toHex(want))
    expect((await get(`${root.cid}/bytes`, '--output-codec', 'raw')).bytes).toEqual(Buffer.from([1, 2, 3]))
  })

  it('prints one line with --json', async () => {
    const { stdout } = await get(`${root.cid}/b`, '--json')
    expect(stdout).toBe(`[{"/":"${pb.cid}"},{"/":"${leaf.cid}"}]\n`)
  })

  it('says what is not there', async () => {
    const cases: [string[], string, RegExp][] = [
      [[`${root.cid}/a/none`], 'not-found', /no "none" in \/ipfs\/bafy\w+\/a$/],
      [[`${root.cid}/constructor`], 'not-found', /no "constructor"/],
      [[`${root.cid}/n/x`], 'not-found', /no "x"/],
      [[cidOf(codec.raw, fromUtf8('nowhere')).toString()], 'not-found', /is not in the store, and no peer was named/],
      [['nonsense'], 'usage', /is not a CID/],
      [[root.cid.toString(), '--output-codec', 'yaml'], 'usage', /want raw, dag-pb, dag-cbor, dag-json, json, cbor/],
      [[root.cid.toString(), '--output-codec', 'raw', `${root.cid}`], 'usage', /usage: rhiza dag get/],
      [[`${root.cid}/n`, '--output-codec', 'raw'], 'usage', /raw has bytes alone/],
    ]
    for (const [args, code, message] of cases) {
      const ran = await rhiza(['dag', 'get', ...args, '--json'], { repo })
      expect(ran.code).toBe(1)
      expect(errorOf(ran.stderr)).toMatchObject({ code, message: expect.stringMatching(message) as string })
    }
  })
})

describe('rhiza dag export', () => {
  it('writes the DAG as a CAR, depth first, each block once', async () => {
    const { code, bytes } = await rhiza(['dag', 'export', root.cid.toString()], { repo })
    expect(code).toBe(0)
    expect(bytes.toString('hex')).toBe(toHex(await car([root.cid], inOrder)))
    const [told] = await rhizaJson(['dag', 'export', root.cid.toString(), '-o', s.at('out.car')], { repo })
    expect(told).toMatchObject({ path: s.at('out.car'), cid: root.cid.toString(), blocks: 4 })
    expect(await readFile(s.at('out.car'))).toEqual(bytes)
  })

  it('writes what a selector goes through, and no more', async () => {
    const run = async (selector: string) => {
      const { code, bytes, stderr } = await rhiza(['dag', 'export', root.cid.toString(), '--selector', selector], {
        repo,
      })
      expect(stderr).toBe('')
      expect(code).toBe(0)
      return cidsOf(bytes)
    }
    expect(await run('root')).toEqual([root.cid.toString()])
    expect(await run('path:a/deep/1/to')).toEqual([root, named, leaf].map(({ cid }) => cid.toString()))
    expect(await run('{"f":{"f>":{"b":{"a":{">":{".":{}}}}}}}')).toEqual(
      [root, pb, leaf].map(({ cid }) => cid.toString()),
    )
    const bad = await rhiza(['dag', 'export', root.cid.toString(), '--selector', 'what', '--json'], { repo })
    expect(errorOf(bad.stderr).code).toBe('usage')
  })

  it('leaves no file behind when a block is missing', async () => {
    const broken = s.at('broken-repo')
    await writeFile(s.at('broken.car'), await car([root.cid], [root, named]))
    await rhizaJson(['dag', 'import', s.at('broken.car')], { repo: broken })
    const args = ['dag', 'export', root.cid.toString(), '-o', s.at('broken-out.car'), '--json']
    const { code, stderr } = await rhiza(args, { repo: broken })
    expect(code).toBe(1)
    expect(errorOf(stderr)).toMatchObject({
      code: 'not-found',
      message: expect.stringContaining(String(leaf.cid)) as string,
    })
    const names = await readdir(s.dir)
    expect(names.filter((name) => name.startsWith('broken-out') || name.endsWith('.tmp'))).toEqual([])
  })

  it('says where it cannot write', async () => {
    const args = ['dag', 'export', root.cid.toString(), '-o', s.at('no', 'such', 'folder.car'), '--json']
    const { code, stderr } = await rhiza(args, { repo })
    expect(code).toBe(1)
    expect(errorOf(stderr).message).toContain('folder.car')
  })
})

describe('over the network', () => {
  let served: Served
  beforeAll(async () => {
    served = await rhizaServe(repo)
  })
  afterAll(() => served.stop())

  it('gets, exports and keeps what a peer has', async () => {
    const other = s.at('other')
    const got = await rhiza(['dag', 'get', `${root.cid}/a/deep/1/to`, '--peer', served.addr], { repo: other })
    expect(got.stdout).toBe('{"/":{"bytes":"bGVhZg"}}')
    const { bytes } = await rhiza(['dag', 'export', root.cid.toString(), '--peer', served.addr], { repo: other })
    expect(await cidsOf(bytes)).toEqual(inOrder.map(({ cid }) => cid.toString()))
    const again = await rhiza(['dag', 'export', root.cid.toString()], { repo: other })
    expect(again.bytes).toEqual(bytes)
  })

  it('brings a file from one repo to another by a CAR', async () => {
    const content = randomBytes(3_000_000)
    await writeFile(s.at('file'), content)
    const [added] = await rhizaJson(['add', s.at('file')], { repo })
    const cid = String(added?.['cid'])
    const exported = await rhiza(['dag', 'export', cid, '--peer', served.addr], { repo: s.at('third') })
    expect(exported.code).toBe(0)
    const [told] = await rhizaJson(['dag', 'import', '-'], { repo: s.at('fourth'), input: exported.bytes })
    expect(told).toMatchObject({ roots: [cid], blocks: 4 })
    const { bytes } = await rhiza(['cat', cid], { repo: s.at('fourth') })
    expect(bytes.equals(content)).toBe(true)
    expect(parseCid(cid).code).toBe(codec.dagPb)
  })
})
