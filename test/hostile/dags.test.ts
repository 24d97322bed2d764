/* What the owner of a DAG can do to whoever reads it over the network. */
import { mkdir, mkdtemp, readdir, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it, onTestFinished, vi } from 'vitest'
import { fromUtf8 } from '../../src/bytes.ts'
import { LimitError, ProtocolError, errorCode } from '../../src/errors.ts'
import { cidOf, codec, type CID } from '../../src/ipld/cid.ts'
import { encodeNode, type PBLink } from '../../src/ipld/dag-pb.ts'
import { createKit, type Kit } from '../../src/kit/kit.ts'
import { Data, dataType } from '../../src/unixfs/data.ts'
import { writeTo } from '../../src/unixfs/export-disk.ts'
import { walk } from '../../src/unixfs/walk.ts'
import { failure, watchProcess } from './hostile.ts'

vi.setConfig({ testTimeout: 30_000 })
watchProcess()

interface Scene {
  victim: Kit
  owner: Kit
  /** Puts a block where only the owner has it. */
  put(bytes: Uint8Array, code?: number): Promise<CID>
  file(parts: { cid: CID; size: number }[], declared?: number): Promise<CID>
  directory(links: PBLink[]): Promise<CID>
  cat(cid: CID): Promise<number>
  get(cid: CID): Promise<unknown>
  folder: string
}

async function scene(): Promise<Scene> {
  const owner = await createKit({ listen: ['/ip4/127.0.0.1/tcp/0'] })
  const victim = await createKit()
  const folder = await mkdtemp(join(tmpdir(), 'rhiza-hostile-'))
  onTestFinished(async () => {
    await Promise.all([victim.stop(), owner.stop()])
    await rm(folder, { recursive: true, force: true })
  })
  await Promise.all([owner.start(), victim.start()])
  const fetch = { peers: owner.node.addrs(), timeoutMs: 10_000 }
  const put = async (bytes: Uint8Array, code: number = codec.dagPb): Promise<CID> => {
    const cid = cidOf(code, bytes)
    await owner.blocks.put(cid, bytes)
    return cid
  }
  return {
    victim,
    owner,
    put,
    folder,
    file: (parts, declared) =>
      put(
        encodeNode({
          links: parts.map(({ cid }) => ({ cid, name: '', tsize: 10 })),
          data: Data.encode({
            type: dataType.file,
            filesize: declared ?? parts.reduce((sum, { size }) => sum + size, 0),
            blocksizes: parts.map(({ size }) => size),
          }),
        }),
      ),
    directory: (links) => put(encodeNode({ links, data: Data.encode({ type: dataType.directory }) })),
    async cat(cid) {
      let size = 0
      for await (const chunk of victim.cat(cid, fetch)) size += chunk.length
      return size
    },
    get: (cid) => writeTo(join(folder, 'out'), victim.walk(cid, fetch)),
  }
}

const leaf = fromUtf8('ten bytes!')

it.each(['cat', 'get'] as const)('a truncated DAG: %s says which block is missing and leaves no file', async (verb) => {
  const s = await scene()
  const there = await s.put(leaf, codec.raw)
  const missing = cidOf(codec.raw, fromUtf8('never put'))
  const root = await s.file([
    { cid: there, size: 10 },
    { cid: missing, size: 9 },
  ])
  const error = await failure(s[verb](root))
  expect(error).toMatchObject({ name: 'UnavailableError', code: 'not-found' })
  expect(error.message).toContain(missing.toString())
  expect(await readdir(s.folder)).toEqual([])
  // Nobody else is hurt, and what is whole still comes.
  expect(await s.cat(there)).toBe(10)
})

it.each(['cat', 'get'] as const)('a node that is cut short: %s', async (verb) => {
  const s = await scene()
  const whole = await s.file([{ cid: await s.put(leaf, codec.raw), size: 10 }])
  const bytes = await s.owner.blocks.get(whole)
  const root = await s.put(bytes?.subarray(0, 30) ?? leaf)
  expect(await failure(s[verb](root))).toMatchObject({ name: 'ProtocolError', code: 'bad-block' })
  expect(await readdir(s.folder)).toEqual([])
})

it('sizes that lie are an error before anything wrong is given out', async () => {
  const s = await scene()
  const part = await s.put(leaf, codec.raw)
  const lies = [
    await s.file([{ cid: part, size: 10 }], 11),
    await s.file([{ cid: part, size: 9 }]),
    await s.file([{ cid: part, size: 1_000_000 }]),
    await s.file(Array.from({ length: 1_000 }, () => ({ cid: part, size: 1_000 }))),
    await s.file([{ cid: await s.file([{ cid: part, size: 10 }], 10), size: 20 }]),
    await s.file([{ cid: part, size: 10 }], Number.MAX_SAFE_INTEGER),
  ]
  for (const root of lies) {
    expect(errorCode(await failure(s.cat(root)))).toBe('bad-dag')
    expect(await failure(s.get(root))).toBeInstanceOf(ProtocolError)
  }
  expect(await readdir(s.folder)).toEqual([])
})

it('a file made of directories, of itself a thousand levels up, or of other codecs', async () => {
  const s = await scene()
  const part = await s.put(leaf, codec.raw)
  let deep = part
  for (let i = 0; i < 100; i++) deep = await s.file([{ cid: deep, size: 10 }])
  expect(errorCode(await failure(s.cat(deep)))).toBe('bad-dag')
  const directory = await s.directory([])
  expect(errorCode(await failure(s.cat(await s.file([{ cid: directory, size: 10 }]))))).toBe('bad-dag')
  const cbor = await s.put(Uint8Array.of(0x9f), codec.dagCbor)
  expect(errorCode(await failure(s.cat(await s.file([{ cid: cbor, size: 10 }]))))).toBe('unsupported')
  expect(errorCode(await failure(s.cat(directory)))).toBe('not-a-file')
})

it('a small file that unfolds to petabytes is read as far as the reader wants, in bounded memory', async () => {
  const s = await scene()
  let root = await s.put(new Uint8Array(1024 * 1024), codec.raw)
  let size = 1024 * 1024
  for (let level = 0; level < 4; level++) {
    root = await s.file(Array.from({ length: 256 }, () => ({ cid: root, size })))
    size *= 256
  }
  let read = 0
  for await (const chunk of s.victim.cat(root, { peers: s.owner.node.addrs() })) {
    read += chunk.length
    if (read > 50 * 1024 * 1024) break
  }
  expect(read).toBeLessThan(60 * 1024 * 1024)
})

it.each(['..', '.', '', '/', '/etc/passwd', '../../out', 'a/../../b', 'a\0b'])(
  'a directory with the name %j writes nothing',
  async (name) => {
    const s = await scene()
    const cid = await s.put(leaf, codec.raw)
    const root = await s.directory([{ cid, name, tsize: 10 }])
    expect(await failure(s.get(root))).toMatchObject({ name: 'ProtocolError', code: 'bad-dag' })
    expect(await readdir(s.folder, { recursive: true })).toEqual(['out'])
    const nested = await s.directory([{ cid: root, name: 'sub', tsize: 10 }])
    expect(errorCode(await failure(s.get(nested)))).toBe('bad-dag')
    expect((await readdir(s.folder, { recursive: true })).toSorted()).toEqual(['out', 'out/sub'])
  },
)

it('a symlink, of the tree or there before, is never written through', async () => {
  const s = await scene()
  const secret = join(s.folder, 'secret')
  await mkdir(secret)
  const cid = await s.put(leaf, codec.raw)
  const link = await s.put(
    encodeNode({ links: [], data: Data.encode({ type: dataType.symlink, data: fromUtf8(secret) }) }),
  )
  const inside = await s.directory([{ cid, name: 'planted', tsize: 10 }])
  // The name twice, as a symlink and as a directory, in both orders.
  for (const links of [
    [
      { cid: link, name: 'a', tsize: 1 },
      { cid: inside, name: 'a', tsize: 1 },
    ],
    [
      { cid: inside, name: 'a', tsize: 1 },
      { cid: link, name: 'a', tsize: 1 },
    ],
  ]) {
    await s.get(await s.directory(links))
    expect(await readdir(secret)).toEqual([])
    await rm(join(s.folder, 'out'), { recursive: true })
  }
  await mkdir(join(s.folder, 'out'))
  await symlink(secret, join(s.folder, 'out', 'a'))
  const error = await failure(s.get(await s.directory([{ cid: inside, name: 'a', tsize: 1 }])))
  expect(error).toMatchObject({ name: 'StorageError', code: 'exists' })
  expect(await readdir(secret)).toEqual([])
})

it('a tree without end, made of a few directories linked again and again', async () => {
  const s = await scene()
  let root = await s.directory([])
  for (let level = 0; level < 40; level++)
    root = await s.directory(Array.from({ length: 10 }, (_, i) => ({ cid: root, name: `d${i}`, tsize: 1 })))
  const count = async (): Promise<void> => {
    for await (const entry of walk({ get: async (cid) => (await s.owner.blocks.get(cid)) ?? leaf }, root, {
      maxEntries: 1_000,
    }))
      expect(entry.type).toBe('directory')
  }
  expect(await failure(count())).toBeInstanceOf(LimitError)
  let deep = await s.directory([])
  for (let level = 0; level < 300; level++) deep = await s.directory([{ cid: deep, name: 'd', tsize: 1 }])
  expect(errorCode(await failure(s.get(deep)))).toBe('limit')
})
